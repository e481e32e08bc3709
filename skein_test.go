package skein

import (
	"errors"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "ann", "a-b", "0", strings.Repeat("x", 63), "a--b"} {
		if _, err := ParseUser(good); err != nil {
			t.Errorf("ParseUser(%q): %v", good, err)
		}
	}
	for _, bad := range []string{"", "-", "a-", "-a", "A", "a_b", "a/b", "ä", "a b", "a\x00", "..", strings.Repeat("x", 64)} {
		if _, err := ParseUser(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseUser(%q) = %v, want ErrInvalid", bad, err)
		}
	}
}

func TestFunctionText(t *testing.T) {
	f, err := ParseFunction("ann/echo")
	if err != nil || f.String() != "ann/echo" {
		t.Fatalf("got %v, %v", f, err)
	}
	for _, bad := range []string{"", "ann", "ann/", "/echo", "ann/e/f", "Ann/echo"} {
		if _, err := ParseFunction(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseFunction(%q) = %v, want ErrInvalid", bad, err)
		}
	}
}

func TestCallID(t *testing.T) {
	id := NewCallID()
	back, err := ParseCallID(id.String())
	if err != nil || back != id || id.IsZero() {
		t.Fatalf("%v: back %v, %v", id, back, err)
	}
	for _, bad := range []string{"", "xyz", id.String()[1:], id.String() + "0", strings.Repeat("g", 32)} {
		if _, err := ParseCallID(bad); err == nil {
			t.Errorf("ParseCallID(%q) passed", bad)
		}
	}
}

func TestCleanPath(t *testing.T) {
	for in, want := range map[string]string{
		"a": "a", "/a": "a", "a//b/./c/../d": "a/b/d", "": ".", "/": ".", "a/..": ".", "x/": "x", "...": "...", "a/..b": "a/..b",
	} {
		if got, err := CleanPath(in); err != nil || got != want {
			t.Errorf("CleanPath(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"..", "/..", "a/../..", "a/../../a", "a\x00b", "a\nb", "\xff", strings.Repeat("a/", 400), strings.Repeat("a", 241)} {
		if got, err := CleanPath(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("CleanPath(%q) = %q, %v, want ErrInvalid", bad, got, err)
		}
	}
}

// FuzzCleanPath: whatever passes stays inside, and cleaning is idempotent.
func FuzzCleanPath(f *testing.F) {
	f.Add("a/../b")
	f.Add("/../../etc/passwd")
	f.Fuzz(func(t *testing.T, p string) {
		got, err := CleanPath(p)
		if err != nil {
			return
		}
		if strings.HasPrefix(got, "/") || got == ".." || strings.HasPrefix(got, "../") || strings.Contains(got, "/../") {
			t.Fatalf("CleanPath(%q) = %q leaves the tree", p, got)
		}
		again, err := CleanPath(got)
		if err != nil || again != got {
			t.Fatalf("CleanPath(%q) = %q, then %q, %v", p, got, again, err)
		}
	})
}

func TestStateKey(t *testing.T) {
	for _, good := range []string{"k", "a:b", "{x}*?[", "\n", "a/b", "\xff\xfe", strings.Repeat("k", MaxKeyLen)} {
		if _, err := NewStateKey("ann", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a\x00", strings.Repeat("k", MaxKeyLen+1)} {
		if _, err := NewStateKey("ann", bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestWebhook(t *testing.T) {
	for _, good := range []string{"", "http://a", "https://a.example:8443/x?y=z", "http://[::1]:80/"} {
		if err := CheckWebhook(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"a", "//a", "ftp://a", "file:///etc/passwd", "http:", "http://", "https:///x", "http:a", "http://u@a", "http://u:p@a", "http://a/#x", "http://a/ b", "http://a\n", "http://a:b",
		"javascript:x", "http://a/" + strings.Repeat("x", MaxWebhookLen),
	} {
		if err := CheckWebhook(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("CheckWebhook(%q) = %v, want ErrInvalid", bad, err)
		}
	}
}
