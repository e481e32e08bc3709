package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

func (a *app) graph(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error {
	resp, err := planner.GetCallGraph(ctx, &plannerv1.GetCallGraphRequest{CallId: id})
	if err != nil {
		return err
	}
	return a.record(resp.GetRoot(), func(w *tabwriter.Writer) { drawGraph(w, resp.GetRoot()) })
}

func drawGraph(w io.Writer, root *plannerv1.CallNode) {
	row(w, "CALL", "ID", "STATE", "START", "QUEUED", "RUN", "CPU", "MEMORY", "IN", "OUT", "EXECUTOR")
	drawn := drawNode(w, root, "", "")
	t := root.GetTotals()
	if more := t.GetCalls() - int64(drawn); more > 0 {
		row(w, fmt.Sprintf("… and %d more", more))
	}
	state := fmt.Sprintf("%d failed", t.GetFailed())
	if t.GetAlive() > 0 {
		state += fmt.Sprintf(", %d alive", t.GetAlive())
	}
	row(w, fmt.Sprintf("all %d", t.GetCalls()), "", state, fmt.Sprintf("%d cold", t.GetColdStarts()), span(t.GetQueueTime()), span(t.GetRunTime()),
		span(t.GetCpuTime()), "at most "+size(t.GetMemoryPeakBytes()), size(t.GetInputBytes()), size(t.GetOutputBytes()), "")
}

// drawNode draws a call and those below it, and says how many they are.
func drawNode(w io.Writer, n *plannerv1.CallNode, lead, below string) int {
	c := n.GetCall()
	start, memory := "-", "-"
	if terminalState(c.GetState()) && c.GetStartTime() != nil {
		start, memory = "warm", size(c.GetMemoryPeakBytes())
		if c.GetColdStart() {
			start = "cold"
		}
	}
	row(w, lead+c.GetFunction(), c.GetCallId(), stateName(c.GetState()), start, span(c.GetQueueTime()), span(c.GetRunTime()), span(c.GetCpuTime()),
		memory, size(c.GetInputBytes()), size(c.GetOutputBytes()), dash(c.GetExecutor()))
	drawn := 1
	for i, child := range n.GetChildren() {
		if i == len(n.GetChildren())-1 {
			drawn += drawNode(w, child, below+"└─ ", below+"   ")
		} else {
			drawn += drawNode(w, child, below+"├─ ", below+"│  ")
		}
	}
	return drawn
}

func (a *app) whyCmd() *cobra.Command {
	cmd := a.oneCall("why", "Say what a call waits for", func(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error {
		resp, err := planner.GetCallWaits(ctx, &plannerv1.GetCallWaitsRequest{CallId: id})
		if err != nil {
			return err
		}
		return a.record(resp, func(w *tabwriter.Writer) { explainWait(w, resp, time.Now()) })
	})
	cmd.Long = "Say what a call waits for, since when and until when: a slot, calls that it made, or nothing."
	return cmd
}

func explainWait(w io.Writer, resp *plannerv1.GetCallWaitsResponse, now time.Time) {
	c := resp.GetCall()
	since := func(what string) { row(w, what, moment(resp.GetSince()), distance(now, resp.GetSince(), "%s ago")) }
	row(w, "call", c.GetCallId(), c.GetFunction())
	switch {
	case terminalState(c.GetState()):
		row(w, "waits for", "nothing: it has ended, "+stateName(c.GetState()), c.GetMessage())
		return
	case c.GetState() == callv1.CallState_CALL_STATE_QUEUED:
		row(w, "waits for", fmt.Sprintf("a slot: it is number %d in the queue", resp.GetQueuePosition()))
		since("since")
	case len(resp.GetChildren()) == 0:
		row(w, "waits for", "nothing: it runs on "+c.GetExecutor())
		since("runs since")
	default:
		row(w, "waits for", fmt.Sprintf("any of %d calls that it made", len(resp.GetChildren())))
		since("since")
	}
	row(w, "until", moment(resp.GetUntil()), distance(now, resp.GetUntil(), "in %s"))
	if len(resp.GetChildren()) == 0 {
		return
	}
	row(w)
	row(w, "CALL", "FUNCTION", "STATE", "EXECUTOR", "AGE")
	for _, child := range resp.GetChildren() {
		row(w, child.GetCallId(), child.GetFunction(), stateName(child.GetState()), dash(child.GetExecutor()), age(child.GetCreateTime()))
	}
}

// distance says how far off a time is.
func distance(now time.Time, t *timestamppb.Timestamp, form string) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf(form, duration(now.Sub(t.AsTime()).Abs()))
}
