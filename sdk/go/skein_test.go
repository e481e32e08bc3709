//go:build !wasip1

package skein

import (
	"errors"
	"io/fs"
	"testing"
	"unsafe"
)

func TestNotGuest(t *testing.T) {
	if in := Input(); in != nil {
		t.Errorf("Input() = %q without a host", in)
	}
	_, readErr := ReadState("k")
	_, sizeErr := StateSize("k")
	_, appendErr := AppendState("k", nil)
	_, chainErr := Chain("f", nil)
	_, awaitErr := Child{}.Await()
	_, outputErr := Child{}.Output()
	_, anyErr := AwaitAny(Child{})
	_, forErr := AwaitAnyFor(-1, Child{})
	_, counterErr := Counter("k").Add(1)
	_, valueErr := Counter("k").Value()
	_, arrayErr := OpenArray[float64]("k", 1, 0)
	_, matrixErr := OpenMatrix[int8]("k", 0, 1, StatePull)
	var recordsErr error
	for _, recordsErr = range Log("k").Records() {
	}
	_, mapErr := MapState("k", 0, 1, 0)
	_, appendedErr := ReadAppended("k", 0, nil)
	_, casErr := CompareAndSetState("k", nil, nil)
	_, addErr := AddState("k", 1)
	_, listErr := ListState("")
	for i, err := range []error{
		counterErr, valueErr, arrayErr, matrixErr, recordsErr, Log("k").Append(nil), Log("k").Clear(),
		mapErr, PushStateAt("k", 0, 1), PullStateAt("k", 0, 1), appendedErr, ClearAppended("k"), casErr, addErr, listErr,
		LockState("k"), UnlockState("k"), RLockState("k"), RUnlockState("k"),
		LockStateGlobal("k"), UnlockStateGlobal("k"), RLockStateGlobal("k"), RUnlockStateGlobal("k"),
		Output(nil), AppendOutput(nil), readErr, SetState("k", nil), SetStateAt("k", nil, 0), PushState("k"),
		PullState("k"), appendErr, sizeErr, DeleteState("k"),
		chainErr, awaitErr, outputErr, anyErr, forErr, Child{}.Cancel(), Child{}.Err(),
	} {
		if !errors.Is(err, ErrNotGuest) {
			t.Errorf("function %d returned %v, want ErrNotGuest", i, err)
		}
	}
}

func TestErrno(t *testing.T) {
	err := call("read state", "k", int32(-44))
	if !errors.Is(err, ENOENT) || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, EFAULT) || errors.Is(err, fs.ErrExist) {
		t.Errorf("errors.Is is wrong about %v", err)
	}
	if want := `skein: read state "k": ENOENT: no such file or directory`; err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
	if got := Errno(99).Error(); got != "errno 99" {
		t.Errorf("unknown errno says %q", got)
	}
	if err := call("size of state", "k", int64(1)<<40); err != nil {
		t.Errorf("a large size is %v", err)
	}
	if got := Exit(nil); got != 0 {
		t.Errorf("Exit(nil) = %d", got)
	}
}

// A value that grows between the question for its size and the reading of it is read whole.
func TestReadAllOfGrowingValue(t *testing.T) {
	for _, sizes := range [][]int32{{0}, {3, 3}, {3, 5, 5}, {5, 3}, {0, 0}} {
		calls := 0
		got, n := readAll(func(_ unsafe.Pointer, _ uint32) int32 {
			size := sizes[min(calls, len(sizes)-1)]
			calls++
			return size
		})
		if last := sizes[len(sizes)-1]; n != last || len(got) != int(last) {
			t.Errorf("sizes %v: read %d bytes and answered %d", sizes, len(got), n)
		}
	}
	if got, n := readAll(func(unsafe.Pointer, uint32) int32 { return -52 }); got != nil || n != -52 {
		t.Errorf("error -52 became %q, %d", got, n)
	}
}
