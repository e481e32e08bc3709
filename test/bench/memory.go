package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// mappedFile is a call that maps a shared file of 64 MiB, which the executor has, several times and touches a page of each
// megabyte; against a read of all of it through package os, from the page cache, to look at the same bytes.
func mappedFile(ctx context.Context, w *world, _ int) (ours, bare side, err error) {
	const times = 4
	executor, fs, err := w.files(ctx)
	if err != nil {
		return side{}, side{}, err
	}
	wasm, err := compileC(ctx, w.root, "test/bench/testdata/mmap.c", filepath.Join(w.dir, "mmap.wasm"))
	if err != nil {
		return side{}, side{}, err
	}
	upload, err := w.upload(ctx)
	if err == nil {
		err = register(ctx, upload, "mmap", wasm)
	}
	if err != nil {
		return side{}, side{}, err
	}
	path := filepath.Join(w.dir, "files", "large")
	want, err := osPread(path, times)
	if err != nil {
		return side{}, side{}, err
	}
	input := fmt.Appendf(nil, "%d /large", times)
	ours, err = overGRPC(executor, 1, runOf("mmap", sha256.Sum256(wasm), input, strconv.AppendInt(nil, want, 10)), fs)
	ours.each = times
	bare = side{each: times, close: func() {}, clients: []func(context.Context) error{func(context.Context) error {
		got, err := osPread(path, times)
		if err == nil && got != want {
			err = errWrong
		}
		return err
	}}}
	return ours, bare, cmp.Or(err, ours.clients[0](ctx)) // fetches it once
}

// osPread reads a file as a whole n times and adds up a byte of every megabyte.
func osPread(path string, n int) (sum int64, err error) {
	buf := make([]byte, largeFile)
	for range n {
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		got, err := f.ReadAt(buf, 0)
		if err == io.EOF { //nolint:errorlint // as ReadAt has it
			err = nil
		}
		if err := cmp.Or(err, f.Close()); err != nil {
			return 0, err
		}
		for at := 0; at < got; at += 1 << 20 {
			sum += int64(buf[at])
		}
	}
	return sum, nil
}
