package planner

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"skein.dev"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// What an executor says, however strange, is an end of a call or an error, and what is kept of it can be sent on.
func FuzzOutcome(f *testing.F) {
	for state := range callv1.CallState_name {
		b, err := proto.Marshal(&callv1.Outcome{CallId: make([]byte, 16), State: callv1.CallState(state), Output: []byte("out"), Log: []byte{0xff}, ExitCode: -1, Attempt: 1})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, wire []byte) {
		var o callv1.Outcome
		if proto.Unmarshal(wire, &o) != nil {
			return
		}
		id, res, err := fromOutcome(&o)
		if err != nil {
			return
		}
		if !res.State.Terminal() || string(id[:]) != string(o.GetCallId()) {
			t.Fatalf("%v became %s %+v", &o, id, res)
		}
		c := NewCore(testLimits())
		_, _ = c.Attach(t0, Executor{ID: "x", Slots: 1}, nil)
		call := skein.Call{ID: id, Function: skein.Function{User: "ann", Name: "f"}, Deadline: t0.Add(time.Minute)}
		if _, _, err := c.Submit(t0, call, Options{}); err != nil {
			t.Fatal(err)
		}
		c.Outcome(t0, "x", id, o.GetAttempt(), res)
		if err := audit(c); err != nil {
			t.Fatal(err)
		}
		if r := c.calls[id]; r != nil {
			if _, err := protojson.Marshal(toCall(&r.Record)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A request from outside is refused, or becomes a call whose assignment can be sent.
func FuzzRequest(f *testing.F) {
	f.Add("ann", "f", []byte("in"), "arg", int64(1), int32(1), "r")
	f.Add("ann", "f", []byte(nil), "\xff", int64(-1), int32(1), "")
	f.Add("", "-", []byte(nil), "\x00", int64(1)<<62, int32(-1), strings.Repeat("r", 129))
	f.Fuzz(func(t *testing.T, user, function string, input []byte, arg string, seconds int64, nanos int32, requestID string) {
		r := &plannerv1.InvokeRequest{User: user, Function: function, Input: input, Args: []string{arg, "", arg}, RequestId: requestID}
		q, err := fromCallRequest(r)
		if err != nil {
			return
		}
		q.Timeout = time.Duration(seconds) + time.Duration(nanos)
		if q.check() != nil {
			return
		}
		rec := &Record{Call: skein.Call{ID: skein.NewCallID(), Function: q.Function, Input: q.Input, Args: q.Args, Deadline: t0.Add(q.Timeout)}, State: skein.Queued}
		wire, err := proto.Marshal(toAssignment(rec))
		if err != nil || len(wire) > 4<<20 {
			t.Fatalf("%d bytes, %v", len(wire), err)
		}
	})
}

func FuzzTimeout(f *testing.F) {
	for _, s := range []string{"", "1", "0", "1e-12", "500ms", "24h", "86400", "86400.1", "1e400", "-1", "NaN", "0x1p-2", "1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseTimeout(s)
		if err == nil && (s == "") != (d == 0) || d < 0 || d > MaxTimeout {
			t.Errorf("%q is %s, %v", s, d, err)
		}
	})
}

func FuzzPageToken(f *testing.F) {
	f.Add("")
	f.Add(sealToken("7"))
	f.Add(sealToken("-7"))
	f.Fuzz(func(t *testing.T, token string) {
		s := &server{p: lone(testLimits())}
		_, _ = s.ListCalls(t.Context(), &plannerv1.ListCallsRequest{PageToken: token})
		_, _ = s.ListExecutors(t.Context(), &plannerv1.ListExecutorsRequest{PageToken: token})
		if got, err := openToken(sealToken(token)); err != nil || got != token {
			t.Errorf("%q came back as %q, %v", token, got, err)
		}
	})
}

func TestDigests(t *testing.T) {
	d := skein.DigestOf(nil)
	if got := toDigests([][]byte{nil, d[:], d[:31], append(d[:], 0)}); len(got) != 1 || got[0] != d {
		t.Errorf("%v", got)
	}
}

// Every state has its word on the wire, and every end comes back as itself.
func TestStates(t *testing.T) {
	for s := skein.Queued; s <= skein.TimedOut; s++ {
		wire := toState[s]
		id := skein.NewCallID()
		_, res, err := fromOutcome(&callv1.Outcome{CallId: id[:], State: wire})
		if wire == 0 || s.Terminal() != (err == nil) || err == nil && res.State != s || "CALL_STATE_"+s.String() != wire.String() {
			t.Errorf("%s: %s, %s, %v", s, wire, res.State, err)
		}
	}
	for _, id := range [][]byte{nil, make([]byte, 15), make([]byte, 17)} {
		if _, _, err := fromOutcome(&callv1.Outcome{CallId: id, State: callv1.CallState_CALL_STATE_SUCCEEDED}); err == nil {
			t.Errorf("an id of %d bytes", len(id))
		}
	}
}
