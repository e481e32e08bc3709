package planner

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc/peer"

	"skein.dev"
	"skein.dev/platform/fault"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

func TestLoad(t *testing.T) {
	s := newStory(t, testLimits())
	load := func(id string, n int) { s.did(s.c.Load(s.now, id, n)) }
	s.attach("x", 2)
	load("x", 1)
	s.submit("a", "ann")
	s.submit("b", "ann")
	s.want("dispatch a to x")
	load("x", 0) // a slot is free again
	s.want("dispatch b to x")
	load("x", 7) // it can't be more than there are
	s.submit("c", "ann")
	if used := s.c.executors["x"].used(); used != 4 {
		s.Errorf("%d slots are used", used)
	}
	s.outcome("x", "a", 1)
	s.outcome("x", "b", 1)
	s.want("ended a SUCCEEDED", "ended b SUCCEEDED")
	load("x", -3)
	s.want("dispatch c to x")
	load("nobody", 1)
	s.detach("x")
	s.attach("x", 1) // what it said before is not true any more
	s.got = nil
	s.submit("d", "ann")
	s.want("dispatch d to x")
}

func TestRoute(t *testing.T) {
	d, other := skein.Digest{1}, skein.Digest{2}
	route := func(s *story, want, reason string) {
		s.Helper()
		ex, err := s.c.Route(d)
		if err == nil && ex.ID != want || err != nil && fault.From(err).Reason != reason || (err == nil) != (reason == "") {
			s.Errorf("%q, %v; want %q, %s", ex.ID, err, want, reason)
		}
		s.want()
	}
	s := newStory(t, testLimits())
	route(s, "", "NO_SLOT")
	for _, id := range []string{"x", "y", "z"} {
		if _, err := s.c.Attach(s.now, Executor{ID: id, Slots: 1, Address: id + ":1"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.c.Heartbeat(s.now, "y", 0, []skein.Digest{d}, nil)
	s.c.Heartbeat(s.now, "z", 0, []skein.Digest{other}, nil)
	route(s, "y", "")
	if _, err := s.c.Cordon(s.now, "y", true); err != nil {
		t.Fatal(err)
	}
	route(s, "x", "")
	s.did(s.c.Load(s.now, "x", 1))
	route(s, "z", "")
	s.did(s.c.Load(s.now, "z", 1))
	route(s, "", "NO_SLOT")
	s.did(s.c.SetPolicy(s.now, Compact))
	route(s, "", "NOT_ROUTABLE")
	s.did(s.c.SetPolicy(s.now, BinPack))
	s.detach("x")
	s.attach("x", 1) // without an address
	route(s, "", "NOT_ROUTABLE")
}

func TestLeaseRoute(t *testing.T) {
	r := start(t)
	r.mustAttach(executorOptions{name: "x", slots: 1})
	lease := func(user, function string) (*plannerv1.Route, error) {
		resp, err := r.calls.LeaseRoute(r.ctx(), &plannerv1.LeaseRouteRequest{User: user, Function: function})
		return resp.GetRoute(), err
	}
	_, err := lease("ann", "echo")
	wantFault(t, err, fault.Precondition, "NOT_ROUTABLE") // the test's executors listen nowhere
	_, err = lease("ann", "no such name")
	wantFault(t, err, fault.Invalid, "BAD_NAME")
	_, err = lease("ann", "none")
	wantFault(t, err, fault.NotFound, "NO_FUNCTION")
	r.do("POST", "/v1/routes", nil).wantProblem(t, 400, "BAD_NAME")
}

func TestChains(t *testing.T) {
	for _, c := range []struct {
		imports []string
		want    bool
	}{
		{nil, false},
		{[]string{"wasi_snapshot_preview1.proc_exit", "faasm.input_read", "x", "a.b.c"}, false},
		{[]string{"env.__faasm_write_output", "env.__faasm_chain_name"}, true},
		{[]string{"faasm.chain_ptr"}, true},
	} {
		if chains(c.imports) != c.want {
			t.Errorf("%v: %v", c.imports, !c.want)
		}
	}
}

func TestReachedAt(t *testing.T) {
	from := peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP("10.1.2.3"), Port: 4000}})
	for address, want := range map[string]string{
		"": "", "x": "x", "10.9.9.9:1": "10.9.9.9:1", "host:1": "host:1", "[::]:8081": "10.1.2.3:8081", "0.0.0.0:1": "10.1.2.3:1", ":1": "10.1.2.3:1",
	} {
		if got := reachedAt(from, address); got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
		if got := reachedAt(context.Background(), address); got != address {
			t.Errorf("%q: %q", address, got)
		}
	}
}
