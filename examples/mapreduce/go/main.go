// Command mapreduce counts the words of a shared file: functions take a part of it each and append what they counted to a log in
// shared state; another function adds that up. Its input is how many shall count, and the file's name. A word is a run of the
// letters A to Z.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	skein "skein.dev/sdk/go"
)

const (
	mostMappers = 256
	mostLetters = 64 // the rest of a longer word is ignored
	shown       = 10
	piece       = 256 << 10
	mostRecord  = 512 << 10
)

// Part is what a mapper is given, as the input of a call of this function: the words that begin in [From, To) of the file. The
// reducer, for whom To is 0, needs the log alone.
type Part struct {
	From, To  int64
	Path, Log string
}

//lint:ignore U1000 the host calls it
//go:wasmexport handle
func handle() int32 {
	in := skein.Input()
	if len(in) == 0 || in[0] != '{' {
		return skein.Exit(run(string(in)))
	}
	var p Part
	err := json.Unmarshal(in, &p)
	switch {
	case err != nil:
	case p.To > 0:
		err = p.count()
	default:
		err = p.reduce()
	}
	return skein.Exit(err)
}

func main() {}

func letter(c byte) bool { return (c|0x20)-'a' < 26 }

// count appends to the log how often each word begins in the part. The last is read to its end.
func (p Part) count() error {
	f, err := os.Open(p.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	counts := map[string]*uint64{}
	word := make([]byte, 0, mostLetters)
	add := func() {
		if n := counts[string(word)]; n != nil {
			*n++
		} else if len(word) > 0 {
			one := uint64(1)
			counts[string(word)] = &one
		}
		word = word[:0]
	}
	at := max(p.From-1, 0)
	skip := p.From > 0 // what ends here began before
	in := bufio.NewReaderSize(io.NewSectionReader(f, at, math.MaxInt64-at), piece)
	for ; ; at++ {
		c, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		is := letter(c)
		if is && !skip && (len(word) > 0 || at < p.To) {
			if len(word) < mostLetters {
				word = append(word, c|0x20)
			}
			continue
		}
		skip = skip && is
		add()
		if at >= p.To {
			break
		}
	}
	add()
	return write(skein.Log(p.Log), counts)
}

// write appends the counts to the log, as many as go into each record: 8 bytes of count, one of length, and the word.
func write(log skein.Log, counts map[string]*uint64) error {
	var record []byte
	for word, n := range counts {
		if len(record)+9+len(word) > mostRecord {
			if err := log.Append(record); err != nil {
				return err
			}
			record = record[:0]
		}
		record = binary.LittleEndian.AppendUint64(record, *n)
		record = append(append(record, byte(len(word))), word...)
	}
	if len(record) == 0 {
		return nil
	}
	return log.Append(record)
}

// reduce makes the sums of what is in the log the value "wordcount", and the most frequent words the output.
func (p Part) reduce() error {
	counts := map[string]uint64{}
	for record, err := range skein.Log(p.Log).Records() {
		if err != nil {
			return err
		}
		for len(record) > 0 {
			if len(record) < 9 || len(record) < 9+int(record[8]) {
				return skein.EILSEQ
			}
			end := 9 + int(record[8])
			counts[string(record[9:end])] += binary.LittleEndian.Uint64(record)
			record = record[end:]
		}
	}
	words := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	lines := make([][]byte, len(words))
	for i, w := range words {
		lines[i] = fmt.Appendf(nil, "%d %s\n", counts[w], w)
	}
	if err := errors.Join(skein.SetState("wordcount", bytes.Join(lines, nil)), skein.PushState("wordcount")); err != nil {
		return err
	}
	return skein.Output(bytes.Join(lines[:min(shown, len(lines))], nil))
}

// run has the mappers count, and then the reducer add up; its output is ours.
func run(input string) (err error) {
	number, name, _ := strings.Cut(strings.TrimSpace(input), " ")
	mappers, bad := strconv.Atoi(number)
	if bad != nil || name == "" || mappers < 1 || mappers > mostMappers {
		return fmt.Errorf("want a number of functions, 1 to %d, and the name of a file", mostMappers)
	}
	p := Part{Path: "/" + name, Log: "mapreduce/" + rand.Text()} // other calls have a log of their own
	about, err := os.Stat(p.Path)
	if err != nil {
		return err
	}
	defer func() {
		if gone := skein.DeleteState(p.Log); gone != nil && !errors.Is(gone, skein.ENOENT) {
			err = errors.Join(err, gone)
		}
	}()
	var children []skein.Child
	for i := range int64(mappers) {
		part := p
		part.From, part.To = about.Size()*i/int64(mappers), about.Size()*(i+1)/int64(mappers)
		if part.To == part.From {
			continue
		}
		child, err := start(part)
		if err != nil {
			return err
		}
		children = append(children, child)
	}
	for _, c := range children {
		if err := succeeded("a mapper", c); err != nil {
			return err
		}
	}
	reducer, err := start(p)
	if err != nil {
		return err
	}
	if err := succeeded("the reducer", reducer); err != nil {
		return err
	}
	out, err := reducer.Output()
	if err != nil {
		return err
	}
	return skein.Output(out)
}

// succeeded waits for a call, and says why it failed.
func succeeded(what string, c skein.Child) error {
	exit, err := c.Await()
	if err != nil || exit != 0 {
		return fmt.Errorf("%s exited with %d: %w", what, exit, errors.Join(err, c.Err()))
	}
	return nil
}

// start calls this function by its own name.
func start(p Part) (skein.Child, error) {
	input, err := json.Marshal(p)
	if err != nil {
		return skein.Child{}, err
	}
	return skein.Chain(os.Args[0], input)
}
