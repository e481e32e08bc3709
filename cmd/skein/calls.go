package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

func (a *app) callsCmd() *cobra.Command {
	var user string
	var limit int
	list := func(cmd *cobra.Command, _ []string) error { return a.listCalls(cmd.Context(), user, limit) }
	cmd := &cobra.Command{Use: "calls", Short: "List calls, or look at one", Args: cobra.NoArgs, RunE: list}
	listCmd := &cobra.Command{Use: "list", Short: "List calls, newest first", Args: cobra.NoArgs, RunE: list}
	for _, c := range []*cobra.Command{cmd, listCmd} {
		c.Flags().StringVar(&user, "user", "", "only calls of this `user`'s functions")
		c.Flags().IntVar(&limit, "limit", 50, "how many; 0 for all")
	}

	get := a.oneCall("get", "Show a call's record", func(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error {
		resp, err := planner.GetCall(ctx, &plannerv1.GetCallRequest{CallId: id})
		if err != nil {
			return err
		}
		return a.printCall(resp.GetCall())
	})
	cancel := a.oneCall("cancel", "Ask for the end of a call", func(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error {
		resp, err := planner.CancelCall(ctx, &plannerv1.CancelCallRequest{CallId: id})
		if err != nil {
			return err
		}
		return a.printCall(resp.GetCall())
	})
	graph := a.oneCall("graph", "Draw a call and all that it called", a.graph)
	graph.Long = "Draw a call and all that it called, with sums over all of it in the last line."
	cmd.AddCommand(listCmd, get, a.watchCmd(), a.waitCmd(), cancel, graph)
	return cmd
}

func (a *app) waitCmd() *cobra.Command {
	var timeout time.Duration
	wait := a.oneCall("wait", "Wait for a call's end and print its output", func(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error {
		return a.wait(ctx, planner, id, timeout)
	})
	wait.Long = "Wait for a call's end and print its output; the exit code is as that of `skein invoke`."
	wait.Flags().DurationVar(&timeout, "timeout", 0, "give up waiting after this long; the call goes on (default never)")
	return wait
}

// oneCall is a command about one call.
func (a *app) oneCall(name, short string, run func(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " CALL", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := skein.ParseCallID(args[0])
			if err != nil {
				return err
			}
			planner, err := a.plannerClient()
			if err != nil {
				return err
			}
			return run(cmd.Context(), planner, id.String())
		},
	}
}

func (a *app) listCalls(ctx context.Context, user string, limit int) error {
	planner, err := a.plannerClient()
	if err != nil {
		return err
	}
	all := &plannerv1.ListCallsResponse{}
	err = pages(limit, func(size int32, token string) (int, page, error) {
		resp, err := planner.ListCalls(ctx, &plannerv1.ListCallsRequest{User: user, PageSize: size, PageToken: token})
		all.Calls = append(all.Calls, resp.GetCalls()...)
		all.NextPageToken = resp.GetNextPageToken()
		return len(resp.GetCalls()), resp, err
	})
	if err != nil {
		return err
	}
	return a.record(all, func(w *tabwriter.Writer) {
		row(w, "CALL", "FUNCTION", "STATE", "REASON", "QUEUED", "RUN", "AGE", "EXECUTOR", "PARENT")
		for _, c := range all.GetCalls() {
			row(w, c.GetCallId(), c.GetFunction(), stateName(c.GetState()), dash(c.GetReason()), span(c.GetQueueTime()),
				span(c.GetRunTime()), age(c.GetCreateTime()), dash(c.GetExecutor()), dash(c.GetParentId()))
		}
	})
}

func (a *app) printCall(c *callv1.Call) error {
	return a.record(c, func(w *tabwriter.Writer) {
		row(w, "call", c.GetCallId())
		row(w, "function", fmt.Sprintf("%s version %d", c.GetFunction(), c.GetVersion()))
		row(w, "state", stateName(c.GetState()))
		if c.GetReason() != "" {
			row(w, "reason", c.GetReason())
			row(w, "message", c.GetMessage())
		}
		if terminalState(c.GetState()) {
			row(w, "exit code", c.GetExitCode())
		}
		row(w, "created", moment(c.GetCreateTime()))
		row(w, "queued", span(c.GetQueueTime()))
		row(w, "ran", span(c.GetRunTime()))
		row(w, "cold start", c.GetColdStart())
		row(w, "attempt", attempts(c))
		if c.GetRetryTime() != nil {
			row(w, "next attempt", moment(c.GetRetryTime()))
		}
		row(w, "executor", dash(c.GetExecutor()))
		row(w, "CPU", span(c.GetCpuTime()))
		row(w, "memory", size(c.GetMemoryPeakBytes()))
		row(w, "input", size(c.GetInputBytes()))
		row(w, "output", size(c.GetOutputBytes()))
		row(w, "log", size(c.GetLogBytes()))
		row(w, "state bytes", transfer(c.GetStateReadBytes(), c.GetStateWrittenBytes()))
		row(w, "file bytes", transfer(c.GetFileReadBytes(), c.GetFileWrittenBytes()))
		row(w, "parent", dash(c.GetParentId()))
		row(w, "trace", dash(c.GetTraceId()))
		if c.GetDeadLetter() {
			row(w, "dead letter", "its input is kept: skein dead-letters redrive "+c.GetCallId())
		}
		if c.GetRedriveOf() != "" {
			row(w, "redrive of", c.GetRedriveOf())
		}
		if c.GetExpireTime() != nil {
			row(w, "kept until", moment(c.GetExpireTime()))
		}
	})
}

func attempts(c *callv1.Call) string {
	if c.GetMaxAttempts() == 0 {
		return fmt.Sprint(c.GetAttempt())
	}
	return fmt.Sprintf("%d of %d", c.GetAttempt(), c.GetMaxAttempts())
}

// transfer is how many bytes were read and written.
func transfer(read, written int64) string {
	if read == 0 && written == 0 {
		return "-"
	}
	return size(read) + " read, " + size(written) + " written"
}

// waitStep is how long one request waits: short enough for proxies on the way, long enough to be cheap.
const waitStep = 30 * time.Second

func (a *app) wait(ctx context.Context, planner plannerv1.PlannerServiceClient, id string, timeout time.Duration) error {
	began := time.Now()
	for {
		step := waitStep
		if timeout > 0 {
			step = min(step, timeout-time.Since(began))
		}
		resp, err := planner.WaitCall(ctx, &plannerv1.WaitCallRequest{CallId: id, Timeout: durationpb.New(max(step, time.Millisecond))})
		if err != nil {
			return err
		}
		call := resp.GetCall()
		if terminalState(call.GetState()) {
			return a.finish(call, resp.GetOutput())
		}
		if timeout > 0 && time.Since(began) >= timeout {
			return fault.Timeout.New("STILL_"+stateName(call.GetState()), "the call has not ended after %s", timeout).
				WithHint("it goes on; wait again, or end it with: skein calls cancel %s", id)
		}
	}
}

func stateName(s callv1.CallState) string { return strings.TrimPrefix(s.String(), "CALL_STATE_") }

func terminalState(s callv1.CallState) bool {
	return s >= callv1.CallState_CALL_STATE_SUCCEEDED && s <= callv1.CallState_CALL_STATE_TIMED_OUT
}

func span(d *durationpb.Duration) string {
	if d == nil {
		return "-"
	}
	return duration(d.AsDuration())
}

// splitRef cuts USER/REST at the first '/': a key or a path may hold more of them.
func splitRef(ref, what string) (user, rest string, err error) {
	user, rest, ok := strings.Cut(ref, "/")
	if !ok {
		return "", "", &exitError{exitUsage, errors.New("want USER/" + what + ", such as ann/" + strings.ToLower(what))}
	}
	return user, rest, nil
}
