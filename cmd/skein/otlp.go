package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The part of OTLP's JSON form that a tree needs. Writers differ, so each type reads all that is found: ids as
// hexadecimal digits (OTLP's own rule, Jaeger) or base64 (protojson's, `skein dev`), 64-bit numbers with and without
// quotes, enums as names or numbers.

type otlpTraces struct {
	ResourceSpans []struct {
		Resource struct {
			Attributes []otlpAttr `json:"attributes"`
		} `json:"resource"`
		ScopeSpans []struct {
			Spans []*traceSpan `json:"spans"`
		} `json:"scopeSpans"`
	} `json:"resourceSpans"`
}

// traceSpan is one span and the service it came from.
type traceSpan struct {
	ID     spanID      `json:"spanId"`
	Parent spanID      `json:"parentSpanId"`
	Name   string      `json:"name"`
	Start  nanos       `json:"startTimeUnixNano"`
	End    nanos       `json:"endTimeUnixNano"`
	Attrs  []otlpAttr  `json:"attributes"`
	Events []spanEvent `json:"events"`
	Status struct {
		Code    statusCode `json:"code"`
		Message string     `json:"message"`
	} `json:"status"`

	Service string `json:"-"`
}

type spanEvent struct {
	Time  nanos      `json:"timeUnixNano"`
	Name  string     `json:"name"`
	Attrs []otlpAttr `json:"attributes"`
}

type otlpAttr struct {
	Key   string                     `json:"key"`
	Value map[string]json.RawMessage `json:"value"` // one member, named by its type
}

func (t *otlpTraces) spans() []*traceSpan {
	var all []*traceSpan
	for _, rs := range t.ResourceSpans {
		service := ""
		for _, attr := range rs.Resource.Attributes {
			if attr.Key == "service.name" {
				service = attr.text()
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				s.Service = service
				all = append(all, s)
			}
		}
	}
	return all
}

func (s *traceSpan) duration() time.Duration { return time.Duration(s.End - s.Start) }

func (a otlpAttr) text() string {
	for _, raw := range a.Value {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s
		}
		return string(raw)
	}
	return ""
}

func (a otlpAttr) String() string { return a.Key + "=" + a.text() }

// spanID is 16 hexadecimal digits, or "" for none.
type spanID string

func (id *spanID) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	const digits = 16 // base64 of eight bytes has 12
	if len(s) != digits {
		raw, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return fmt.Errorf("span id %.40q: %w", s, err)
		}
		s = hex.EncodeToString(raw)
	}
	if strings.Trim(s, "0") == "" {
		s = "" // Jaeger's way to say none
	}
	*id = spanID(strings.ToLower(s))
	return nil
}

// nanos is a time in nanoseconds since 1970.
type nanos int64

func (n *nanos) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	*n = nanos(v)
	return err
}

// statusCode is whether a span says that it failed.
type statusCode bool

func (c *statusCode) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	*c = s == "2" || s == "STATUS_CODE_ERROR"
	return nil
}
