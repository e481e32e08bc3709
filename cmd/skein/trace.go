package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skein.dev"
	"skein.dev/platform/fault"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

func (a *app) traceCmd() *cobra.Command {
	var byTrace bool
	cmd := &cobra.Command{
		Use: "trace CALL", Short: "Draw the spans of a call as a tree", Args: cobra.ExactArgs(1),
		Long: `Draw the spans of a call as a tree, with when each began, how long it took and a bar.
They are asked of Jaeger's query API v3, which "skein dev" has too. -v shows their attributes; -o json gives them as they came.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			traceID, ended := strings.ToLower(args[0]), time.Time{}
			if !byTrace {
				var err error
				if traceID, ended, err = a.traceOf(ctx, args[0]); err != nil {
					return err
				}
			}
			t, err := a.fetchTrace(ctx, traceID, ended)
			if err != nil {
				return err
			}
			if a.json() {
				if len(t.raw) == 1 {
					return a.printJSON(t.raw[0])
				}
				return a.printJSON(t.raw)
			}
			return a.drawTrace(t)
		},
	}
	traces, ok := os.LookupEnv("SKEIN_TRACES")
	if !ok {
		traces = ""
	}
	cmd.Flags().StringVar(&a.traces, "traces", traces, "`URL` of what has the traces (SKEIN_TRACES; default http://SERVER)")
	cmd.Flags().BoolVar(&byTrace, "trace-id", false, "the argument is the id of a trace, not of a call")
	return cmd
}

// traceOf asks the planner which trace a call is in, and when it ended.
func (a *app) traceOf(ctx context.Context, call string) (traceID string, ended time.Time, err error) {
	id, err := skein.ParseCallID(call)
	if err != nil {
		return "", time.Time{}, err
	}
	planner, err := a.plannerClient()
	if err != nil {
		return "", time.Time{}, err
	}
	resp, err := planner.GetCall(ctx, &plannerv1.GetCallRequest{CallId: id.String()})
	if err != nil {
		return "", time.Time{}, err
	}
	if resp.GetCall().GetTraceId() == "" {
		return "", time.Time{}, fault.Precondition.New("NO_TRACE", "call %s was not traced", id).
			WithHint("a planner of its own traces when OTEL_EXPORTER_OTLP_ENDPOINT is set")
	}
	if t := resp.GetCall().GetEndTime(); t != nil {
		ended = t.AsTime()
	}
	return resp.GetCall().GetTraceId(), ended, nil
}

// Spans arrive in batches, the default period of OpenTelemetry's exporters being five seconds: a trace that is not there
// yet, or has gaps, is asked for again for so long.
const (
	traceArrives  = 8 * time.Second
	traceComplete = 2 * time.Second
	traceAgain    = 250 * time.Millisecond
)

func (a *app) fetchTrace(ctx context.Context, id string, ended time.Time) (*trace, error) {
	began := time.Now()
	if ended.IsZero() || ended.Before(began.Add(-time.Minute)) {
		ended = began.Add(-traceArrives) // nothing more will come
	}
	for {
		t, err := a.getTrace(ctx, id)
		switch {
		case err == nil && (t.complete() || time.Since(began) > traceComplete || time.Since(ended) > traceArrives):
			return t, nil
		case err != nil && (!errors.Is(err, fault.NotFound) || time.Since(ended) > traceArrives):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(traceAgain):
		}
	}
}

func (a *app) getTrace(ctx context.Context, id string) (*trace, error) {
	base := a.traces
	if base == "" {
		base = a.server
	}
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	u := strings.TrimSuffix(base, "/") + "/api/v3/traces/" + url.PathEscape(id)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, usagef("--traces %q: %w", base, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if uerr, ok := errors.AsType[*url.Error](err); ok {
			err = uerr.Err
		}
		return nil, fault.Unavailable.New("UNREACHABLE", "the traces at %s can't be reached: %v", base, err).
			WithHint("name a Jaeger, or the address of a `skein dev`, with --traces")
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, traceError(resp, base, id)
	}
	return decodeTrace(id, resp.Body)
}

// traceError reads our problem document, or makes do with the status: Jaeger's errors have another form.
func traceError(resp *http.Response, base, id string) error {
	var p fault.Problem
	_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&p)
	kind := fault.Internal
	for _, k := range fault.Kinds() {
		if k.HTTP == resp.StatusCode {
			kind = k
			break
		}
	}
	if p.Reason != "" && p.Reason != "NO_ROUTE" {
		return &fault.Error{Kind: kind, Reason: p.Reason, Message: p.Detail, Hint: p.Hint}
	}
	if kind == fault.NotFound {
		return kind.New("NO_TRACE", "no trace %s at %s", id, base).WithHint("name where the traces are with --traces")
	}
	return kind.New("TRACES", "%s answered %s for trace %s", base, resp.Status, id)
}

// trace is what the query API gave.
type trace struct {
	id    string
	spans []*traceSpan
	raw   []json.RawMessage // each object as it came
}

// decodeTrace reads OTLP's JSON form. Jaeger may send one object after another, each with a part of the spans.
func decodeTrace(id string, r io.Reader) (*trace, error) {
	t := &trace{id: id}
	for dec := json.NewDecoder(r); ; {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("trace %s: %w", id, err)
		}
		var part struct {
			Result otlpTraces `json:"result"`
			Error  *struct {
				HTTPCode int    `json:"httpCode"`
				Message  string `json:"message"`
			} `json:"error"`
		}
		if err := json.Unmarshal(raw, &part); err != nil {
			return nil, fmt.Errorf("trace %s: %w", id, err)
		}
		if part.Error != nil {
			if part.Error.HTTPCode == http.StatusNotFound {
				return nil, fault.NotFound.New("NO_TRACE", "no trace %s: %s", id, part.Error.Message)
			}
			return nil, fault.Internal.New("TRACES", "trace %s: %s", id, part.Error.Message)
		}
		t.raw = append(t.raw, raw)
		t.spans = append(t.spans, part.Result.spans()...)
	}
	if len(t.spans) == 0 {
		return nil, fault.NotFound.New("NO_TRACE", "trace %s has no spans", id)
	}
	return t, nil
}

// complete reports whether every span's parent is here.
func (t *trace) complete() bool {
	known := map[spanID]bool{"": true}
	for _, s := range t.spans {
		known[s.ID] = true
	}
	for _, s := range t.spans {
		if !known[s.Parent] {
			return false
		}
	}
	return true
}
