package planner

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

var toState = map[skein.CallState]callv1.CallState{
	skein.Queued:    callv1.CallState_CALL_STATE_QUEUED,
	skein.Running:   callv1.CallState_CALL_STATE_RUNNING,
	skein.Succeeded: callv1.CallState_CALL_STATE_SUCCEEDED,
	skein.Failed:    callv1.CallState_CALL_STATE_FAILED,
	skein.Cancelled: callv1.CallState_CALL_STATE_CANCELLED,
	skein.TimedOut:  callv1.CallState_CALL_STATE_TIMED_OUT,
}

func toAssignment(r *Record) *callv1.Assignment {
	return &callv1.Assignment{
		CallId: r.ID[:], User: string(r.Function.User), Function: r.Function.Name, Version: r.Version.Number,
		Digest: r.Version.Digest[:], Input: r.Input, Args: r.Args, Timeout: durationpb.New(time.Until(r.Deadline)),
		Attempt: r.Attempt, Trace: r.Trace, ParentId: idBytes(r.Parent), RootId: r.Root[:],
		Depth: r.Depth, Entry: r.Entry, Keep: r.Durable,
		ConfigDigest: digestBytes(&r.Version.Config),
	}
}

// toOutcome is a call's end as its parent's executor is told it; the log is for people.
func toOutcome(r *Record) *callv1.Outcome {
	return &callv1.Outcome{
		CallId: r.ID[:], Attempt: r.Attempt, State: toState[r.State], ExitCode: r.ExitCode, Reason: r.Reason, Message: r.Message,
		Output: r.Output, ColdStart: r.Cold, MemoryPeakBytes: r.Memory, Executor: r.Executor, CpuTime: durationpb.New(r.CPU),
	}
}

// toID reads a call's id; an executor that sends another thing is not one of ours.
func toID(wire []byte) (skein.CallID, error) {
	if len(wire) != len(skein.CallID{}) {
		return skein.CallID{}, fault.Invalid.New("BAD_CALL_ID", "a call's id has %d bytes, not %d", len(wire), len(skein.CallID{}))
	}
	return skein.CallID(wire), nil
}

func toIDs(wire [][]byte) ([]skein.CallID, error) {
	ids := make([]skein.CallID, len(wire))
	for i, w := range wire {
		id, err := toID(w)
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	return ids, nil
}

// fromSpawn reads a call that a call made. What its guest got wrong is in Refuse; an error is the executor's.
func fromSpawn(now time.Time, w *plannerv1.Spawn) (Spawn, error) {
	id, err := toID(w.GetCallId())
	if err != nil {
		return Spawn{}, err
	}
	parent, err := toID(w.GetParentId())
	if err != nil {
		return Spawn{}, err
	}
	s := Spawn{
		ID: id, Parent: parent, Function: w.GetFunction(), Input: w.GetInput(), Args: w.GetArgs(), Entry: w.Entry, Started: w.GetStarted(),
		Trace: w.GetTrace(), Known: w.GetKnown(),
	}
	if w.GetTimeout() != nil {
		s.Deadline = now.Add(w.GetTimeout().AsDuration())
	}
	q := Request{Input: s.Input, Args: s.Args}
	if err := q.check(); err != nil {
		s.Refuse = fault.From(err)
	} else if _, err := skein.NewFunction("u", s.Function); s.Entry == nil && err != nil {
		s.Refuse = fault.From(err)
	}
	return s, nil
}

// fromRunning reads what an executor still has.
func fromRunning(wire []*plannerv1.Running) ([]Kept, error) {
	var kept []Kept
	for _, w := range wire {
		id, err := toID(w.GetCallId())
		if err != nil {
			return nil, err
		}
		kept = append(kept, Kept{id, w.GetAttempt()})
	}
	return kept, nil
}

func fromWait(w *plannerv1.Wait) (Wait, error) {
	id, err := toID(w.GetCallId())
	if err != nil {
		return Wait{}, err
	}
	children, err := toIDs(w.GetChildIds())
	return Wait{ID: id, Children: children, Timeout: w.GetTimeout().AsDuration()}, err
}

func fromOutcome(o *callv1.Outcome) (skein.CallID, skein.Result, error) {
	id, err := toID(o.GetCallId())
	if err != nil {
		return id, skein.Result{}, err
	}
	res := skein.Result{
		Output: o.GetOutput(), ExitCode: o.GetExitCode(), Reason: o.GetReason(), Message: o.GetMessage(), Log: o.GetLog(),
		Cold: o.GetColdStart(), Memory: o.GetMemoryPeakBytes(), CPU: o.GetCpuTime().AsDuration(),
		Traffic: skein.Traffic{
			StateRead: o.GetStateReadBytes(), StateWritten: o.GetStateWrittenBytes(), FileRead: o.GetFileReadBytes(), FileWritten: o.GetFileWrittenBytes(),
		},
	}
	for state, wire := range toState {
		if wire == o.GetState() && state.Terminal() {
			res.State = state
			return id, res, nil
		}
	}
	return id, res, fault.Invalid.New("BAD_OUTCOME", "an outcome of call %s has state %s, which is not an end", id, o.GetState())
}

func toDigests(wire [][]byte) []skein.Digest {
	out := make([]skein.Digest, 0, len(wire))
	for _, w := range wire {
		if len(w) == len(skein.Digest{}) {
			out = append(out, skein.Digest(w))
		}
	}
	return out
}

func toCall(r *Record) *callv1.Call {
	c := &callv1.Call{
		CallId: r.ID.String(), Function: r.Function.String(), Version: r.Version.Number, Digest: r.Version.Digest.String(),
		State: toState[r.State], ParentId: idText(r.Parent), ExitCode: r.ExitCode, Reason: r.Reason, Message: r.Message,
		Attempt: r.Attempt, Executor: r.Executor, ColdStart: r.Cold, TraceId: r.TraceID, CreateTime: toTime(r.Created),
		StartTime: toTime(r.Started), EndTime: toTime(r.Ended), Deadline: toTime(r.Deadline), ExpireTime: toTime(r.Expires),
		MemoryPeakBytes: r.Memory, InputBytes: r.InputSize, OutputBytes: r.OutputSize, LogBytes: max(r.LogSize, int64(len(r.Log))),
		StateReadBytes: r.StateRead, StateWrittenBytes: r.StateWritten, FileReadBytes: r.FileRead, FileWrittenBytes: r.FileWritten,
		MaxAttempts: r.MaxAttempts, RetryTime: toTime(r.RetryAt), DeadLetter: r.Dead, RedriveOf: idText(r.RedriveOf),
		RootId: r.Root.String(), Depth: r.Depth,
	}
	if !r.Started.IsZero() {
		c.QueueTime = durationpb.New(r.queued())
		if !r.Ended.IsZero() {
			c.RunTime, c.CpuTime = durationpb.New(r.ran()), durationpb.New(r.CPU)
		}
	}
	return c
}

// toTarget reads what a function is.
func toTarget(f skein.Function, w *uploadv1.Function) (Target, error) {
	current, version := w.GetCurrent(), skein.Version{Function: f, Number: w.GetCurrent().GetNumber()}
	var err error
	if version.Digest, err = skein.ParseDigest(current.GetDigest()); err != nil {
		return Target{}, err
	}
	if w.GetConfigDigest() != "" {
		if version.Config, err = skein.ParseDigest(w.GetConfigDigest()); err != nil {
			return Target{}, err
		}
	}
	return Target{version, fromConfig(w.GetConfig()), chains(current.GetImports())}, nil
}

// fromConfig reads how a function's calls are treated; upload has checked it.
func fromConfig(c *uploadv1.FunctionConfig) Settings {
	return Settings{
		Timeout: c.GetTimeout().AsDuration(), MaxAttempts: c.GetMaxAttempts(), RetryFailures: c.GetRetryFailures(),
		ResultAge: c.GetResultAge().AsDuration(), Webhook: c.GetWebhookUrl(),
	}
}

// toEvent is what a watcher is told; nil for one that only says that the watch stands.
func toEvent(e Event) *plannerv1.WatchCallResponse {
	switch {
	case e.Call != nil:
		return &plannerv1.WatchCallResponse{Attempt: e.Attempt, Event: &plannerv1.WatchCallResponse_Call{Call: toCall(e.Call)}}
	case e.Log != nil:
		return &plannerv1.WatchCallResponse{Attempt: e.Attempt, Event: &plannerv1.WatchCallResponse_Log{
			Log: &plannerv1.LogChunk{Offset: e.Offset, Data: e.Log},
		}}
	}
	return nil
}

func toDeadLetter(r *Record) *plannerv1.DeadLetter {
	return &plannerv1.DeadLetter{Call: toCall(r), Input: r.Input, Args: r.Args, Attempts: toAttempts(r.Attempts)}
}

func toExecutor(e Executor) *plannerv1.Executor {
	return &plannerv1.Executor{
		ExecutorId: e.ID, Slots: int32(e.Slots), SlotsUsed: int32(e.Used), MemoryBytes: e.Memory, MemoryUsedBytes: e.MemoryUsed,
		AttachTime: toTime(e.Attached), LastHeartbeatTime: toTime(e.LastHeard), Draining: e.Draining(), Marked: e.Marked, Modules: int32(e.Modules), Address: e.Address,
		DirectSlots: int32(e.Direct),
	}
}

func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func idBytes(id skein.CallID) []byte {
	if id.IsZero() {
		return nil
	}
	return id[:]
}

// digestBytes are none for no digest.
func digestBytes(d *skein.Digest) []byte {
	if d.IsZero() {
		return nil
	}
	return d[:]
}

func digestText(d skein.Digest) string {
	if d.IsZero() {
		return ""
	}
	return d.String()
}

func idText(id skein.CallID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}
