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
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// hold is a value's lock in the whole cluster that a call holds: a stream on which the state service says that it does, and
// beats that keep it so.
type hold struct {
	key    skein.StateKey
	shared bool
	times  int // for a reader
	holder string
	client statev1.StateServiceClient
	token  int64
	lease  time.Duration
	stop   context.CancelFunc
	leave  chan struct{} // closed to have it ended in good order
	ended  chan struct{} // closed when it has
	lost   atomic.Bool
}

// Lease is how long a lock of the cluster stays held without a beat, unless Store.SetLease says otherwise.
const Lease = 10 * time.Second

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
	patience := time.Hour * 24
	if d, ok := ctx.Deadline(); ok {
		patience = max(time.Until(d), time.Millisecond)
	}
	h := &hold{
		key: k, shared: shared, times: 1, holder: holder, lease: s.store.lease, client: s.store.client, stop: stop,
		leave: make(chan struct{}), ended: make(chan struct{}),
	}
	stream, err := h.ask(within, patience)
	for err != nil && fault.From(err).Reason == "DRAINING" { // who is about to end has said so; another has the next request
		if err := pause(ctx, between); err != nil {
			return nil, err
		}
		stream, err = h.ask(within, patience)
	}
	if err != nil {
		return nil, err
	}
	go h.keep(within, stream)
	return h, nil
}

// between two tries to go on with a lock elsewhere.
const between = 50 * time.Millisecond

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type holding = grpc.BidiStreamingClient[statev1.HoldLockRequest, statev1.HoldLockResponse]

// ask opens a stream and waits until the lock is held; one that has a token goes on with that.
func (h *hold) ask(ctx context.Context, patience time.Duration) (holding, error) {
	stream, err := h.client.HoldLock(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&statev1.HoldLockRequest{
		User: string(h.key.User), Key: []byte(h.key.Key), Shared: h.shared, Holder: h.holder, Token: h.token,
		Patience: durationpb.New(patience), Lease: durationpb.New(h.lease),
	})
	if err != nil && !errors.Is(err, io.EOF) { // Recv has the reason
		return nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if h.token == 0 {
		h.token = answer.GetToken()
	}
	if d := answer.GetLease().AsDuration(); d > 0 {
		h.lease = d
	}
	return stream, nil
}

// keep holds the lock until it is to leave or the lock is lost. What breaks off is gone on with elsewhere, for a lease, if only to
// give it back there.
func (h *hold) keep(ctx context.Context, stream holding) {
	defer close(h.ended)
	for stream != nil {
		beaten, err := h.beat(ctx, stream)
		if err == nil {
			return
		}
		stream = nil
		for errors.Is(err, fault.Unavailable) && time.Since(beaten) < h.lease {
			again, stop := context.WithDeadline(ctx, beaten.Add(h.lease))
			timely := context.AfterFunc(again, func() { // rather than ask within it: the stream is to outlive it
				h.lost.Store(true)
				h.stop()
			})
			if stream, err = h.ask(ctx, 0); err != nil {
				_ = pause(again, between)
			}
			timely()
			stop()
		}
	}
	if ctx.Err() == nil { // else its call is over
		h.lost.Store(true)
	}
}

// beat keeps the lock until it is to leave, or the stream ends with an error. beaten is when the last beat went.
func (h *hold) beat(ctx context.Context, stream holding) (beaten time.Time, err error) {
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	beaten = time.Now()
	tick := time.NewTicker(h.lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if stream.Send(&statev1.HoldLockRequest{}) != nil {
				return beaten, <-ended
			}
			beaten = time.Now()
		case <-h.leave:
			_ = stream.CloseSend()
			if err = <-ended; errors.Is(err, io.EOF) {
				err = nil
			}
			return beaten, err
		case err = <-ended:
			return beaten, err
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
		s.abandon(h)
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
