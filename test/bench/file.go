package main

import (
	"bytes"
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

	"skein.dev/platform/blob"
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
	"file.write":           {what: "write", path: "own", n: 2, bare: func(path string, n int) (int64, error) { return osWrite(path, n, mediumFile) }},
	"file.write.random":    {what: "patch", path: "own", n: 8000, bare: osPatch},
	"file.write.small":     {what: "create", path: "own", n: 2000, bare: func(path string, n int) (int64, error) { return osWrite(path, n, smallFile) }},
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

// osWrite makes a file so often.
func osWrite(path string, n, size int) (all int64, err error) {
	for range n {
		f, err := osMake(path, size)
		if err != nil {
			return 0, err
		}
		if err := cmp.Or(f.Close(), os.Remove(path)); err != nil {
			return 0, err
		}
		all += int64(size)
	}
	return all, nil
}

// osMake makes a file of so many bytes, in pieces of 64 KiB.
func osMake(path string, size int) (*os.File, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, min(size, 64<<10))
	for at := 0; at < size; at += len(buf) {
		if _, err := f.Write(buf); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// osPatch makes a file and writes to random places of it.
func osPatch(path string, n int) (all int64, err error) {
	f, err := osMake(path, mediumFile)
	if err != nil {
		return 0, err
	}
	buf, x := make([]byte, 4096), uint32(1)
	for range n {
		x = x*1664525 + 1013904223
		put, err := f.WriteAt(buf, int64((x>>8)%4096)*4096)
		if err != nil {
			return 0, err
		}
		all += int64(put)
	}
	return all, cmp.Or(f.Close(), os.Remove(path))
}

// minio is an S3 for what is not cached.
func (w *world) minio(ctx context.Context) (bucket string, p *process, err error) {
	bin := filepath.Join(w.root, ".bin", "minio")
	if _, err := exec.LookPath(bin); err != nil {
		if bin, err = exec.LookPath("minio"); err != nil {
			return "", nil, fmt.Errorf("%w: no minio (make .bin/minio)", errSkip)
		}
	}
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "skein", "MINIO_ROOT_USER": "skein", "AWS_SECRET_ACCESS_KEY": "skein-bench", "MINIO_ROOT_PASSWORD": "skein-bench"} {
		if err := os.Setenv(name, value); err != nil {
			return "", nil, err
		}
	}
	if p = w.procs["minio"]; p == nil {
		p, err = w.listens(ctx, "minio", bin, func(addr string) []string {
			return []string{"server", "--quiet", "--address", addr, filepath.Join(w.dir, "minio")}
		})
	}
	if err != nil {
		return "", nil, err
	}
	return "s3://bench?endpoint=http://" + p.addr, p, nil
}

// firstRead is a call that reads files which the executor does not have, n times, against as many GETs of one object each
// by minio-go. So many files are taken in turn that none is still in memory MiB when it comes again.
func firstRead(name string, size, files, n int, memory string) func(ctx context.Context, w *world, _ int) (ours, bare side, err error) {
	return func(ctx context.Context, w *world, _ int) (ours, bare side, err error) {
		executor, fs, err := w.firstFiles(ctx, name, memory)
		if err != nil {
			return side{}, side{}, err
		}
		url, minio, err := w.minio(ctx)
		if err != nil {
			return side{}, side{}, err
		}
		bucket, err := blob.Open(ctx, url)
		if err != nil {
			return side{}, side{}, err
		}
		data := make([]byte, size)
		for i := range files {
			_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(data)
			path := fmt.Sprintf("%s/%05d", name, i)
			if err := soon(ctx, func(ctx context.Context) error { return put(ctx, fs, "/v1/files/"+user+"/"+path, data) }); err != nil {
				return side{}, side{}, err
			}
			if _, err := bucket.Put(ctx, path, bytes.NewReader(data), int64(size), blob.PutOptions{}); err != nil {
				return side{}, side{}, err
			}
		}
		conn, err := dial(executor.addr)
		if err != nil {
			return side{}, side{}, err
		}
		var calls []func(context.Context) error
		for i := range files {
			input := fmt.Sprintf("whole %d /%s/%05d", n, name, i)
			calls = append(calls, runOf(filesFunction, w.filesDigest, []byte(input), strconv.AppendInt(nil, int64(size*n), 10))(conn))
		}
		i, k := 0, 0
		ours = side{procs: []*process{executor, fs, minio}, each: n, close: func() { _ = conn.Close() }, clients: []func(context.Context) error{func(ctx context.Context) error {
			i++
			return calls[i%files](ctx)
		}}}
		bare = side{procs: []*process{minio}, close: func() {}, clients: []func(context.Context) error{func(ctx context.Context) error {
			k++
			r, _, err := bucket.Get(ctx, fmt.Sprintf("%s/%05d", name, k%files), 0, -1)
			if err != nil {
				return err
			}
			got, err := io.Copy(io.Discard, r)
			if err == nil && got != int64(size) {
				err = errWrong
			}
			return cmp.Or(err, r.Close())
		}}}
		return ours, bare, nil
	}
}

// firstFiles is an fs service over MinIO, and an executor that keeps so many MiB of files.
func (w *world) firstFiles(ctx context.Context, name, memory string) (executor, fs *process, err error) {
	if _, _, err := w.files(ctx); err != nil { // which uploads the function
		return nil, nil, err
	}
	url, _, err := w.minio(ctx)
	if err != nil {
		return nil, nil, err
	}
	if fs, err = w.service(ctx, "first-fs", "fs", "--bucket", url, "--sole"); err != nil {
		return nil, nil, err
	}
	upload, planner := w.procs["upload"], w.procs["files-planner"]
	executor, err = w.service(ctx, name+"-executor", "executor", "--planner", planner.addr, "--bucket", w.bucket(), "--name", name, "--slots", "2",
		"--state", upload.addr, "--fs", fs.addr, "--file-memory", memory)
	return executor, fs, err
}
