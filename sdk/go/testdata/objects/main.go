// Command objects is a guest that uses the objects, and checks them. It has four children of its own name fill a part each of
// the same objects, wherever they run, and looks at what they did.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"

	skein "skein.dev/sdk/go"
)

const workers, each, n, cols = 4, 50000, workers * each, 100

//go:wasmexport handle
func handle() int32 {
	if in := skein.Input(); len(in) == 1 {
		return skein.Exit(fill(int(in[0])))
	}
	return skein.Exit(run())
}

func run() error {
	var children []skein.Child
	for i := range workers {
		c, err := skein.Chain(os.Getenv("SKEIN_FUNCTION"), []byte{byte(i)})
		if err != nil {
			return err
		}
		children = append(children, c)
	}
	for _, c := range children {
		if exit, err := c.Await(); exit != 0 || err != nil {
			return fmt.Errorf("a child: exit code %d, %w", exit, err)
		}
	}
	if err := errors.Join(look(), lookLog(), wrong()); err != nil {
		return err
	}
	return skein.Output([]byte("ok\n"))
}

func fill(me int) error {
	part, err := skein.OpenArrayPart[float64]("array", me*each, each, n, 0)
	if err != nil {
		return err
	}
	const rows = each / cols
	m, err := skein.OpenMatrixRows[float32]("matrix", me*rows, rows, n/cols, cols, 0)
	if err != nil {
		return err
	}
	for i := range part.Data {
		part.Data[i] = float64(part.First + i)
	}
	for r := m.FirstRow; r < m.FirstRow+m.Rows; r++ {
		for c := range m.Row(r) {
			m.Row(r)[c] = float32(r - c)
		}
	}
	part2, err := skein.OpenArrayPart[float64]("array", me*each, each, n, 0)
	if err != nil || &part2.Data[0] != &part.Data[0] {
		return fmt.Errorf("opened again at another place, or not: %w", err)
	}
	runtime.GC() // what is mapped must not be given to others
	garbage := make([][]byte, 100)
	for i := range garbage {
		garbage[i] = bytes.Repeat([]byte{0xee}, 100<<10)
	}
	if err := errors.Join(part.Push(), m.Push()); err != nil {
		return err
	}
	for i := range 3 {
		if err := skein.Log("log").Append(bytes.Repeat([]byte{byte(me)}, i*40<<10)); err != nil {
			return err
		}
	}
	sum, err := skein.Counter("counter").Add(int64(me))
	if err == nil && sum < int64(me) {
		err = fmt.Errorf("the sum is %d", sum)
	}
	return err
}

func look() error {
	all, err := skein.OpenArray[float64]("array", 0, skein.StatePull)
	if err != nil {
		return err
	}
	m, err := skein.OpenMatrix[float32]("matrix", 0, cols, skein.StateReadOnly|skein.StatePull)
	if err != nil {
		return err
	}
	if err := errors.Join(all.Pull(), m.Pull()); err != nil || len(all.Data) != n || m.Rows != n/cols {
		return fmt.Errorf("pull: %d numbers, %d rows, %w", len(all.Data), m.Rows, err)
	}
	for i, v := range all.Data {
		if v != float64(i) {
			return fmt.Errorf("element %d is %v", i, v)
		}
	}
	for r := range m.Rows {
		for c, v := range m.Row(r) {
			if v != float32(r-c) {
				return fmt.Errorf("row %d has %v", r, v)
			}
		}
	}
	if sum, err := skein.Counter("counter").Value(); sum != workers*(workers-1)/2 || err != nil {
		return fmt.Errorf("the counter is %d, %w", sum, err)
	}
	return nil
}

func lookLog() error {
	records, size := 0, 0
	for r, err := range skein.Log("log").Records() {
		if err != nil {
			return err
		}
		if len(r) > 0 && bytes.Count(r, r[:1]) != len(r) {
			return errors.New("a record of several")
		}
		records, size = records+1, size+len(r)
	}
	if records != 3*workers || size != workers*120<<10 {
		return fmt.Errorf("%d records of %d bytes", records, size)
	}
	if err := skein.Log("log").Clear(); err != nil {
		return err
	}
	for range skein.Log("log").Records() {
		return errors.New("a record in a log that was cleared")
	}
	return nil
}

func wrong() error {
	must := func(what string, err error, want skein.Errno) error {
		if !errors.Is(err, want) {
			return fmt.Errorf("%s: %v, want %w", what, err, want)
		}
		return nil
	}
	_, absent := skein.OpenArray[int8]("absent", 0, 0)
	_, shorter := skein.OpenArray[float64]("array", n-1, 0)
	_, behind := skein.OpenArrayPart[float64]("array", n, 1, n, 0)
	_, negative := skein.OpenArrayPart[float64]("array", -1, 1, n, 0)
	_, large := skein.OpenArray[int8]("large", 65<<20, 0)
	_, ragged := skein.OpenMatrix[float32]("matrix", 0, cols+1, 0)
	var noLog error
	if err := skein.SetState("short", []byte{1}); err != nil {
		return err
	}
	if err := skein.PushState("short"); err != nil {
		return err
	}
	for _, err := range skein.Log("short").Records() {
		noLog = err
	}
	zero, zeroErr := skein.Counter("absent").Value()
	if zero != 0 {
		zeroErr = errors.New("not 0")
	}
	return errors.Join(
		must("absent", absent, skein.ENOENT), must("shorter", shorter, skein.EINVAL), must("behind", behind, skein.EINVAL),
		must("negative", negative, skein.EINVAL), must("large", large, skein.EFBIG), must("ragged", ragged, skein.EINVAL),
		must("no log", noLog, skein.EILSEQ), must("record", skein.Log("log").Append(make([]byte, skein.MaxRecord+1)), skein.EMSGSIZE),
		zeroErr,
	)
}

func main() {}
