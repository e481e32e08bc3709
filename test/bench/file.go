package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// What reads files: test/cluster/testdata/files.c, which does the same as the operations below do with package os.
const filesFunction = "files"

const (
	largeFile  = 64 << 20
	mediumFile = 16 << 20
	smallFile  = 4096
	smallFiles = 10_000
)

// fileOp is what a call does many times, against the same through Go's package os, on files that the page cache has.
type fileOp struct {
	what, path string
	n          int // times in one call, so that the call itself doesn't count
	units      int // operations that one of n is, for the figures; 0 for 1
	bare       func(path string, n int) (int64, error)
}

var fileOps = map[string]fileOp{
	"file.read.cached":     {what: "open", path: "large", n: 2000, bare: osOpen},
	"file.read.random":     {what: "random", path: "large", n: 4000, bare: osRandom},
	"file.read.sequential": {what: "whole", path: "medium", n: 2, bare: osWhole},
	"file.small":           {what: "small", path: "small", n: smallFiles, bare: osSmall},
	"file.stat":            {what: "stat", path: "large", n: 4000, bare: osStat},
	"file.list":            {what: "list", path: "small", n: 1, units: smallFiles, bare: osList},
}

// cachedFile is a call that works on shared files which the executor has.
func cachedFile(name string) func(ctx context.Context, w *world, _ int) (ours, bare side, err error) {
	op := fileOps[name]
	return func(ctx context.Context, w *world, _ int) (ours, bare side, err error) {
		executor, fs, err := w.files(ctx)
		if err != nil {
			return side{}, side{}, err
		}
		path := filepath.Join(w.dir, "files", op.path)
		want, err := op.bare(path, op.n)
		if err != nil {
			return side{}, side{}, err
		}
		input := fmt.Sprintf("%s %d /%s", op.what, op.n, op.path)
		ours, err = overGRPC(executor, 1, runOf(filesFunction, w.filesDigest, []byte(input), strconv.AppendInt(nil, want, 10)), fs)
		ours.each = op.n * max(op.units, 1)
		bare = side{each: ours.each, close: func() {}, clients: []func(context.Context) error{func(context.Context) error {
			got, err := op.bare(path, op.n)
			if err == nil && got != want {
				err = errWrong
			}
			return err
		}}}
		return ours, bare, cmp.Or(err, ours.clients[0](ctx)) // reads it all once
	}
}

// files is an executor and an fs service that has files, which lie in a directory too.
func (w *world) files(ctx context.Context) (executor, fs *process, err error) {
	if w.procs["files-executor"] != nil {
		return w.procs["files-executor"], w.procs["files-fs"], nil
	}
	upload, err := w.upload(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, err := exec.LookPath("clang"); err != nil {
		return nil, nil, fmt.Errorf("%w: no clang, which builds the function that reads files", errSkip)
	}
	wasm, err := compileC(ctx, w.root, "test/cluster/testdata/files.c", filepath.Join(w.dir, "files.wasm"))
	if err != nil {
		return nil, nil, err
	}
	w.filesDigest = sha256.Sum256(wasm)
	if err := register(ctx, upload, filesFunction, wasm); err != nil {
		return nil, nil, err
	}
	if fs, err = w.service(ctx, "files-fs", "fs", "--bucket", w.bucket(), "--sole"); err != nil {
		return nil, nil, err
	}
	if err := w.putFiles(ctx, fs); err != nil {
		return nil, nil, err
	}
	planner, err := w.planner(ctx, "files-planner", "--upload", upload.addr)
	if err != nil {
		return nil, nil, err
	}
	executor, err = w.service(ctx, "files-executor", "executor", "--planner", planner.addr, "--bucket", w.bucket(), "--name", "files", "--slots", "2",
		"--state", upload.addr, "--fs", fs.addr)
	return executor, fs, cmp.Or(err, attached(ctx, planner, 1, -1))
}

// putFiles makes the files, here and there.
func (w *world) putFiles(ctx context.Context, fs *process) error {
	dir := filepath.Join(w.dir, "files")
	if err := os.MkdirAll(filepath.Join(dir, "small"), 0o755); err != nil {
		return err
	}
	make1 := func(name string, seed byte, size int) error {
		data := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
		err := os.WriteFile(filepath.Join(dir, name), data, 0o600)
		return cmp.Or(err, soon(ctx, func(ctx context.Context) error { return put(ctx, fs, "/v1/files/"+user+"/"+name, data) }))
	}
	if err := cmp.Or(make1("large", 1, largeFile), make1("medium", 2, mediumFile)); err != nil {
		return err
	}
	return parallel(ctx, smallFiles, func(_ context.Context, i int) error { return make1(fmt.Sprintf("small/%05d", i), byte(i), smallFile) })
}

func osOpen(path string, n int) (all int64, err error) {
	buf := make([]byte, 4096)
	for range n {
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		got, err := f.Read(buf)
		if err := cmp.Or(err, f.Close()); err != nil {
			return 0, err
		}
		all += int64(got)
	}
	return all, nil
}

func osRandom(path string, n int) (all int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	buf, x := make([]byte, 4096), uint32(1)
	for range n {
		x = x*1664525 + 1013904223
		got, err := f.ReadAt(buf, int64((x>>8)%uint32(info.Size()/4096))*4096)
		if err != nil {
			return 0, err
		}
		all += int64(got)
	}
	return all, nil
}

func osWhole(path string, n int) (all int64, err error) {
	buf := make([]byte, 64<<10)
	for range n {
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		for err == nil {
			var got int
			got, err = f.Read(buf)
			all += int64(got)
		}
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
		if err := f.Close(); err != nil {
			return 0, err
		}
	}
	return all, nil
}

func osSmall(dir string, n int) (all int64, err error) {
	for i := range n {
		size, err := osWhole(filepath.Join(dir, fmt.Sprintf("%05d", i)), 1)
		if err != nil {
			return 0, err
		}
		all += size
	}
	return all, nil
}

func osStat(path string, n int) (all int64, err error) {
	for range n {
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		info, err := f.Stat()
		if err := cmp.Or(err, f.Close()); err != nil {
			return 0, err
		}
		all += info.Size()
	}
	return all, nil
}

func osList(path string, n int) (all int64, err error) {
	for range n {
		entries, err := os.ReadDir(path)
		if err != nil {
			return 0, err
		}
		all += int64(len(entries))
	}
	return all, nil
}
