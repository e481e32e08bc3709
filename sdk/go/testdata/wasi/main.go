// Command wasi is a guest that shows what Go's library gets from its host, as a command and as a reactor.
package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	skein "skein.dev/sdk/go"
)

// What init functions see: in a reactor that was frozen, nobody's arguments and environment.
var (
	atInit = fmt.Sprint(os.Args, os.Getenv("KEY"))
	begun  = time.Now()
)

//go:wasmexport handle
func handle() int32 {
	var out strings.Builder
	say := func(what string, v ...any) { fmt.Fprintf(&out, "%s: %v\n", what, v) }

	say("init", atInit)
	say("args", os.Args)
	say("env", os.Getenv("KEY"), len(os.Environ()))
	in, err := io.ReadAll(os.Stdin)
	say("stdin", string(in), err)
	say("input", string(skein.Input()))

	text, err := os.ReadFile("/dir/file")
	say("file", string(text), err)
	entries, err := os.ReadDir("dir")
	say("dir", entries, err)
	_, err = os.ReadFile("/absent")
	say("absent", errors.Is(err, fs.ErrNotExist))
	_, err = os.ReadFile("/../absent")
	say("outside", errors.Is(err, fs.ErrNotExist))
	var names []string
	err = fs.WalkDir(os.DirFS("/dir"), ".", func(name string, _ fs.DirEntry, err error) error {
		names = append(names, name)
		return err
	})
	say("walk", names, err)
	written, err := write()
	say("write", written, err)

	before := time.Now()
	time.Sleep(20 * time.Millisecond)
	say("slept", time.Since(before) >= 20*time.Millisecond, !before.Before(begun))
	timer := make(chan bool)
	go func() { time.Sleep(time.Millisecond); timer <- true }()
	say("goroutine", <-timer)
	a, b := rand.Text(), rand.Text()
	say("random", a != b)
	fmt.Println("to the log")
	if err := skein.Output([]byte(out.String())); err != nil {
		return 1
	}
	return 7
}

// write changes files, all of which are the call's own.
func write() (string, error) {
	err := errors.Join(os.MkdirAll("/tmp/a/b", 0o755), os.WriteFile("/tmp/a/b/f", []byte("one"), 0o600),
		os.Symlink("/tmp/a", "/tmp/l"), os.Rename("/tmp/a/b/f", "/dir/moved"), os.Remove("/dir/file"))
	f, openErr := os.OpenFile("/dir/moved", os.O_RDWR|os.O_APPEND, 0)
	if err = errors.Join(err, openErr); err != nil {
		return "", err
	}
	_, writeErr := f.WriteString(" two")
	err = errors.Join(writeErr, f.Truncate(6), f.Close(), os.RemoveAll("/tmp/a"))
	text, readErr := os.ReadFile("/dir/moved")
	if _, statErr := os.Stat("/tmp/l/b"); !errors.Is(statErr, fs.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("a link to what is gone: %w", statErr))
	}
	return string(text), errors.Join(err, readErr)
}

func main() { os.Exit(int(handle())) }
