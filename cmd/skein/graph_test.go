package main

import (
	"bytes"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

func drawn(draw func(w *tabwriter.Writer)) []string {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	draw(w)
	_ = w.Flush()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	return lines
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestGraph(t *testing.T) {
	node := func(id, function string, state callv1.CallState, cold bool, children ...*plannerv1.CallNode) *plannerv1.CallNode {
		return &plannerv1.CallNode{Children: children, Call: &callv1.Call{
			CallId: id, Function: function, State: state, ColdStart: cold, Executor: "x", StartTime: timestamppb.Now(),
			QueueTime: durationpb.New(time.Millisecond), RunTime: durationpb.New(time.Second), CpuTime: durationpb.New(0),
			MemoryPeakBytes: 1 << 16, InputBytes: 1, OutputBytes: 2, StateReadBytes: 2048,
		}}
	}
	const ok, running = callv1.CallState_CALL_STATE_SUCCEEDED, callv1.CallState_CALL_STATE_RUNNING
	root := node("1", "ann/a", ok, true, node("2", "ann/b", ok, false, node("3", "ann/c", running, false)), node("4", "ann/\x1b[2J", ok, false))
	root.Totals = &plannerv1.CallTotals{
		Calls: 6, Alive: 1, Failed: 2, ColdStarts: 1, QueueTime: durationpb.New(4 * time.Millisecond),
		RunTime: durationpb.New(3 * time.Second), CpuTime: durationpb.New(0), MemoryPeakBytes: 1 << 16, InputBytes: 4, OutputBytes: 8, StateReadBytes: 8192, FileWrittenBytes: 3,
	}
	wantLines(t, drawn(func(w *tabwriter.Writer) { drawGraph(w, root) }),
		"CALL ID STATE START QUEUED RUN CPU MEMORY IN OUT STATE R/W FILES R/W EXECUTOR",
		"ann/a 1 SUCCEEDED cold 1.0 ms 1.00 s 0 µs 64.0 KiB 1 B 2 B 2.0 KiB/0 B - x",
		"├─ ann/b 2 SUCCEEDED warm 1.0 ms 1.00 s 0 µs 64.0 KiB 1 B 2 B 2.0 KiB/0 B - x",
		"│ └─ ann/c 3 RUNNING - 1.0 ms 1.00 s 0 µs - 1 B 2 B 2.0 KiB/0 B - x",
		`"└─ ann/\x1b[2J" 4 SUCCEEDED warm 1.0 ms 1.00 s 0 µs 64.0 KiB 1 B 2 B 2.0 KiB/0 B - x`,
		"… and 2 more",
		"all 6 2 failed, 1 alive 1 cold 4.0 ms 3.00 s 0 µs at most 64.0 KiB 4 B 8 B 8.0 KiB/0 B 0 B/3 B")
}

func TestWhy(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.Local)
	at := func(s int) *timestamppb.Timestamp { return timestamppb.New(now.Add(time.Duration(s) * time.Second)) }
	say := func(resp *plannerv1.GetCallWaitsResponse) []string {
		return drawn(func(w *tabwriter.Writer) { explainWait(w, resp, now) })
	}
	call := func(state callv1.CallState) *callv1.Call {
		return &callv1.Call{CallId: "1", Function: "ann/a", State: state, Executor: "x", Message: "why not"}
	}
	wantLines(t, say(&plannerv1.GetCallWaitsResponse{Call: call(callv1.CallState_CALL_STATE_QUEUED), WaitsFor: plannerv1.WaitsFor_WAITS_FOR_SLOT, QueuePosition: 3, Since: at(-2), Until: at(5)}),
		"call 1 ann/a", "waits for a slot: it is number 3 in the queue", "since 2026-01-01 11:59:58 2.00 s ago", "until 2026-01-01 12:00:05 in 5.00 s")
	wantLines(t, say(&plannerv1.GetCallWaitsResponse{Call: call(callv1.CallState_CALL_STATE_RUNNING), WaitsFor: plannerv1.WaitsFor_WAITS_FOR_NOTHING, Since: at(-2), Until: at(5)}),
		"call 1 ann/a", "waits for nothing: it runs on x", "runs since 2026-01-01 11:59:58 2.00 s ago", "until 2026-01-01 12:00:05 in 5.00 s")
	wantLines(t, say(&plannerv1.GetCallWaitsResponse{
		Call: call(callv1.CallState_CALL_STATE_RUNNING), WaitsFor: plannerv1.WaitsFor_WAITS_FOR_CHILDREN, Since: at(-2), Until: at(5),
		Children: []*callv1.Call{{CallId: "2", Function: "ann/b", State: callv1.CallState_CALL_STATE_QUEUED}},
	}),
		"call 1 ann/a", "waits for any of 1 calls that it made", "since 2026-01-01 11:59:58 2.00 s ago", "until 2026-01-01 12:00:05 in 5.00 s",
		"", "CALL FUNCTION STATE EXECUTOR AGE", "2 ann/b QUEUED - -")
	wantLines(t, say(&plannerv1.GetCallWaitsResponse{Call: call(callv1.CallState_CALL_STATE_FAILED)}),
		"call 1 ann/a", "waits for nothing: it has ended, FAILED why not")
	retry := call(callv1.CallState_CALL_STATE_QUEUED)
	retry.Attempt, retry.MaxAttempts = 2, 3
	wantLines(t, say(&plannerv1.GetCallWaitsResponse{
		Call: retry, WaitsFor: plannerv1.WaitsFor_WAITS_FOR_RETRY, Since: at(-2), Until: at(5),
		Attempts: []*plannerv1.Attempt{{Attempt: 1, Executor: "x", Reason: "EXECUTOR_LOST", Message: "gone", StartTime: at(-3), EndTime: at(-2)}},
	}),
		"call 1 ann/a", "waits for its attempt 2 of 3 to begin", "since 2026-01-01 11:59:58 2.00 s ago", "until 2026-01-01 12:00:05 in 5.00 s",
		"", "ATTEMPT EXECUTOR REASON RAN MESSAGE", "1 x EXECUTOR_LOST 1.00 s gone")
	wantLines(t, say(&plannerv1.GetCallWaitsResponse{
		Call: call(callv1.CallState_CALL_STATE_RUNNING), WaitsFor: plannerv1.WaitsFor_WAITS_FOR_EXECUTOR, Since: at(-2), Until: at(5),
	}),
		"call 1 ann/a", "waits for its executor x, which was cut off, to come back", "since 2026-01-01 11:59:58 2.00 s ago", "until 2026-01-01 12:00:05 in 5.00 s")
}
