package service

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"skein.dev/platform/fault"
)

// What another service says over HTTP comes as its bytes or as its error, and what is cut short is neither.
func TestWeb(t *testing.T) {
	release := make(chan struct{})
	r := run(t, time.Second, func(_ context.Context, s *Server) error {
		s.Handle("GET /whole", func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.Write([]byte("content"))
			return err
		})
		s.Handle("GET /none", func(http.ResponseWriter, *http.Request) error {
			return fault.NotFound.New("NO_THING", "nothing there").WithHint("look elsewhere")
		})
		s.Handle("GET /short", func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("content"))
			panic(http.ErrAbortHandler)
		})
		s.Handle("GET /never", func(http.ResponseWriter, *http.Request) error {
			<-release
			return nil
		})
		return nil
	})
	defer close(release)
	web := NewWeb("dns:///" + r.addr)
	defer web.Close()
	if got, err := web.Get(t.Context(), "/whole", 7); string(got) != "content" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	left, leave := context.WithCancel(t.Context())
	leave()
	for _, c := range []struct {
		ctx    context.Context
		path   string
		most   int64
		kind   error
		reason string
	}{
		{t.Context(), "/whole", 6, fault.TooLarge, "OBJECT_TOO_LARGE"},
		{t.Context(), "/none", 7, fault.NotFound, "NO_THING"},
		{t.Context(), "/other", 7, fault.NotFound, "NO_ROUTE"},
		{t.Context(), "/short", 100, fault.Unavailable, "UNREACHABLE"},
		{soon, "/never", 7, fault.Unavailable, "UNREACHABLE"},
		{left, "/whole", 7, fault.Cancelled, "CANCELLED"},
	} {
		_, err := web.Get(c.ctx, c.path, c.most)
		if e := fault.From(err); !errors.Is(err, c.kind) || e.Reason != c.reason {
			t.Errorf("%s: %v (%+v)", c.path, err, e)
		}
	}
	if e := fault.FromProblem(503, []byte("<html>")); e.Kind != fault.Unavailable || !strings.Contains(e.Message, "Unavailable") {
		t.Errorf("a proxy's error: %+v", e)
	}
}
