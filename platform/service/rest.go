package service

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"skein.dev/platform/fault"
)

// Handle adds a REST route that is not JSON: raw bytes in or out. An error that h returns becomes a problem document; h
// must not have written anything then.
func (s *Server) Handle(pattern string, h func(http.ResponseWriter, *http.Request) error) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		if err := h(w, r); err != nil {
			_ = report(r.Context(), s.log, pattern, began, err)
			Problem(w, r, err)
		}
	})
}

// maxJSON bounds a JSON body: a message of maxMessage whose bytes are in base64.
const maxJSON = maxMessage/3*4 + 64<<10

// JSON answers a request through the generated gateway, for a route that Handle took from it.
func (s *Server) JSON(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength > maxJSON {
		Problem(w, r, fault.TooLarge.New("TOO_LARGE", "the body has %d bytes, at most %d are allowed", r.ContentLength, maxJSON))
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxJSON) // of a body whose length was not announced the gateway would read all
	s.gateway.ServeHTTP(w, r)
}

// Problem writes err with the trace it happened in.
func Problem(w http.ResponseWriter, r *http.Request, err error) {
	traceID := ""
	if sc := trace.SpanContextFromContext(r.Context()); sc.IsValid() {
		traceID = sc.TraceID().String()
	}
	fault.WriteProblem(w, err, "", traceID)
}

// notAllowed is a kind that only HTTP tells apart.
var notAllowed = &fault.Kind{Text: "method not allowed", Code: fault.Unsupported.Code, Errno: fault.Unsupported.Errno, HTTP: http.StatusMethodNotAllowed}

func newGateway() *runtime.ServeMux {
	return runtime.NewServeMux(
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			Problem(w, r, err)
		}),
		runtime.WithRoutingErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
			e := fault.NotFound.New("NO_ROUTE", "%s %.200s is no route of this service", r.Method, r.URL.Path).WithHint("docs/rest.md lists the routes")
			if status == http.StatusMethodNotAllowed {
				e = notAllowed.New("NO_METHOD", "%s is not possible on %.200s", r.Method, r.URL.Path)
			}
			Problem(w, r, e)
		}),
	)
}

// root is what all REST requests pass: a trace, and a panic's end.
func (s *Server) root() http.Handler {
	guarded := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.rest.RLock()
		defer s.rest.RUnlock()
		w := &begun{ResponseWriter: rw}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // it is compared by identity, as net/http does
					panic(p)
				}
				s.log.ErrorContext(r.Context(), "panic", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				if w.yes { // a problem behind half an answer would read as the rest of it
					panic(http.ErrAbortHandler)
				}
				Problem(w, r, fault.Internal.New("PANIC", "internal error"))
			}
		}()
		s.mux.ServeHTTP(w, r)
	})
	return otelhttp.NewHandler(guarded, "rest",
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
			if r.Pattern != "" {
				return r.Pattern
			}
			return r.Method
		}),
		otelhttp.WithFilter(func(r *http.Request) bool {
			switch r.URL.Path {
			case "/healthz", "/livez", "/metrics":
				return false
			}
			return true
		}))
}

// begun is a response that knows whether any of it has been sent.
type begun struct {
	http.ResponseWriter
	yes bool
}

func (b *begun) WriteHeader(status int) {
	b.yes = b.yes || status >= http.StatusOK
	b.ResponseWriter.WriteHeader(status)
}

func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.ResponseWriter.Write(p)
}

// ReadFrom keeps the kernel's fast path for file bodies.
func (b *begun) ReadFrom(r io.Reader) (int64, error) {
	b.yes = true
	return io.Copy(b.ResponseWriter, r)
}

func (b *begun) Flush() {
	b.yes = true
	_ = http.NewResponseController(b.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (b *begun) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	s.readyMu.Lock()
	why := s.notReady
	s.readyMu.Unlock()
	if why != nil {
		http.Error(w, "not ready: "+why.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

// dialSelf connects the gateway to our own gRPC server in memory, so that REST passes the same interceptors.
func (s *Server) dialSelf() error {
	lis := bufconn.Listen(256 << 10)
	conn, err := Connect("passthrough:///self", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return lis.DialContext(ctx)
	}))
	if err != nil {
		return err
	}
	s.self = conn
	s.Go(func(context.Context) error { return s.serveRPC(lis) })
	s.Close(func() error { _ = conn.Close(); return lis.Close() })
	return nil
}
