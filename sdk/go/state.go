package skein

import (
	"strings"
	"time"
	"unsafe"

	"skein.dev/sdk/go/internal/raw"
)

// StateFlags say how MapState maps.
type StateFlags int32

// Flags of MapState; they can be added.
const (
	// StateReadOnly promises not to write: what is written nevertheless is not pushed.
	StateReadOnly StateFlags = 1
	// StatePull refreshes the replica first.
	StatePull StateFlags = 2
	// StateLocal keeps the value on this executor: it is never pushed. EINVAL if it is shared already.
	StateLocal StateFlags = 4
)

const statePage = 64 << 10

// mapped keeps the memory that shows state from being used for something else.
var mapped [][]byte

// MapState maps length bytes of this executor's replica of the value from offset, a multiple of 64 KiB: all calls here that do
// so see the same bytes, and write to them at the same time. The slice must not be used after the call has ended. ENOENT if
// the value is absent, EINVAL if it has no such range, ENOTSUP where the executor's system can't map.
func MapState(key string, offset int64, length int, flags StateFlags) ([]byte, error) {
	if length <= 0 {
		return nil, call("map state", key, int32(-EINVAL))
	}
	// Pages of memory that is all this slice's: no object lies beside what is mapped, and Go's collector moves none.
	whole := make([]byte, (length+2*statePage-1)&^(statePage-1))
	at := -int(uintptr(unsafe.Pointer(unsafe.SliceData(whole)))) & (statePage - 1)
	part := whole[at:][:length:length]
	k, n := keyArg(key)
	if err := call("map state", key, raw.MapState(k, n, offset, uint32(length), unsafe.Pointer(unsafe.SliceData(part)), int32(flags))); err != nil {
		return nil, err
	}
	mapped = append(mapped, whole)
	return part, nil
}

// PushStateAt is PushState for what was changed in length bytes from offset. EINVAL if the value has no such range.
func PushStateAt(key string, offset int64, length int) error {
	k, n := keyArg(key)
	return call("push state", key, raw.PushStateOffset(k, n, offset, uint32(length)))
}

// PullStateAt is PullState for length bytes from offset. EINVAL if the value has no such range.
func PullStateAt(key string, offset int64, length int) error {
	k, n := keyArg(key)
	return call("pull state", key, raw.PullStateOffset(k, n, offset, uint32(length)))
}

// DiscardState drops what this executor has changed of the value and not pushed, whoever changed it. It is for who takes a lock of
// the cluster after a holder that failed: what that one left here would stay on top of what PullState fetches.
func DiscardState(key string) error {
	return call("discard state", key, raw.DiscardState(keyArg(key)))
}

// ExpireState has the shared value end after a time, in whole milliseconds, by the store's clock, or never with 0. Changes of the
// value leave that as it is. ENOENT if there is no shared value, EINVAL if ttl is negative or below a millisecond.
func ExpireState(key string, ttl time.Duration) error {
	if ttl > 0 && ttl < time.Millisecond {
		return call("expire state", key, -int32(EINVAL))
	}
	k, n := keyArg(key)
	return call("expire state", key, raw.ExpireState(k, n, ttl.Milliseconds()))
}

// ReadAppended copies bytes of the shared value from offset into buf, past this executor's replica, and returns how many; 0 at
// the end.
func ReadAppended(key string, offset int64, buf []byte) (int, error) {
	k, n := keyArg(key)
	b, size := bytesArg(buf)
	got := raw.ReadAppendedState(k, n, offset, b, size)
	return int(max(got, 0)), call("read appended state", key, got)
}

// ClearAppended makes the shared value empty.
func ClearAppended(key string) error {
	return call("clear appended state", key, raw.ClearAppendedState(keyArg(key)))
}

// LockState waits for the write lock of this executor's replica, which one call here holds at a time and nobody beside it
// that reads. It ends with the call. EDEADLK if this call holds a lock of the value already.
func LockState(key string) error { return call("lock state", key, raw.LockStateWrite(keyArg(key))) }

// UnlockState releases what LockState took.
func UnlockState(key string) error {
	return call("unlock state", key, raw.UnlockStateWrite(keyArg(key)))
}

// RLockState is LockState for a read lock, which many calls hold together.
func RLockState(key string) error { return call("lock state", key, raw.LockStateRead(keyArg(key))) }

// RUnlockState releases what RLockState took.
func RUnlockState(key string) error {
	return call("unlock state", key, raw.UnlockStateRead(keyArg(key)))
}

// LockStateGlobal is LockState for the whole cluster. The host keeps the lock while the call runs; if it is lost nevertheless,
// this call's writes of the value fail with ESTALE, and so does the unlock.
func LockStateGlobal(key string) error {
	return call("lock state", key, raw.LockStateGlobalWrite(keyArg(key)))
}

// UnlockStateGlobal releases what LockStateGlobal took.
func UnlockStateGlobal(key string) error {
	return call("unlock state", key, raw.UnlockStateGlobalWrite(keyArg(key)))
}

// RLockStateGlobal is LockStateGlobal for a read lock.
func RLockStateGlobal(key string) error {
	return call("lock state", key, raw.LockStateGlobalRead(keyArg(key)))
}

// RUnlockStateGlobal releases what RLockStateGlobal took.
func RUnlockStateGlobal(key string) error {
	return call("unlock state", key, raw.UnlockStateGlobalRead(keyArg(key)))
}

// CompareAndSetState makes value the shared value if that is old, in one step, and reports whether it was. An absent one is
// empty.
func CompareAndSetState(key string, old, value []byte) (bool, error) {
	k, n := keyArg(key)
	o, oldSize := bytesArg(old)
	v, size := bytesArg(value)
	was := raw.CompareAndSetState(k, n, o, oldSize, v, size)
	return was == 1, call("compare and set state", key, was)
}

// AddState adds to the first 8 bytes of the shared value, a little-endian integer, in one step, and returns the sum.
func AddState(key string, delta int64) (sum int64, err error) {
	k, n := keyArg(key)
	err = call("add to state", key, raw.AddStateI64(k, n, delta, unsafe.Pointer(&sum)))
	return sum, err
}

// ListState returns the user's keys that begin with prefix, in byte order.
func ListState(prefix string) ([]string, error) {
	k, n := keyArg(prefix)
	list, r := readAll(func(buf unsafe.Pointer, size uint32) int32 { return raw.ListState(k, n, buf, size) })
	if err := call("list state", prefix, r); err != nil || len(list) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00"), nil
}
