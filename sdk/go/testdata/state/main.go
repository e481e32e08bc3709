// Command state is a guest that maps state beside Go's own heap, and uses the rest of what there is for it.
package main

import (
	"errors"
	"fmt"
	"runtime"

	skein "skein.dev/sdk/go"
)

var garbage [][]byte

//go:wasmexport handle
func handle() int32 {
	return skein.Exit(errors.Join(mapped(), locks(), global()))
}

// mapped checks that neither Go's heap nor the state writes over the other.
func mapped() error {
	const size = 300_000
	if _, err := skein.MapState("m", 0, 10, 0); !errors.Is(err, skein.ENOENT) {
		return fmt.Errorf("a value that is absent: %w", err)
	}
	if err := skein.SetStateAt("m", []byte("end"), size-3); err != nil {
		return err
	}
	m, err := skein.MapState("m", 0, size, 0)
	if err != nil {
		return err
	}
	end, err := skein.MapState("m", 4*65536, size-4*65536, skein.StateReadOnly|skein.StatePull)
	if err != nil {
		return err
	}
	for round := range 20 {
		for i := range m[:size-3] {
			m[i] = byte(i * round)
		}
		garbage = nil
		for i := range 100 {
			garbage = append(garbage, make([]byte, 1000*i))
			for j := range garbage[i] {
				garbage[i][j] = 0xaa
			}
		}
		runtime.GC()
		for i := range m[:size-3] {
			if m[i] != byte(i*round) || i >= 4*65536 && end[i-4*65536] != m[i] {
				return fmt.Errorf("round %d: byte %d is %d", round, i, m[i])
			}
		}
		for i := range garbage {
			for _, b := range garbage[i] {
				if b != 0xaa {
					return errors.New("state wrote over the heap")
				}
			}
		}
	}
	if string(end[len(end)-3:]) != "end" {
		return fmt.Errorf("the end: %q", end[len(end)-3:])
	}
	value, err := skein.ReadState("m")
	if err != nil || len(value) != size || value[1] != m[1] {
		return fmt.Errorf("%d bytes: %w", len(value), err)
	}
	_, oddErr := skein.MapState("m", 1, 10, 0)
	_, farErr := skein.MapState("m", 0, size+1, 0)
	_, emptyErr := skein.MapState("m", 0, 0, 0)
	for _, err := range []error{oddErr, farErr, emptyErr} {
		if !errors.Is(err, skein.EINVAL) {
			return fmt.Errorf("a bad range: %w", err)
		}
	}
	return errors.Join(skein.PushStateAt("m", 0, 10), skein.PushState("m"), skein.PullStateAt("m", 0, size), skein.PullState("m"))
}

func locks() error {
	err := errors.Join(
		skein.LockState("l"), skein.UnlockState("l"), skein.RLockState("l"), skein.RUnlockState("l"),
		skein.LockStateGlobal("l"), skein.UnlockStateGlobal("l"), skein.RLockStateGlobal("l"), skein.RUnlockStateGlobal("l"),
	)
	if unlock := skein.UnlockState("l"); !errors.Is(unlock, skein.EPERM) {
		err = errors.Join(err, fmt.Errorf("an unlock without a lock: %w", unlock))
	}
	return err
}

func global() error {
	was, err := skein.CompareAndSetState("c", nil, []byte("new"))
	is, err2 := skein.CompareAndSetState("c", nil, []byte("newer"))
	sum, err3 := skein.AddState("n", 41)
	sum2, err4 := skein.AddState("n", 1)
	buf := make([]byte, 10)
	n, err5 := skein.ReadAppended("c", 1, buf)
	list, err6 := skein.ListState("")
	none, err7 := skein.ListState("none")
	err = errors.Join(err, err2, err3, err4, err5, err6, err7, skein.ClearAppended("c"))
	if got := fmt.Sprintf("%v %v %v %v %s %v %v", was, is, sum, sum2, buf[:n], list, none); err == nil && got != "true false 41 42 ew [c m n] []" {
		err = errors.New(got)
	}
	return err
}

func main() {}
