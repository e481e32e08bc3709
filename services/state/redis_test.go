package state

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"skein.dev/platform/fault"

	"skein.dev/platform/redistest"
	"skein.dev/platform/relaytest"
)

// startCluster starts a cluster of one node, which has all a cluster's rules.
func startCluster(t *testing.T, args ...string) *redistest.Server {
	t.Helper()
	r := redistest.Start(t, append(args, "--cluster-enabled", "yes")...)
	if got := r.Says("CLUSTER ADDSLOTSRANGE 0 16383"); got != "+OK" {
		t.Fatal(got)
	}
	for end := time.Now().Add(20 * time.Second); r.Says("SET probe 1") != "+OK"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the cluster does not form")
		}
	}
	return r
}

func openStore(t *testing.T, url string, timeout time.Duration) *Store {
	t.Helper()
	d, err := open(url, timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.close() })
	return newStore(d, 8<<20)
}

// The suite holds for a real Redis, for a Redis cluster, and for the stand-in that
// the one-process mode uses.
func TestStore(t *testing.T) {
	t.Run("redis", func(t *testing.T) {
		runSuite(t, openStore(t, "redis://"+redistest.Start(t).Addr+"/2", 10*time.Second))
	})
	t.Run("cluster", func(t *testing.T) {
		addr := startMasters(t).Addr
		runSuite(t, openStore(t, "redis://"+addr+"?addr="+addr, 10*time.Second))
	})
	t.Run("miniredis", func(t *testing.T) {
		runSuite(t, openStore(t, "redis://"+miniredis.RunT(t).Addr(), 10*time.Second))
	})
}

func TestRedisAway(t *testing.T) {
	r := redistest.Start(t)
	s := openStore(t, "redis://"+r.Addr, time.Second)
	k := key(t, "ann", "k")
	if _, err := s.Set(t.Context(), k, []byte("kept"), Any, ""); err != nil {
		t.Fatal(err)
	}
	down := func(how string) {
		t.Helper()
		for name, op := range map[string]func() error{
			"get":    func() error { _, _, err := s.Get(t.Context(), k, 0, 0); return err },
			"append": func() error { _, _, err := s.Append(t.Context(), k, []byte("x"), "id"); return err },
			"write": func() error {
				_, err := s.Write(t.Context(), k, bytes.NewReader(make([]byte, 2<<20)), Any, "")
				return err
			},
			"list": func() error { _, _, err := s.List(t.Context(), "ann", "", 0, ""); return err },
			"lock": func() error { _, err := s.Lock(t.Context(), k, LockRequest{Patience: time.Hour}); return err },
			"patch": func() error {
				_, _, err := s.Patch(t.Context(), k, patchOf(at{0, []byte("x")}, at{2, []byte("x")}), "")
				return err
			},
			"ping": func() error { return s.db.ping(t.Context()) },
		} {
			began := time.Now()
			err := op()
			e := fault.From(err)
			if e == nil || e.Kind != fault.Unavailable || e.Reason != "REDIS_DOWN" || e.Hint == "" {
				t.Errorf("%s, %s: %v %+v", how, name, err, e)
			}
			if took := time.Since(began); took > 2500*time.Millisecond { // a second, and what a busy machine adds
				t.Errorf("%s, %s: took %s", how, name, took)
			}
		}
	}
	r.Pause(t)
	down("stopped")
	s.db.verdict.Store(&verdict{}) // old
	began, many := time.Now(), make(chan error)
	for range 20 {
		go func() { _, err := s.Stat(t.Context(), k); many <- err }()
	}
	for range 20 {
		go func() { _, err := s.Lock(t.Context(), k, LockRequest{Patience: time.Hour}); many <- err }()
	}
	for range 40 {
		reason(t, "many at once", <-many, fault.Unavailable, "REDIS_DOWN")
	}
	if took := time.Since(began); took > 5*time.Second { // not one after another
		t.Errorf("many at once took %s", took)
	}
	r.Kill()
	down("killed")
	short, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := s.Stat(short, k); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past the caller's deadline: %v", err)
	}

	r.Start(t)
	var err error
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err = s.Stat(t.Context(), k); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal("after the restart:", err)
	}
	data, _, err := s.Get(t.Context(), k, 0, 4)
	if err != nil || string(data) != "kept" {
		t.Errorf("after the restart: %q %v", data, err)
	}
}

func TestRedisRefuses(t *testing.T) {
	r := redistest.Start(t)
	s := openStore(t, "redis://"+r.Addr, 5*time.Second)
	k, big := key(t, "ann", "k"), key(t, "ann", "big")
	data := bytes.Repeat([]byte("0123456789"), 200_000)
	for _, k := range []struct {
		set func() error
	}{
		{func() error { _, err := s.Set(t.Context(), k, []byte("old"), Any, ""); return err }},
		{func() error { _, err := s.Set(t.Context(), big, data, Any, ""); return err }},
	} {
		if err := k.set(); err != nil {
			t.Fatal(err)
		}
	}
	changes := map[string]func() error{
		"set":    func() error { _, err := s.Set(t.Context(), k, []byte("new"), Any, ""); return err },
		"create": func() error { _, err := s.Set(t.Context(), key(t, "ann", "new"), nil, Any, ""); return err },
		"large":  func() error { _, err := s.Set(t.Context(), big, data, Any, ""); return err },
		"append": func() error { _, _, err := s.Append(t.Context(), big, []byte("new"), ""); return err },
		"range":  func() error { _, err := s.SetRange(t.Context(), big, 5, data[:300_000], ""); return err },
		"patch": func() error {
			_, _, err := s.Patch(t.Context(), k, patchOf(at{0, []byte("x")}, at{2, []byte("y")}), "")
			return err
		},
		"grow":    func() error { _, _, err := s.Resize(t.Context(), k, 100, ""); return err },
		"add":     func() error { _, _, err := s.Add(t.Context(), k, 0, 1, ""); return err },
		"element": func() error { _, err := s.AppendElement(t.Context(), k, []byte("x"), ""); return err },
	}
	refused := func(kind *fault.Kind, reason string) {
		t.Helper()
		for name, change := range changes {
			if e := fault.From(change()); e == nil || e.Kind != kind || e.Reason != reason {
				t.Errorf("%s while it must be %s: %+v", name, reason, e)
			}
		}
		for k, want := range map[string][]byte{"k": []byte("old"), "big": data} {
			if got, _, err := s.Get(t.Context(), key(t, "ann", k), 0, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: a refused change left %d bytes, %v", reason, len(got), err)
			}
		}
	}
	must := func(command string) {
		t.Helper()
		if got := r.Says(command); got != "+OK" {
			t.Fatal(command, got)
		}
	}
	must("REPLICAOF 127.0.0.1 1")
	must("CONFIG SET replica-serve-stale-data yes")
	refused(fault.Unavailable, "REDIS_READONLY")
	must("REPLICAOF NO ONE")
	must("CONFIG SET maxmemory 1000000")
	refused(fault.Exhausted, "REDIS_FULL")
	if _, _, err := s.Resize(t.Context(), big, 300_005, ""); err != nil {
		t.Error("a full Redis must let values shrink:", err)
	}
	if got, _, err := s.Get(t.Context(), big, 0, 0); err != nil || !bytes.Equal(got, data[:300_005]) {
		t.Error("after it shrank:", len(got), err)
	}
	if _, err := s.Expire(t.Context(), big, time.Hour, ""); err != nil {
		t.Error("a full Redis must let values end:", err)
	}
	if l, err := s.Lock(t.Context(), k, LockRequest{}); err != nil || l.Release(t.Context()) != nil {
		t.Error("a full Redis must give locks:", err)
	}
	if err := errors.Join(s.Delete(t.Context(), big, ""), s.Delete(t.Context(), k, "")); err != nil {
		t.Error("a full Redis must let go of values:", err)
	}
	must("CONFIG SET maxmemory 0")
	if info, err := s.Set(t.Context(), k, []byte("again"), Absent, ""); err != nil || info.Size != 5 {
		t.Error("with memory again:", info, err)
	}
}

// A Redis that would lose values is refused.
func TestVolatileRedis(t *testing.T) {
	for name, bad := range map[string][]string{
		"no append-only file": {"--appendonly", "no"},
		"evicts":              {"--maxmemory-policy", "allkeys-lru"},
		"evicts some":         {"--maxmemory-policy", "volatile-ttl"},
	} {
		t.Run(name, func(t *testing.T) {
			r := redistest.Start(t, bad...)
			s, k := openStore(t, "redis://"+r.Addr, 5*time.Second), key(t, "ann", "k")
			_, err := s.Set(t.Context(), k, []byte("x"), Any, "")
			reason(t, "set", err, fault.Unavailable, "REDIS_VOLATILE")
			_, _, err = s.Get(t.Context(), k, 0, 0)
			reason(t, "get", err, fault.Unavailable, "REDIS_VOLATILE")
			reason(t, "ready", s.db.ping(t.Context()), fault.Unavailable, "REDIS_VOLATILE")
			if e := fault.From(err); !strings.Contains(e.Hint, "--volatile") {
				t.Error(e.Hint)
			}
			volatile := openStore(t, "redis://"+r.Addr, 5*time.Second)
			volatile.db.volatile = true
			if _, err := volatile.Set(t.Context(), k, []byte("x"), Any, ""); err != nil {
				t.Error("with --volatile:", err)
			}
		})
	}
	r := redistest.Start(t)
	s, k := openStore(t, "redis://"+r.Addr, 5*time.Second), key(t, "ann", "k")
	for _, c := range []struct{ command, reason string }{{"PING", ""}, {"CONFIG SET appendonly no", "REDIS_VOLATILE"}, {"CONFIG SET appendonly yes", ""}} {
		r.Says(c.command)
		s.db.verdict.Store(nil) // as it is after checkEach
		_, err := s.Set(t.Context(), k, []byte("x"), Any, "")
		if e := fault.From(err); e != nil && e.Reason != c.reason || e == nil && c.reason != "" {
			t.Errorf("after %s: %v", c.command, err)
		}
	}
}

// cutter passes connections on, and closes one instead of passing an answer on when told to.
type cutter struct {
	*relaytest.Relay
	cut atomic.Int32 // how many answers are still to be lost
}

func (c *cutter) serve(server string) {
	c.Serve(server, func(near, far net.Conn) {
		go relaytest.Pass(far, near, nil)
		go relaytest.Pass(near, far, func(int) bool { return c.cut.Load() <= 0 || c.cut.Add(-1) < 0 })
	})
}

// A change whose answer was lost happens once: it is repeated if it can be told from a new one, and else reported.
func TestAnswerLost(t *testing.T) {
	t.Run("redis", func(t *testing.T) {
		c := &cutter{Relay: relaytest.Listen(t)}
		c.serve(redistest.Start(t).Addr)
		testAnswerLost(t, c, openStore(t, "redis://"+c.Addr, 5*time.Second))
	})
	t.Run("cluster", func(t *testing.T) { // go-redis has a loop of its own there
		c := &cutter{Relay: relaytest.Listen(t)}
		_, port, _ := net.SplitHostPort(c.Addr)
		c.serve(startCluster(t, "--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", port).Addr)
		testAnswerLost(t, c, openStore(t, "redis://"+c.Addr+"?addr="+c.Addr, 5*time.Second))
	})
}

func testAnswerLost(t *testing.T, proxy *cutter, s *Store) {
	k := key(t, "ann", "k")
	warm := func() { // so that the next answer is the script's
		t.Helper()
		if _, _, err := s.Append(t.Context(), k, nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	size := func(want int64) {
		t.Helper()
		if i, err := s.Stat(t.Context(), k); err != nil || i.Size != want {
			t.Errorf("%d bytes, want %d; %v", i.Size, want, err)
		}
	}
	warm()
	proxy.cut.Store(1)
	if at, _, err := s.Append(t.Context(), k, []byte("once"), "id"); err != nil || at != 0 {
		t.Error("with an id:", at, err)
	}
	size(4)
	warm()
	proxy.cut.Store(1)
	_, _, err := s.Append(t.Context(), k, []byte("once"), "")
	if e := fault.From(err); e == nil || e.Reason != "REDIS_DOWN" {
		t.Error("without an id:", err)
	}
	size(8)
	warm()
	proxy.cut.Store(100)
	_, _, err = s.Append(t.Context(), k, []byte("once"), "id2")
	if !errors.Is(err, fault.Unavailable) {
		t.Error("lost for good:", err)
	}
	proxy.cut.Store(0)
	if at, _, err := s.Append(t.Context(), k, []byte("once"), "id2"); err != nil || at != 8 {
		t.Error("repeated by the caller:", at, err)
	}
	size(12)
}
