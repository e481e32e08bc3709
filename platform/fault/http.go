package fault

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Problem is the body of an error over REST: RFC 9457's application/problem+json.
type Problem struct {
	Type     string `json:"type"` // always "about:blank": reason tells one from another
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	Instance string `json:"instance,omitempty"` // the call, as /v1/calls/ID
	Reason   string `json:"reason"`
	Hint     string `json:"hint,omitempty"`
	TraceID  string `json:"trace_id,omitempty"`
}

// WriteProblem answers a REST request with err. instance and traceID may be empty.
func WriteProblem(w http.ResponseWriter, err error, instance, traceID string) {
	e := From(err)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Del("Content-Length")
	h.Set("X-Content-Type-Options", "nosniff")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(e.Kind.HTTP)
	_ = json.NewEncoder(w).Encode(Problem{
		Type: "about:blank", Title: e.Kind.Text, Status: e.Kind.HTTP, Detail: e.Message, Instance: instance,
		Reason: e.Reason, Hint: e.Hint, TraceID: traceID,
	})
}

// FromProblem is the error that a REST answer of another service stands for. What is no problem document of ours is judged
// by its status alone.
func FromProblem(status int, body []byte) *Error {
	var p Problem
	if json.Unmarshal(body, &p) != nil || p.Status != status || p.Reason == "" {
		p = Problem{Detail: http.StatusText(status)}
	}
	e := &Error{Kind: Internal, Reason: p.Reason, Message: p.Detail, Hint: p.Hint}
	for _, k := range Kinds() {
		if k.Text == p.Title || p.Title == "" && k.HTTP == status {
			e.Kind = k
			break
		}
	}
	if e.Reason == "" {
		e.Reason = reasonOf(e.Kind.Code)
	}
	return e
}
