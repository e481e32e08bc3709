package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"skein.dev/platform/fault"
)

// Elements that have no end, or are others when they are read again, make no archive.
func TestWriteElements(t *testing.T) {
	large := make([]byte, mostElement)
	for name, c := range map[string]struct {
		each func(n int64, f func([]byte) error) error
		want error
	}{
		"alike": {func(_ int64, f func([]byte) error) error { return errors.Join(f([]byte("a")), f(nil)) }, nil},
		"endless": {func(_ int64, f func([]byte) error) error {
			for {
				if err := f(large); err != nil {
					return err
				}
			}
		}, fault.TooLarge},
		"too large": {func(_ int64, f func([]byte) error) error { return f(make([]byte, mostElement+1)) }, fault.TooLarge},
		"longer":    {func(n int64, f func([]byte) error) error { return f(make([]byte, 5+n)) }, fault.Conflict},
		"shorter":   {func(n int64, f func([]byte) error) error { return f(make([]byte, 5-n)) }, fault.Conflict},
	} {
		var b bytes.Buffer
		if err := WriteElements(tar.NewWriter(&b), "k", c.each); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// An archive that is cut off, wherever that is, does not end.
func TestReader(t *testing.T) {
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	for range 2 {
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "k", Size: 3}); err != nil {
			t.Fatal(err)
		}
		_, _ = out.Write([]byte("abc"))
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	read := func(n int) error {
		in := NewReader(bytes.NewReader(b.Bytes()[:n]))
		for {
			_, err := in.Next()
			if err == nil {
				_, err = io.Copy(io.Discard, in)
			}
			if err != nil {
				return err
			}
		}
	}
	for n := range b.Len() {
		if err := read(n); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%d of %d bytes are taken for all", n, b.Len())
		}
	}
	if err := read(b.Len()); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
