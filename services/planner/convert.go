package planner

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
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
		Attempt: r.Attempt, Trace: r.Trace, ParentId: idBytes(r.Parent),
	}
}

func fromOutcome(o *callv1.Outcome) (skein.CallID, skein.Result, error) {
	var id skein.CallID
	if n := copy(id[:], o.GetCallId()); n != len(id) || n != len(o.GetCallId()) {
		return id, skein.Result{}, fault.Invalid.New("BAD_OUTCOME", "an outcome names no call")
	}
	res := skein.Result{
		Output: o.GetOutput(), ExitCode: o.GetExitCode(), Reason: o.GetReason(), Message: o.GetMessage(), Log: o.GetLog(),
		Cold: o.GetColdStart(), Memory: o.GetMemoryPeakBytes(), CPU: o.GetCpuTime().AsDuration(),
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
		MemoryPeakBytes: r.Memory, InputBytes: r.InputSize, OutputBytes: int64(len(r.Output)), LogBytes: int64(len(r.Log)),
	}
	if !r.Started.IsZero() {
		c.QueueTime = durationpb.New(r.Started.Sub(r.Created))
		if !r.Ended.IsZero() {
			c.RunTime, c.CpuTime = durationpb.New(r.Ended.Sub(r.Started)), durationpb.New(r.CPU)
		}
	}
	return c
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

func idText(id skein.CallID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}
