package replicatest

import (
	"google.golang.org/grpc"

	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// lock is a global lock.
type lock struct {
	held   map[int64]chan struct{} // by token; closed when it is lost
	writer bool
	last   int64
	freed  chan struct{} // closed and made anew when it may be free
}

func (l *lock) nudge() {
	close(l.freed)
	l.freed = make(chan struct{})
}

func (s *server) HoldLock(in grpc.BidiStreamingServer[statev1.HoldLockRequest, statev1.HoldLockResponse]) error {
	r, err := in.Recv()
	if err != nil {
		return err
	}
	lost := make(chan struct{})
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	l, token := s.take(r, lost)
	for token == 0 {
		if r.GetToken() != 0 {
			return fault.Conflict.New("LOCK_LOST", "it is not held").GRPCStatus().Err()
		}
		s.mu.Lock()
		freed := l.freed
		s.mu.Unlock()
		select {
		case <-freed:
		case <-in.Context().Done():
			return in.Context().Err()
		}
		l, token = s.take(r, lost)
	}
	stays := false
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if stays {
			return
		}
		delete(l.held, token)
		l.nudge()
	}()
	if err := in.Send(&statev1.HoldLockResponse{Token: token, Lease: r.GetLease()}); err != nil {
		return err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			if _, err := in.Recv(); err != nil {
				return
			}
		}
	}()
	select {
	case <-over:
		return nil
	case <-broken:
		stays = true
		return fault.Unavailable.New("DRAINING", "this process is about to end").GRPCStatus().Err()
	case <-lost:
		return fault.Conflict.New("FENCED", "the lease has ended").GRPCStatus().Err()
	}
}

func (s *server) take(r *statev1.HoldLockRequest, lost chan struct{}) (*lock, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.locks[name(r)]
	if l == nil {
		l = &lock{held: map[int64]chan struct{}{}, freed: make(chan struct{})}
		s.locks[name(r)] = l
	}
	if r.GetToken() != 0 {
		if l.held[r.GetToken()] == nil {
			return l, 0
		}
		l.held[r.GetToken()] = lost
		return l, r.GetToken()
	}
	if len(l.held) > 0 && (l.writer || !r.GetShared()) {
		return l, 0
	}
	l.last++
	l.writer = !r.GetShared()
	l.held[l.last] = lost
	return l, l.last
}
