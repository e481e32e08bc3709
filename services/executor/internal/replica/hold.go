package replica

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/abi"
	statev1 "skein.dev/proto/skein/state/v1"
)

// hold is a value's lock in the whole cluster that a call holds: a stream on which the state service says that it does, and
// beats that keep it so.
type hold struct {
	key    skein.StateKey
	shared bool
	times  int // for a reader
	token  int64
	stream grpc.BidiStreamingClient[statev1.HoldLockRequest, statev1.HoldLockResponse]
	stop   context.CancelFunc
	leave  chan struct{} // closed to have it ended in good order
	ended  chan struct{} // closed when the stream has
	lost   atomic.Bool
}

// lease is how long a lock stays held without a beat.
const lease = 10 * time.Second

// LockGlobal takes a value's lock in the whole cluster, and waits for it. EDEADLK if the call would wait for itself. holder
// is told to people who ask who holds it.
func (s *Session) LockGlobal(ctx context.Context, k skein.StateKey, write bool, holder string) error {
	if i := s.holdingGlobal(k); i >= 0 {
		h := s.holds[i]
		switch {
		case write || !h.shared:
			return abi.EDEADLK
		case h.lost.Load():
			return abi.ESTALE
		}
		h.times++
		return nil
	}
	if len(s.holds) == mostHeld {
		return abi.ENOLCK
	}
	var h *hold
	err := s.park(func() (err error) {
		h, err = s.hold(ctx, k, !write, holder)
		return err
	})
	if h == nil {
		return err
	}
	s.holds = append(s.holds, h)
	return err
}

func (s *Session) hold(ctx context.Context, k skein.StateKey, shared bool, holder string) (_ *hold, err error) {
	spanned, end := begin(ctx, "state lock", k)
	defer func() { end(0, err) }()
	within, stop := context.WithCancel(spanned)
	defer func() {
		if err != nil {
			stop()
		}
	}()
	stream, err := s.store.client.HoldLock(within)
	if err != nil {
		return nil, err
	}
	patience := time.Hour * 24
	if d, ok := ctx.Deadline(); ok {
		patience = max(time.Until(d), time.Millisecond)
	}
	err = stream.Send(&statev1.HoldLockRequest{
		User: string(k.User), Key: []byte(k.Key), Shared: shared, Patience: durationpb.New(patience), Lease: durationpb.New(lease), Holder: holder,
	})
	if err != nil && !errors.Is(err, io.EOF) { // Recv has the reason
		return nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	h := &hold{
		key: k, shared: shared, times: 1, token: answer.GetToken(), stream: stream, stop: stop,
		leave: make(chan struct{}), ended: make(chan struct{}),
	}
	every := lease / 3
	if d := answer.GetLease().AsDuration(); d > 0 {
		every = d / 3
	}
	go h.listen()
	go h.beat(every)
	return h, nil
}

// listen waits for the stream's end, which is the lock's.
func (h *hold) listen() {
	defer close(h.ended)
	for {
		if _, err := h.stream.Recv(); err != nil {
			select {
			case <-h.leave:
			default:
				h.lost.Store(true)
			}
			return
		}
	}
}

// beat keeps the lock. It alone sends on the stream.
func (h *hold) beat(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if h.stream.Send(&statev1.HoldLockRequest{}) != nil {
				return // listen knows why
			}
		case <-h.leave:
			_ = h.stream.CloseSend()
			return
		case <-h.ended:
			return
		}
	}
}

// UnlockGlobal releases what LockGlobal took; EPERM if the call doesn't hold it, ESTALE if it had lost it.
func (s *Session) UnlockGlobal(k skein.StateKey, write bool) error {
	i := s.holdingGlobal(k)
	if i < 0 || s.holds[i].shared == write {
		return abi.EPERM
	}
	if h := s.holds[i]; h.times > 1 {
		h.times--
		if h.lost.Load() {
			return abi.ESTALE
		}
		return nil
	}
	return s.letGo(i)
}

// letGo ends a hold, and waits until the state service has taken note.
func (s *Session) letGo(i int) error {
	h := s.holds[i]
	s.holds = slices.Delete(s.holds, i, i+1)
	endHolds(h)
	if h.lost.Load() {
		return abi.ESTALE
	}
	return nil
}

// endHolds ends holds in good order; if that takes too long it just ends them, for a lease does so by itself.
func endHolds(holds ...*hold) {
	if len(holds) == 0 {
		return
	}
	for _, h := range holds {
		close(h.leave)
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	over := false
	for _, h := range holds {
		if !over {
			select {
			case <-h.ended:
			case <-timer.C:
				over = true
			}
		}
		h.stop()
	}
}

func (s *Session) holdingGlobal(k skein.StateKey) int {
	return slices.IndexFunc(s.holds, func(h *hold) bool { return h.key == k })
}

// fence goes with writes of a value whose lock the call holds, or held until it lost it: then they are refused.
func (s *Session) fence(k skein.StateKey) *statev1.Fence {
	i := s.holdingGlobal(k)
	if i < 0 || s.holds[i].shared {
		return nil
	}
	return &statev1.Fence{Key: []byte(k.Key), Token: s.holds[i].token}
}
