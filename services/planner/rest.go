package planner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

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
	switch {
	case infrastructure(rec.Reason):
		return fault.Unavailable.New(rec.Reason, "%s", rec.Message).WithHint("the call may have run in part; retry if that does no harm")
	case rec.Reason == "DIGEST_MISMATCH":
		return fault.DataLoss.New(rec.Reason, "%s", rec.Message).WithHint("upload the module again")
	}
	return guestFault.New(rec.Reason, "%s", rec.Message).WithHint("%s", hint)
}

// logsREST is GET /v1/calls/{id}/logs: raw bytes for those who accept text, JSON by the gateway for others.
func (p *Planner) logsREST(gateway http.HandlerFunc) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !strings.Contains(r.Header.Get("Accept"), "text/plain") {
			gateway(w, r)
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

// eventTime bounds how long a reader of events may take for one.
const eventTime = 30 * time.Second

// eventsREST is GET /v1/calls/{id}/events: server-sent events for those who accept them, a JSON document a line, as the gateway
// would write them, for others: its errors are no problem documents. Query: logs, log_offset, log_attempt, as WatchCallRequest
// has them. A server-sent event's id says how much of the log was sent, so that a reader goes on behind it; one that has seen the
// end is answered 204, which stops its tries.
func (p *Planner) eventsREST(w http.ResponseWriter, r *http.Request) error {
	id, err := skein.ParseCallID(r.PathValue("id"))
	if err != nil {
		return err
	}
	logs, from, err := parseEvents(r)
	if err != nil {
		return err
	}
	lines := !strings.Contains(r.Header.Get("Accept"), "text/event-stream")
	if last := r.Header.Get("Last-Event-ID"); last != "" && !lines {
		if last == endEvent {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		if from, err = parseEventID(last); err != nil {
			return err
		}
	}
	out := &events{w: w, conn: http.NewResponseController(w), lines: lines, at: from}
	defer func() { _ = out.conn.SetWriteDeadline(time.Time{}) }() // other requests follow on the connection
	err = p.Watch(r.Context(), id, logs, from, out.send)
	if err == nil || !out.begun {
		return err
	}
	out.fail(err)
	return nil
}

// endEvent is the id of a call's last event.
const endEvent = "end"

func parseEvents(r *http.Request) (logs bool, from LogPosition, err error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return false, from, fault.Invalid.New("BAD_QUERY", "the query string: %v", err)
	}
	if s := query.Get("logs"); s != "" {
		if logs, err = strconv.ParseBool(s); err != nil {
			return false, from, fault.Invalid.New("BAD_QUERY", "logs=%.40q: want true or false", s)
		}
	}
	if s := query.Get("log_offset"); s != "" {
		if from.Offset, err = strconv.ParseInt(s, 10, 64); err != nil {
			return false, from, fault.Invalid.New("BAD_OFFSET", "log_offset=%.40q: want a number of bytes", s)
		}
	}
	if s := query.Get("log_attempt"); s != "" {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return false, from, fault.Invalid.New("BAD_OFFSET", "log_attempt=%.40q: want an attempt's number", s)
		}
		from.Attempt = int32(n)
	}
	return logs, from, nil
}

func parseEventID(s string) (LogPosition, error) {
	first, second, _ := strings.Cut(s, "-")
	attempt, err1 := strconv.ParseUint(first, 10, 31)
	offset, err2 := strconv.ParseUint(second, 10, 62)
	if err1 != nil || err2 != nil {
		return LogPosition{}, fault.Invalid.New("BAD_EVENT_ID", "Last-Event-ID %.40q is none that was given out", s)
	}
	return LogPosition{int32(attempt), int64(offset)}, nil
}

// events writes events as they come.
type events struct {
	w     http.ResponseWriter
	conn  *http.ResponseController
	lines bool // of JSON, not server-sent events
	begun bool
	at    LogPosition
}

func (s *events) send(e Event) error {
	if s.at.Attempt != e.Attempt {
		if s.at.Attempt != 0 {
			s.at.Offset = 0
		}
		s.at.Attempt = e.Attempt
	}
	switch m := toEvent(e); {
	case s.lines && m == nil:
		return nil
	case s.lines:
		return s.line("result", m)
	case e.Call != nil:
		id := fmt.Sprintf("%d-%d", s.at.Attempt, s.at.Offset)
		if e.Call.State.Terminal() {
			id = endEvent
		}
		return s.event("call", id, m.GetCall())
	case e.Log != nil:
		s.at.Offset = e.Offset + int64(len(e.Log))
		return s.event("log", fmt.Sprintf("%d-%d", s.at.Attempt, s.at.Offset), m.GetLog())
	}
	return s.write(": still here\n\n")
}

func (s *events) line(member string, m proto.Message) error {
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return err
	}
	return s.write(fmt.Sprintf("{%q: %s}\n", member, data))
}

func (s *events) event(name, id string, m proto.Message) error {
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return err
	}
	return s.write(fmt.Sprintf("event: %s\nid: %s\ndata: %s\n\n", name, id, data))
}

// fail tells of an error behind events.
func (s *events) fail(err error) {
	e := fault.From(err)
	data, err := json.Marshal(map[string]string{"reason": e.Reason, "detail": e.Message, "hint": e.Hint})
	switch {
	case err != nil:
	case s.lines:
		_ = s.write(fmt.Sprintf("{%q: %s}\n", "error", data))
	default:
		_ = s.write(fmt.Sprintf("event: error\ndata: %s\n\n", data))
	}
}

// write sends a text at once. Who does not read it in time is cut off: it can go on where it was.
func (s *events) write(text string) error {
	if !s.begun {
		s.begun = true
		h := s.w.Header()
		h.Set("Content-Type", "application/x-ndjson")
		if !s.lines {
			h.Set("Content-Type", "text/event-stream")
			text = "retry: 2000\n\n" + text
		}
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no")
		h.Set("X-Content-Type-Options", "nosniff")
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(eventTime))
	if _, err := io.WriteString(s.w, text); err != nil {
		return err
	}
	return s.conn.Flush()
}
