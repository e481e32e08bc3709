package planner

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"skein.dev"
	"skein.dev/platform/fault"
)

// invokeREST is POST /v1/invoke/{user}/{function}: raw input in, raw output out. Query: timeout (a Go duration or
// seconds), args (repeated), request_id.
func (p *Planner) invokeREST(w http.ResponseWriter, r *http.Request) error {
	f, err := skein.NewFunction(r.PathValue("user"), r.PathValue("function"))
	if err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fault.Invalid.New("BAD_QUERY", "the query string: %v", err)
	}
	timeout, err := parseTimeout(query.Get("timeout"))
	if err != nil {
		return err
	}
	input, err := readBody(r)
	if err != nil {
		return err
	}
	rec, err := p.Invoke(r.Context(), Request{
		Function: f, Input: input, Args: query["args"], Timeout: timeout, RequestID: query.Get("request_id"),
	})
	if err != nil {
		return err
	}
	writeResult(w, r, rec)
	return nil
}

// readBody reads an input and refuses one that is too large before it is all here.
func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > skein.MaxPayload {
		return nil, inputTooLarge(r.ContentLength)
	}
	if r.ContentLength > 0 {
		b := make([]byte, r.ContentLength)
		_, err := io.ReadFull(r.Body, b)
		return b, bodyError(err)
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, skein.MaxPayload+1))
	if len(b) > skein.MaxPayload {
		return nil, inputTooLarge(int64(len(b)))
	}
	return b, bodyError(err)
}

func bodyError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fault.Invalid.New("BAD_BODY", "the body ended early: %v", err)
}

func parseTimeout(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil && n > 0 && n <= MaxTimeout.Seconds() {
		return max(1, time.Duration(n*float64(time.Second))), nil // 0 would mean the default
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > MaxTimeout {
		return 0, fault.Invalid.New("BAD_TIMEOUT", "timeout %.40q: want a duration of more than 0 and at most 24h, such as 500ms, 30s or 2m", s)
	}
	return d, nil
}

// writeResult answers an invocation. What the guest did wrong is 502 with its output, so that our own 5xx never means a
// guest's bug; what stopped it is a problem document.
func writeResult(w http.ResponseWriter, r *http.Request, rec *Record) {
	h := w.Header()
	h.Set("Skein-Call-Id", rec.ID.String())
	h.Set("Skein-Call-State", rec.State.String())
	if rec.TraceID != "" {
		h.Set("Skein-Trace-Id", rec.TraceID)
	}
	status := http.StatusOK
	switch {
	case rec.State == skein.Succeeded:
		h.Set("Skein-Exit-Code", strconv.Itoa(int(rec.ExitCode)))
	case rec.Reason == "GUEST_EXIT":
		h.Set("Skein-Exit-Code", strconv.Itoa(int(rec.ExitCode)))
		h.Set("Skein-Reason", rec.Reason)
		status = http.StatusBadGateway
	default:
		h.Set("Skein-Reason", rec.Reason)
		traceID := ""
		if sc := trace.SpanContextFromContext(r.Context()); sc.IsValid() {
			traceID = sc.TraceID().String()
		}
		fault.WriteProblem(w, failure(rec), "/v1/calls/"+rec.ID.String(), traceID)
		return
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(rec.Output)))
	w.WriteHeader(status)
	_, _ = w.Write(rec.Output)
}

// guestFault is a kind of its own for REST alone: 502, so that a guest's trap is not mistaken for our failure.
var guestFault = &fault.Kind{Text: "guest failed", Code: fault.Internal.Code, Errno: fault.Internal.Errno, HTTP: http.StatusBadGateway}

// failure is why a call that its guest did not end itself has failed.
func failure(rec *Record) error {
	hint := "skein logs " + rec.ID.String() + " shows what the guest wrote"
	switch rec.State {
	case skein.TimedOut:
		return fault.Timeout.New(rec.Reason, "%s", rec.Message).WithHint("raise ?timeout=, or look at why it takes so long: %s", hint)
	case skein.Cancelled:
		return fault.Cancelled.New(rec.Reason, "%s", rec.Message)
	}
	switch rec.Reason {
	case "EXECUTOR_LOST", "STORE_DOWN", "UNAVAILABLE", "DRAINING":
		return fault.Unavailable.New(rec.Reason, "%s", rec.Message).WithHint("the call may have run in part; retry if that does no harm")
	case "DIGEST_MISMATCH":
		return fault.DataLoss.New(rec.Reason, "%s", rec.Message).WithHint("upload the module again")
	}
	return guestFault.New(rec.Reason, "%s", rec.Message).WithHint("%s", hint)
}

// logsREST is GET /v1/calls/{id}/logs: raw bytes for those who accept text, JSON by the gateway for others.
func (p *Planner) logsREST(json http.HandlerFunc) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !strings.Contains(r.Header.Get("Accept"), "text/plain") {
			json(w, r)
			return nil
		}
		id, err := skein.ParseCallID(r.PathValue("id"))
		if err != nil {
			return err
		}
		rec, err := p.Find(r.Context(), id)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(rec.Log)
		return nil
	}
}
