package service

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFrames(t *testing.T) {
	for _, n := range []int{0, 1, frameSize, frameSize + 1, 3 * frameSize} {
		var got []int
		err := Frames(iotest.HalfReader(strings.NewReader(strings.Repeat("x", n))), func(data []byte) error {
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
	if err := Frames(iotest.ErrReader(broken), func([]byte) error { t.Error("sent what could not be read"); return nil }); !errors.Is(err, broken) {
		t.Errorf("the reader's error became %v", err)
	}
	// A body that is cut off is no body that ends.
	cut := io.MultiReader(strings.NewReader("x"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if err := Frames(cut, func([]byte) error { t.Error("sent what is cut off"); return nil }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a body that is cut off: %v", err)
	}
	if err := Frames(strings.NewReader("x"), func([]byte) error { return io.EOF }); err != nil {
		t.Errorf("a stream that the server ended: %v", err)
	}
}
