package upload

import (
	"errors"
	"io"
	"time"

	"golang.org/x/sync/semaphore"

	"skein.dev/platform/fault"
)

// idle is how long a client may send nothing in the middle of a module.
const idle = 30 * time.Second

// intake takes modules in. What has arrived of them counts against one budget of memory: a module that doesn't fit is
// refused with a time to come back, rather than left waiting with what it holds, where two could wait for each other.
type intake struct {
	most   int64
	budget *semaphore.Weighted
	idle   time.Duration
}

// read takes a module from r. announced is its size, or negative; only bytes that arrive are believed. Whoever gets the
// module calls release when it is no longer needed; release is nil after an error.
func (in *intake) read(r io.Reader, announced int64) (wasm []byte, release func(), err error) {
	if announced > in.most {
		return nil, nil, in.tooLarge()
	}
	held := int64(0)
	defer func() {
		if err != nil {
			in.budget.Release(held)
		}
	}()
	for {
		if size := int64(len(wasm)); size == int64(cap(wasm)) {
			room := max(2*size, 64<<10)
			if room >= in.most {
				room = in.most + 1 // one byte more than allowed is enough to know
			}
			if size <= announced {
				room = min(room, announced+1)
			}
			if !in.budget.TryAcquire(room) {
				return nil, nil, fault.Exhausted.New("UPLOADS_BUSY", "too many modules are arriving at the same time").
					WithHint("try again in a moment; --upload-memory is the bound").WithRetry(2 * time.Second)
			}
			wasm = append(make([]byte, 0, room), wasm...)
			in.budget.Release(held)
			held = room
		}
		n, err := r.Read(wasm[len(wasm):cap(wasm)])
		wasm = wasm[:len(wasm)+n]
		if int64(len(wasm)) > in.most {
			return nil, nil, in.tooLarge()
		}
		if errors.Is(err, io.EOF) {
			return wasm, func() { in.budget.Release(held) }, nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

func (in *intake) tooLarge() error {
	return fault.TooLarge.New("TOO_LARGE", "the module has more than %d bytes", in.most).
		WithHint("strip debugging sections: llvm-strip, wasm-opt -O --strip-debug; data can be files or state instead")
}

func (in *intake) tooSlow() error {
	return fault.Timeout.New("SLOW_UPLOAD", "nothing arrived for %s", in.idle)
}
