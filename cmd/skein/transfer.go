package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"skein.dev"
	"skein.dev/platform/fault"
)

// source opens a file named on the command line, "-" being stdin; size is -1 if it can't be known.
func (a *app) source(name string) (body io.ReadCloser, size int64, err error) {
	if name == "-" {
		return io.NopCloser(a.stdin), -1, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return f, -1, nil
	}
	return f, info.Size(), nil
}

// piped reports whether somebody feeds stdin. A terminal or /dev/null does not, and a socket may be a daemon's that never
// ends.
func (a *app) piped() bool {
	f, ok := a.stdin.(*os.File)
	if !ok {
		return a.stdin != nil
	}
	info, err := f.Stat()
	return err == nil && (info.Mode().IsRegular() || info.Mode()&os.ModeNamedPipe != 0)
}

// payload reads what must fit into one message, and one byte more than that: enough to know that it does not.
func payload(r io.Reader, what, instead string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, skein.MaxPayload+1))
	if err != nil {
		return nil, err
	}
	if len(data) > skein.MaxPayload {
		return nil, fault.TooLarge.New("PAYLOAD_SIZE", "%s is larger than %d bytes", what, skein.MaxPayload).WithHint("%s", instead)
	}
	return data, nil
}

// body is a value given in one of three ways: by --value, by a file's name among the arguments, or on stdin.
func (a *app) body(cmd *cobra.Command, value *string, args []string) (io.ReadCloser, int64, error) {
	given := cmd.Flags().Changed("value")
	switch {
	case given && len(args) > 0:
		return nil, 0, usagef("give --value or a file, not both")
	case given:
		return io.NopCloser(strings.NewReader(*value)), int64(len(*value)), nil
	case len(args) > 0:
		return a.source(args[0])
	case a.piped():
		return a.source("-")
	}
	return nil, 0, usagef("no value: give --value, a file, or \"-\" for stdin")
}

func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// progress draws a bar on stderr while bytes pass, if a person watches and it takes long enough to wonder.
type progress struct {
	r    io.Reader
	w    io.Writer
	to   io.Writer // nil: nobody watches
	what string

	mu    sync.Mutex // a transfer may have several parts
	total int64      // -1 if unknown
	n     int64
	began time.Time
	drawn time.Time
}

const (
	progressAfter = 700 * time.Millisecond
	progressEvery = 100 * time.Millisecond
)

func (a *app) progress(what string, total int64) *progress {
	p := &progress{what: what, total: total, began: time.Now()}
	if terminal(a.stderr) {
		p.to = a.stderr
	}
	return p
}

func (p *progress) reading(r io.Reader) io.Reader { p.r = r; return p }
func (p *progress) writing(w io.Writer) io.Writer { p.w = w; return p }

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.add(n)
	return n, err
}

func (p *progress) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.add(n)
	return n, err
}

// expect says how much there will be, if nobody knew before.
func (p *progress) expect(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total < 0 {
		p.total = total
	}
}

func (p *progress) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n += int64(n)
	now := time.Now()
	if p.to == nil || now.Sub(p.began) < progressAfter || now.Sub(p.drawn) < progressEvery {
		return
	}
	p.drawn = now
	_, _ = fmt.Fprintf(p.to, "\r\x1b[K%s", p.line(now))
}

func (p *progress) line(now time.Time) string {
	const bar = 30
	rate := float64(p.n) / now.Sub(p.began).Seconds()
	if p.total <= 0 {
		return fmt.Sprintf("%s %s  %s/s", p.what, size(p.n), size(int64(rate)))
	}
	done := min(float64(p.n)/float64(p.total), 1)
	full := int(done * bar)
	return fmt.Sprintf("%s [%s%s] %3.0f%%  %s of %s  %s/s", p.what, strings.Repeat("=", full), strings.Repeat(" ", bar-full),
		100*done, size(p.n), size(p.total), size(int64(rate)))
}

// done wipes the bar; it may be called more than once.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.drawn.IsZero() {
		_, _ = fmt.Fprint(p.to, "\r\x1b[K")
		p.drawn = time.Time{}
	}
}
