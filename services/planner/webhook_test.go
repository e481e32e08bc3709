package planner

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/redistest"
)

// The signature is the one that Standard Webhooks' own libraries make.
func TestHookSignature(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := hookSignature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("%s", got)
	}
}

func TestHookSettings(t *testing.T) {
	p := lone(DefaultLimits())
	for _, good := range []Webhooks{
		{},
		{Key: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Allow: "10.0.0.0/8, ::1,192.168.1.1"},
		{Key: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 64))},
	} {
		if _, err := newHooks(p, good); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, bad := range []Webhooks{
		{Key: "secret"},
		{Key: "whsec_"},
		{Key: "whsec_c2hvcnQ="},
		{Key: "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65))},
		{Allow: "10.0.0.0/33"},
		{Allow: "localhost"},
		{Allow: "*"},
	} {
		if _, err := newHooks(p, bad); err == nil {
			t.Errorf("%+v passed", bad)
		}
	}
}

func TestReachable(t *testing.T) {
	for _, s := range []string{
		"127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "100.64.0.1",
		"192.0.0.1", "198.18.0.1", "224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1",
		"::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1",
		"64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1",
	} {
		if reachable(netip.MustParseAddr(s), nil) {
			t.Errorf("%s can be reached", s)
		}
	}
	for _, s := range []string{"8.8.8.8", "172.32.0.1", "172.15.255.255", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"} {
		if !reachable(netip.MustParseAddr(s), nil) {
			t.Errorf("%s can't be reached", s)
		}
	}
	allow, err := parseNetworks("10.1.0.0/16,::1")
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "10.2.0.1": false, "::1": true, "127.0.0.1": false} {
		if reachable(netip.MustParseAddr(s), allow) != want {
			t.Errorf("%s: not %v", s, want)
		}
	}
	if reachable(netip.Addr{}, nil) {
		t.Error("no address can be reached")
	}
}

// ended gives a planner that has a call that ended.
func ended(t *testing.T, output []byte) (*Planner, *Record) {
	t.Helper()
	p := lone(DefaultLimits())
	if _, err := p.core.Attach(p.now(), Executor{ID: "x", Slots: 1}, nil); err != nil {
		t.Fatal(err)
	}
	rec, err := p.Submit(t.Context(), Request{Function: skein.Function{User: "ann", Name: "f"}})
	if err != nil {
		t.Fatal(err)
	}
	p.apply(func(now time.Time) []Command {
		return p.core.Outcome(now, "x", rec.ID, 1, skein.Result{State: skein.Succeeded, Output: output})
	})
	return p, rec
}

// A webhook is a signed POST of the call's record; what is not 2xx is a failure, and 410 the last one.
func TestHookCall(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	p, rec := ended(t, []byte("out"))
	h, err := newHooks(p, Webhooks{Key: secret, Allow: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	status := http.StatusNoContent
	elsewhere := atomic.Int32{}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			elsewhere.Add(1)
			return
		}
		body, _ := io.ReadAll(r.Body)
		id, stamp := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
		if got := r.Header.Get("webhook-signature"); r.Method != http.MethodPost || id != rec.ID.String() || got != hookSignature(key, id, stamp, body) {
			t.Errorf("%s %v", r.Method, r.Header)
		}
		var news struct {
			Type string
			Data struct {
				Call   struct{ CallID, State string }
				Output []byte
			}
		}
		if err := json.Unmarshal(body, &news); err != nil || news.Type != "call.succeeded" || news.Data.Call.CallID != rec.ID.String() ||
			news.Data.Call.State != "CALL_STATE_SUCCEEDED" || string(news.Data.Output) != "out" {
			t.Errorf("%s %v", body, err)
		}
		w.Header().Set("Location", "/elsewhere")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
	}))
	defer receiver.Close()
	call := func() hookEnd { return h.call(t.Context(), hook{ID: rec.ID, URL: receiver.URL + "/hook"}) }
	if end := call(); end.err != nil {
		t.Errorf("%+v", end)
	}
	for _, status = range []int{302, 307, 400, 404, 500, 503} {
		if end := call(); end.err == nil || end.done || end.unreachable || end.after != 7*time.Second {
			t.Errorf("%d: %+v", status, end)
		}
	}
	if status = http.StatusGone; !call().done {
		t.Error("410 is not the last word")
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
	if end := h.call(t.Context(), hook{ID: skein.NewCallID(), URL: receiver.URL}); !end.done || end.err == nil {
		t.Errorf("a call that is forgotten: %+v", end)
	}
	receiver.Close()
	if end := call(); !end.unreachable || end.done || strings.Contains(end.err.Error(), "/hook") {
		t.Errorf("nobody listens: %+v", end)
	}
}

// Nothing is said to an address that is not allowed, by whatever name it goes.
func TestHookRefused(t *testing.T) {
	p, rec := ended(t, nil)
	h, err := newHooks(p, Webhooks{})
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	accepted := atomic.Int32{}
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			_ = c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(lis.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1.2.3"} {
		end := h.call(t.Context(), hook{ID: rec.ID, URL: "http://" + host + ":" + port + "/"})
		if e := fault.From(end.err); end.err == nil || e.Reason != "ADDRESS_REFUSED" {
			t.Errorf("%s: %+v", host, end)
		}
	}
	if n := accepted.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// A large output is not part of the news.
func TestHookBody(t *testing.T) {
	for size, there := range map[int]bool{0: false, 1: true, hookOutput: true, hookOutput + 1: false} {
		r := &Record{State: skein.TimedOut}
		r.Output = bytes.Repeat([]byte("x"), size)
		body, err := hookBody(r)
		if err != nil || bytes.Contains(body, []byte(`"output":`)) != there || !bytes.Contains(body, []byte(`"call.timed_out"`)) {
			t.Errorf("%d: %v, %d bytes", size, err, len(body))
		}
	}
}

// One host's webhooks don't take all slots, and one that can't be reached is left alone for a while.
func TestHookHosts(t *testing.T) {
	p := lone(DefaultLimits())
	h, err := newHooks(p, Webhooks{})
	if err != nil {
		t.Fatal(err)
	}
	slow, other := hook{ID: skein.NewCallID(), URL: "http://slow.example/a"}, hook{ID: skein.NewCallID(), URL: "http://other.example/"}
	for range hookHost {
		if !h.claim(t.Context(), slow) {
			t.Fatal("not claimed")
		}
	}
	if h.claim(t.Context(), slow) {
		t.Error("one host takes more than its part")
	}
	if !h.claim(t.Context(), other) {
		t.Error("another has to wait for it")
	}
	for range hookHost - 1 {
		h.settle(t.Context(), slow, hookEnd{})
	}
	h.settle(t.Context(), slow, hookEnd{unreachable: true, err: io.EOF})
	if h.claim(t.Context(), slow) {
		t.Error("it is called again at once")
	}
	h.settle(t.Context(), other, hookEnd{})
	h.hosts["slow.example"].until = time.Now().Add(-1)
	h.tidy()
	if len(h.hosts) != 0 {
		t.Errorf("%v are remembered", h.hosts)
	}
}

// A webhook that failed is called again, by whoever leads then, until it is heard; then it is forgotten.
func TestHooksAreDelivered(t *testing.T) {
	url := redistest.Start(t).URL()
	heard := make(chan string, 100)
	var failing atomic.Bool
	failing.Store(true)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if failing.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		heard <- r.Header.Get("Webhook-Id")
	}))
	defer receiver.Close()
	calling := func(s *seat) *hooks {
		h, err := newHooks(s.Planner, Webhooks{Allow: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		h.pauses = []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond}
		return h
	}
	s := sit(t, url).leads()
	x := s.attach("x", 10)
	var ids []string
	for range 3 {
		ids = append(ids, s.submit(Request{Webhook: receiver.URL}).ID.String())
	}
	s.eventually("all have ended", func() bool {
		s.answer("x", x)
		for _, id := range ids {
			id, _ := skein.ParseCallID(id)
			if !s.find(id).State.Terminal() {
				return false
			}
		}
		return true
	})
	h := calling(s)
	due, err := s.dueHooks(t.Context(), time.Now(), 10)
	if err != nil || len(due) != len(ids) {
		t.Fatalf("%v %v", due, err)
	}
	for _, k := range due {
		if !h.claim(t.Context(), k) {
			t.Fatal("not claimed")
		}
		if again, err := s.dueHooks(t.Context(), time.Now(), 10); err != nil || slices.Contains(again, k) {
			t.Errorf("one that is being called is due: %v, %v", again, err)
		}
		h.settle(t.Context(), k, h.call(t.Context(), k))
	}
	s.crash()

	s = sit(t, url).leads()
	failing.Store(false)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	h = calling(s)
	go func() { done <- h.run(ctx) }()
	var got []string
	for range ids {
		select {
		case id := <-heard:
			got = append(got, id)
		case <-time.After(patience):
			t.Fatalf("only %v were heard of %v", got, ids)
		}
	}
	slices.Sort(got)
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		t.Errorf("%v, want %v", got, ids)
	}
	s.eventually("none is left", func() bool {
		left, err := s.dueHooks(t.Context(), time.Now().Add(24*time.Hour), 10)
		return err == nil && len(left) == 0
	})

	// One that nobody ever hears is given up.
	failing.Store(true)
	s.attach("y", 1)
	lost := s.submit(Request{Webhook: receiver.URL})
	s.apply(func(now time.Time) []Command { return s.core.Cancel(now, lost.ID) })
	s.eventually("it is given up", func() bool {
		left, err := s.dueHooks(t.Context(), time.Now().Add(24*time.Hour), 10)
		return err == nil && len(left) == 0 && s.find(lost.ID).State.Terminal()
	})
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
