package service

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"skein.dev/platform/fault"
)

// Web reads raw bytes from another service's REST interface, beside what Connect is for: gRPC cuts them into frames and
// copies each. Its requests are traced.
type Web struct {
	base   string
	client *http.Client
}

// maxProblem bounds what is read of an error.
const maxProblem = 64 << 10

// NewWeb is a client of the service at addr, as Connect has it. Connections are made when first used.
func NewWeb(addr string) *Web {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	t.Proxy = nil                                        // as between services over gRPC
	t.MaxIdleConnsPerHost = 32
	t.DisableCompression = true
	t.ResponseHeaderTimeout = 10 * time.Second
	t.ReadBufferSize = 64 << 10
	return &Web{"http://" + addr[strings.LastIndexByte(addr, '/')+1:], &http.Client{Transport: otelhttp.NewTransport(t)}}
}

// Get reads a path whole. Errors are those of the service, TooLarge OBJECT_TOO_LARGE beyond most bytes, and Unavailable
// UNREACHABLE if it does not answer, or not to the end.
func (w *Web) Get(ctx context.Context, path string, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
		return nil, fault.FromProblem(resp.StatusCode, text)
	}
	if resp.ContentLength < 0 || resp.ContentLength > most {
		return nil, fault.TooLarge.New("OBJECT_TOO_LARGE", "%s has %d bytes, at most %d are read", path, resp.ContentLength, most)
	}
	data := make([]byte, resp.ContentLength)
	if _, err := io.ReadFull(resp.Body, data); err != nil {
		return nil, unreachable(ctx, err)
	}
	return data, nil
}

// Close ends idle connections.
func (w *Web) Close() { w.client.CloseIdleConnections() }

func unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fault.From(ctx.Err())
	}
	return fault.Unavailable.New("UNREACHABLE", "no answer over HTTP: %s", err)
}
