package planner

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// resolving gives a resolver with an upload service, and its watch if it is to have one.
func resolving(t *testing.T, watch bool) (*resolver, *uploads) {
	t.Helper()
	settle(t)
	u := newUploads()
	u.put("ann/f", 1)
	u.start(t, "127.0.0.1:0")
	conn, err := service.Connect(u.addr)
	if err != nil {
		t.Fatal(err)
	}
	r := newResolver(uploadv1.NewUploadServiceClient(conn))
	t.Cleanup(func() { _ = conn.Close() })
	if watch {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- r.watch(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		<-u.watching
	}
	return r, u
}

func number(t *testing.T, r *resolver) int64 {
	t.Helper()
	v, err := r.resolve(t.Context(), skein.Function{User: "ann", Name: "f"})
	if err != nil {
		t.Fatal(err)
	}
	if v.Version.Digest != skein.DigestOf([]byte{byte(v.Version.Number)}) || v.Version.Function.Name != "f" {
		t.Errorf("%+v", v)
	}
	return v.Version.Number
}

// Whoever has the answer to an upload gets that version in the next call: no lease is waited for.
func TestChangeIsSeenAtOnce(t *testing.T) {
	r, u := resolving(t, true)
	r.lease = time.Hour
	for n := int64(1); n < 30; n++ {
		u.put("ann/f", n)
		for range 2 {
			if got := number(t, r); got != n {
				t.Fatalf("version %d after the upload of %d", got, n)
			}
		}
	}
	if n := u.lookups(); n > 30 {
		t.Errorf("%d look-ups: answers are not kept", n)
	}
}

// The lease bounds the age of an answer when no watch tells of changes.
func TestChangeWithoutWatch(t *testing.T) {
	r, u := resolving(t, false)
	r.lease = 300 * time.Millisecond
	number(t, r)
	u.put("ann/f", 2)
	began := time.Now()
	for number(t, r) != 2 {
		if time.Since(began) > patience {
			t.Fatal("the change is not seen")
		}
		<-time.After(time.Millisecond)
	}
	if took := time.Since(began); took > r.lease+2*time.Second {
		t.Errorf("it took %s", took)
	}
}

// What changed while the watch was down is not trusted when it stands again.
func TestWatchComesBack(t *testing.T) {
	r, u := resolving(t, true)
	r.lease = time.Hour
	number(t, r)
	u.grpc.Stop()
	u.put("ann/f", 2) // nobody hears of it
	u.start(t, u.addr)
	<-u.watching
	if got := number(t, r); got != 2 {
		t.Errorf("version %d", got)
	}
}

func TestRefusalsAreNotKept(t *testing.T) {
	r, u := resolving(t, false)
	f := skein.Function{User: "ann", Name: "g"}
	for range 2 {
		_, err := r.resolve(t.Context(), f)
		wantFault(t, err, fault.NotFound, "NO_FUNCTION")
	}
	u.put("ann/g", 7)
	if v, err := r.resolve(t.Context(), f); err != nil || v.Version.Number != 7 {
		t.Errorf("%+v %v", v, err)
	}
	u.mu.Lock()
	u.current[f].Digest = "nonsense"
	u.mu.Unlock()
	r.forget(&f)
	_, err := r.resolve(t.Context(), f)
	wantFault(t, err, fault.Internal, "BAD_ANSWER")
}

// An answer that was asked for before a change is given to those who asked then, and neither kept nor given to others.
func TestAnswerFromBeforeAChange(t *testing.T) {
	r, u := resolving(t, false)
	f := skein.Function{User: "ann", Name: "f"}
	resolve := func() <-chan error {
		got := make(chan error, 1)
		go func() {
			_, err := r.resolve(context.Background(), f)
			got <- err
		}()
		select {
		case <-u.asking:
		case <-time.After(patience):
			t.Error("it does not ask")
		}
		return got
	}
	u.mu.Lock() // look-ups stand
	before := resolve()
	r.forget(&f)
	after := resolve() // it asks for itself
	r.forget(nil)
	u.mu.Unlock()
	for _, got := range []<-chan error{before, after} {
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) != 0 {
		t.Errorf("%v is known", r.known)
	}
}

func TestUploadIsDown(t *testing.T) {
	r := start(t)
	r.mustAttach(executorOptions{name: "x", slots: 1})
	if a := r.do("POST", "/v1/invoke/ann/echo", nil); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	r.uploads.grpc.Stop()
	began := time.Now()
	_, err := r.calls.Invoke(r.ctx(), invokeRequest("ann/version", nil))
	wantFault(t, err, fault.Unavailable, "UPLOAD_DOWN")
	if took := time.Since(began); took > 4*time.Second { // refused at once, three more tries within a second; slow machines apart
		t.Errorf("it took %s", took)
	}
	a := r.do("POST", "/v1/invoke/ann/version", nil)
	a.wantProblem(t, 503, "UPLOAD_DOWN")
	if strings.Contains(string(a.body), r.uploads.addr) {
		t.Errorf("it tells the world where upload is: %s", a.body)
	}
	// It comes back, and so do we, by ourselves.
	r.uploads.start(t, r.uploads.addr)
	r.eventually("calls work again", func() bool {
		return r.do("POST", "/v1/invoke/ann/version", nil).StatusCode == 200
	})
}

// A look-up that hangs is no deadline of the caller's.
func TestUploadHangs(t *testing.T) {
	r, u := resolving(t, false)
	r.patience = 50 * time.Millisecond
	u.mu.Lock()
	_, err := r.resolve(t.Context(), skein.Function{User: "ann", Name: "f"})
	u.mu.Unlock()
	wantFault(t, err, fault.Unavailable, "UPLOAD_DOWN")
}

// How a function's calls are treated comes with its version, and its call sees a change as soon as it was answered.
func TestSettingsAreResolved(t *testing.T) {
	r, u := resolving(t, true)
	r.lease = time.Hour
	for n, config := range []*uploadv1.FunctionConfig{
		nil,
		{Timeout: durationpb.New(time.Second), MaxAttempts: 7, RetryFailures: true, ResultAge: durationpb.New(time.Hour), WebhookUrl: "http://h/"},
		{MaxAttempts: 1},
	} {
		u.mu.Lock()
		u.config = config
		u.mu.Unlock()
		u.put("ann/f", int64(n+1))
		got, err := r.resolve(t.Context(), skein.Function{User: "ann", Name: "f"})
		want := Settings{config.GetTimeout().AsDuration(), config.GetMaxAttempts(), config.GetRetryFailures(), config.GetResultAge().AsDuration(), config.GetWebhookUrl()}
		if err != nil || got.Settings != want || got.Version.Number != int64(n+1) {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
}
