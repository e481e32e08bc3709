package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"skein.dev"
)

// Every kind must come back from the wire as itself, with all it carried.
func TestKindsCrossTheWire(t *testing.T) {
	for _, k := range Kinds() {
		sent := k.New("SOME_REASON", "thing %d", 7).WithHint("do that").WithRetry(3 * time.Second)
		got := From(status.ErrorProto(sent.GRPCStatus().Proto()))
		if !errors.Is(got, k) || *got != *sent {
			t.Errorf("%s: sent %+v, got %+v", k, sent, got)
		}
	}
}

// A code that two kinds shared could not come back as itself.
func TestCodesAreUnique(t *testing.T) {
	seen := map[codes.Code]*Kind{}
	for _, k := range Kinds() {
		if other := seen[k.Code]; other != nil {
			t.Errorf("%s and %s share %s", k, other, k.Code)
		}
		seen[k.Code] = k
		if k.Errno <= 0 || k.Errno > 76 {
			t.Errorf("%s: errno %d is not one of WASI's", k, k.Errno)
		}
	}
}

func TestFrom(t *testing.T) {
	for _, c := range []struct {
		err    error
		kind   *Kind
		reason string
		text   string
	}{
		{errors.New("password=hunter2"), Internal, "INTERNAL", "internal error"},
		{fmt.Errorf("load: %w", NotFound), NotFound, "NOT_FOUND", "load: not found"},
		{fmt.Errorf("load: %w", NotFound.New("NO_MODULE", "no module")), NotFound, "NO_MODULE", "load: no module"},
		{fmt.Errorf("x: %w", context.Canceled), Cancelled, "CANCELLED", "the caller went away"},
		{context.DeadlineExceeded, Timeout, "DEADLINE", "the deadline passed"},
		{fmt.Errorf("%w user", skein.ErrInvalid), Invalid, "BAD_NAME", "invalid user"},
		{status.Error(codes.Unavailable, "down"), Unavailable, "UNAVAILABLE", "down"},
		{status.Error(codes.ResourceExhausted, "big"), Exhausted, "RESOURCE_EXHAUSTED", "big"},
	} {
		got := From(c.err)
		if got.Kind != c.kind || got.Reason != c.reason || got.Message != c.text {
			t.Errorf("From(%v) = %+v", c.err, got)
		}
	}
	if From(nil) != nil {
		t.Error("From(nil) is not nil")
	}
}

func TestProblem(t *testing.T) {
	w := httptest.NewRecorder()
	WriteProblem(w, Exhausted.New("QUEUE_FULL", "full").WithHint("wait").WithRetry(1500*time.Millisecond), "/v1/calls/1", "")
	want := `{"type":"about:blank","title":"resource exhausted","status":429,"detail":"full","instance":"/v1/calls/1","reason":"QUEUE_FULL","hint":"wait"}` + "\n"
	if w.Code != 429 || w.Header().Get("Retry-After") != "2" || w.Body.String() != want {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}
