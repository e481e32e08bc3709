package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

const (
	wordsBytes   = 32 << 20
	wordsMappers = 8
)

// wordsText is a text of words that are as frequent as those of a language, always the same.
func wordsText() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	vocabulary := make([]string, 50_000)
	for i := range vocabulary {
		var b strings.Builder
		for range 2 + r.IntN(9) {
			b.WriteByte(byte('a' + r.IntN(26)))
		}
		vocabulary[i] = b.String()
	}
	zipf := rand.NewZipf(r, 1.1, 4, uint64(len(vocabulary)-1))
	var text bytes.Buffer
	for text.Len() < wordsBytes {
		text.WriteString(vocabulary[zipf.Uint64()])
		text.WriteByte(" \n"[r.IntN(12)/11])
	}
	return text.Bytes()[:wordsBytes]
}

// wordcount is eight functions on two executors that count the words of 32 MiB of a shared file, and one that adds up what they
// appended, against one thread of native code that counts the same words of the same file.
func wordcount(ctx context.Context, w *world, name string) ([]row, error) {
	st, err := w.storage(ctx)
	if err != nil {
		return nil, err
	}
	wasm, err := compileC(ctx, w.root, "examples/mapreduce/c/mapreduce.c", filepath.Join(w.dir, "mapreduce.wasm"))
	if err != nil {
		return nil, err
	}
	if err := register(ctx, st.upload, "mapreduce", wasm); err != nil {
		return nil, err
	}
	text, file := wordsText(), filepath.Join(w.dir, "words.txt")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	if err := share(ctx, st.fs, "words.txt", text); err != nil {
		return nil, err
	}
	baseline, ask, err := w.native(ctx, "words")
	if err != nil {
		return nil, err
	}
	c, err := st.cluster(ctx, w, "words", []int{wordsMappers / 2, wordsMappers / 2})
	if err != nil {
		return nil, err
	}
	conn, err := dial(c.planner.addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	want, err := ask(file)
	if err != nil {
		return nil, err
	}
	top, _, _ := strings.Cut(want, " of ")
	ours := side{procs: append(st.procs(), append(c.executors, c.planner)...), clients: []func(context.Context) error{func(ctx context.Context) error {
		got, err := output(ctx, conn, "mapreduce", fmt.Sprint(wordsMappers, " words.txt"))
		if first, _, _ := strings.Cut(got, "\n"); err == nil && first != top {
			err = fmt.Errorf("%w: %q, want %q", errWrong, first, top)
		}
		return err
	}}}
	bare := side{procs: []*process{baseline}, clients: []func(context.Context) error{func(context.Context) error {
		got, err := ask(file)
		if err == nil && got != want {
			err = fmt.Errorf("%w: %q, want %q", errWrong, got, want)
		}
		return err
	}}}
	if err := soon(ctx, ours.clients[0]); err != nil {
		return nil, err
	}
	moved, err := st.during(func() error { return ours.clients[0](ctx) })
	if err != nil {
		return nil, err
	}
	rounds, err := alternate(ctx, w.cfg, ours, bare)
	if err != nil {
		return nil, err
	}
	r := newRow(bench{name: name, goal: goal{most: 1.6}}, rounds)
	r.details = fmt.Sprintf("%d MiB of text, %s; Redis moves %s MiB a count", wordsBytes>>20, want, digits(float64(moved)/(1<<20)))
	w.end(append(c.executors, c.planner)...)
	return []row{r}, nil
}

// share stores a shared file.
func share(ctx context.Context, fs *process, name string, content []byte) error {
	return soon(ctx, func(ctx context.Context) error { return put(ctx, fs, "/v1/files/"+user+"/"+name, content) })
}
