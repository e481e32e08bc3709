package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

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
	row(w, "CALL", "ID", "STATE", "START", "QUEUED", "RUN", "CPU", "MEMORY", "IN", "OUT", "STATE R/W", "FILES R/W", "EXECUTOR")
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
		span(t.GetCpuTime()), "at most "+size(t.GetMemoryPeakBytes()), size(t.GetInputBytes()), size(t.GetOutputBytes()),
		bothWays(t.GetStateReadBytes(), t.GetStateWrittenBytes()), bothWays(t.GetFileReadBytes(), t.GetFileWrittenBytes()), "")
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
		memory, size(c.GetInputBytes()), size(c.GetOutputBytes()), bothWays(c.GetStateReadBytes(), c.GetStateWrittenBytes()),
		bothWays(c.GetFileReadBytes(), c.GetFileWrittenBytes()), dash(c.GetExecutor()))
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

// bothWays is how many bytes were read and written, in one cell.
func bothWays(read, written int64) string {
	if read == 0 && written == 0 {
		return "-"
	}
	return size(read) + "/" + size(written)
}

func (a *app) whyCmd() *cobra.Command {
	cmd := a.oneCall("why", "Say what a call waits for", func(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error {
		resp, err := planner.GetCallWaits(ctx, &plannerv1.GetCallWaitsRequest{CallId: id})
		if err != nil {
			return err
		}
		return a.record(resp, func(w *tabwriter.Writer) { explainWait(w, resp, time.Now()) })
	})
	cmd.Long = "Say what a call waits for, since when and until when: a slot, calls that it made, its next attempt, its executor, the journal,\nor nothing. The attempts that failed are listed."
	return cmd
}

func explainWait(w io.Writer, resp *plannerv1.GetCallWaitsResponse, now time.Time) {
	c := resp.GetCall()
	since := func(what string) { row(w, what, moment(resp.GetSince()), distance(now, resp.GetSince(), "%s ago")) }
	row(w, "call", c.GetCallId(), c.GetFunction())
	if terminalState(c.GetState()) {
		row(w, "waits for", "nothing: it has ended, "+stateName(c.GetState()), c.GetMessage())
		drawAttempts(w, resp.GetAttempts())
		return
	}
	row(w, "waits for", waitsFor(resp))
	if resp.GetWaitsFor() == plannerv1.WaitsFor_WAITS_FOR_NOTHING {
		since("runs since")
	} else {
		since("since")
	}
	row(w, "until", moment(resp.GetUntil()), distance(now, resp.GetUntil(), "in %s"))
	drawAttempts(w, resp.GetAttempts())
	if len(resp.GetChildren()) == 0 {
		return
	}
	row(w)
	row(w, "CALL", "FUNCTION", "STATE", "EXECUTOR", "AGE")
	for _, child := range resp.GetChildren() {
		row(w, child.GetCallId(), child.GetFunction(), stateName(child.GetState()), dash(child.GetExecutor()), age(child.GetCreateTime()))
	}
}

func waitsFor(resp *plannerv1.GetCallWaitsResponse) string {
	c := resp.GetCall()
	switch resp.GetWaitsFor() {
	case plannerv1.WaitsFor_WAITS_FOR_SLOT:
		return fmt.Sprintf("a slot: it is number %d in the queue", resp.GetQueuePosition())
	case plannerv1.WaitsFor_WAITS_FOR_CHILDREN:
		return fmt.Sprintf("any of %d calls that it made", len(resp.GetChildren()))
	case plannerv1.WaitsFor_WAITS_FOR_RETRY:
		return fmt.Sprintf("its attempt %s to begin", attempts(c))
	case plannerv1.WaitsFor_WAITS_FOR_EXECUTOR:
		if c.GetExecutor() == "" {
			return "the executor that may have had it when the planner started anew: it may come back"
		}
		return "its executor " + c.GetExecutor() + ", which was cut off, to come back"
	case plannerv1.WaitsFor_WAITS_FOR_JOURNAL:
		return "the journal to have what became of it"
	}
	return "nothing: it runs on " + c.GetExecutor()
}

func drawAttempts(w io.Writer, all []*plannerv1.Attempt) {
	if len(all) == 0 {
		return
	}
	row(w)
	row(w, "ATTEMPT", "EXECUTOR", "REASON", "RAN", "MESSAGE")
	for _, at := range all {
		ran := "-"
		if at.GetStartTime() != nil && at.GetEndTime() != nil {
			ran = duration(at.GetEndTime().AsTime().Sub(at.GetStartTime().AsTime()))
		}
		row(w, at.GetAttempt(), dash(at.GetExecutor()), dash(at.GetReason()), ran, at.GetMessage())
	}
}

// distance says how far off a time is.
func distance(now time.Time, t *timestamppb.Timestamp, form string) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf(form, duration(now.Sub(t.AsTime()).Abs()))
}
