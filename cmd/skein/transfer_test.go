package main

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

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
