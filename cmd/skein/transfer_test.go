package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func TestFrames(t *testing.T) {
	for _, n := range []int{0, 1, frameSize, frameSize + 1, 3 * frameSize} {
		var got []int
		err := frames(iotest.HalfReader(strings.NewReader(strings.Repeat("x", n))), func(data []byte) error {
			got = append(got, len(data))
			return nil
		})
		total := 0
		for _, g := range got {
			total += g
		}
		if err != nil || total != n || len(got) != max(1, (n+frameSize-1)/frameSize) {
			t.Errorf("%d bytes came as %v: %v", n, got, err)
		}
	}
	broken := errors.New("broken")
	if err := frames(iotest.ErrReader(broken), func([]byte) error { t.Error("sent what could not be read"); return nil }); !errors.Is(err, broken) {
		t.Errorf("the reader's error became %v", err)
	}
	if err := frames(strings.NewReader("x"), func([]byte) error { return io.EOF }); err != nil {
		t.Errorf("a stream that the server ended: %v", err)
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &progress{what: "put", total: 4 << 20, began: time.Now(), to: &out}
		w := p.writing(io.Discard)
		piece := make([]byte, 1<<20)
		_, _ = w.Write(piece)
		if p.done(); out.Len() > 0 {
			t.Errorf("a bar although it took no time: %q", &out)
		}
		time.Sleep(time.Second)
		_, _ = w.Write(piece)
		_, _ = w.Write(piece) // too soon to draw again
		p.done()
		p.done()
		if got, want := out.String(), "\r\x1b[Kput [===============               ]  50%  2.0 MiB of 4.0 MiB  2.0 MiB/s\r\x1b[K"; got != want {
			t.Errorf("drew %q, want %q", got, want)
		}
	})
}

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"plain ü": "plain ü", "esc\x1b[2J": `"esc\x1b[2J"`, "\xff": `"\xff"`, "tab\t": `"tab\t"`, "bidi\u202e": `"bidi\u202e"`,
	} {
		if got := printable(s); got != want {
			t.Errorf("printable(%q) = %s, want %s", s, got, want)
		}
	}
}
