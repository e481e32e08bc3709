package planner

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"skein.dev"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// toJournal is a record as the journal keeps it, but for its input, output and log.
func toJournal(r *Record) *plannerv1.JournalCall {
	return &plannerv1.JournalCall{
		Call: toCall(r), Args: r.Args, Trace: r.Trace, RequestId: r.RequestID, BodyHash: r.BodyHash[:], Sync: r.Sync,
		Timeout: durationpb.New(r.Timeout), RetryFailures: r.RetryFailures, GiveUpTime: toTime(r.GiveUp), ResultAge: durationpb.New(r.ResultAge),
		WebhookUrl: r.Webhook, Losses: r.Losses, Attempts: toAttempts(r.Attempts),
		ConfigDigest: digestBytes(&r.Version.Config),
	}
}

func toAttempts(all []Attempt) []*plannerv1.Attempt {
	var out []*plannerv1.Attempt
	for _, a := range all {
		out = append(out, &plannerv1.Attempt{
			Attempt: a.Number, Executor: a.Executor, Reason: a.Reason, Message: a.Message, StartTime: toTime(a.Started), EndTime: toTime(a.Ended),
		})
	}
	return out
}

func fromJournal(m *plannerv1.JournalCall) (*Record, error) {
	c := m.GetCall()
	r := &Record{
		Executor: c.GetExecutor(), Created: fromTime(c.GetCreateTime()), Started: fromTime(c.GetStartTime()), Ended: fromTime(c.GetEndTime()),
		Expires: fromTime(c.GetExpireTime()), InputSize: c.GetInputBytes(), OutputSize: c.GetOutputBytes(), LogSize: c.GetLogBytes(),
		Losses: m.GetLosses(), RetryAt: fromTime(c.GetRetryTime()), Dead: c.GetDeadLetter(),
	}
	var err error
	if r.ID, err = skein.ParseCallID(c.GetCallId()); err != nil {
		return nil, err
	}
	if r.Function, err = skein.ParseFunction(c.GetFunction()); err != nil {
		return nil, err
	}
	digest, err := skein.ParseDigest(c.GetDigest())
	if err != nil {
		return nil, err
	}
	if c.GetRedriveOf() != "" {
		if r.RedriveOf, err = skein.ParseCallID(c.GetRedriveOf()); err != nil {
			return nil, err
		}
	}
	r.Version = skein.Version{Function: r.Function, Number: c.GetVersion(), Digest: digest}
	copy(r.Version.Config[:], m.GetConfigDigest())
	r.Root, r.Args, r.Deadline, r.Attempt, r.Trace = r.ID, m.GetArgs(), fromTime(c.GetDeadline()), c.GetAttempt(), m.GetTrace()
	r.State = fromState(c.GetState())
	r.Result = skein.Result{
		State: r.State, ExitCode: c.GetExitCode(), Reason: c.GetReason(), Message: c.GetMessage(), Cold: c.GetColdStart(), Executor: c.GetExecutor(),
		Memory: c.GetMemoryPeakBytes(), CPU: c.GetCpuTime().AsDuration(), Traffic: skein.Traffic{
			StateRead: c.GetStateReadBytes(), StateWritten: c.GetStateWrittenBytes(), FileRead: c.GetFileReadBytes(), FileWritten: c.GetFileWrittenBytes(),
		},
	}
	r.Options = Options{
		RequestID: m.GetRequestId(), TraceID: c.GetTraceId(), Durable: true, Sync: m.GetSync(), Timeout: m.GetTimeout().AsDuration(),
		MaxAttempts: c.GetMaxAttempts(), RetryFailures: m.GetRetryFailures(), GiveUp: fromTime(m.GetGiveUpTime()), ResultAge: m.GetResultAge().AsDuration(),
		Webhook: m.GetWebhookUrl(), RedriveOf: r.RedriveOf,
	}
	copy(r.BodyHash[:], m.GetBodyHash())
	for _, a := range m.GetAttempts() {
		r.Attempts = append(r.Attempts, Attempt{
			a.GetAttempt(), a.GetExecutor(), a.GetReason(), a.GetMessage(), fromTime(a.GetStartTime()), fromTime(a.GetEndTime()),
		})
	}
	return r, nil
}

func fromState(wire callv1.CallState) skein.CallState {
	for state, w := range toState {
		if w == wire {
			return state
		}
	}
	return skein.Queued
}

func fromTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// visible copies a record as it may be shown: nobody is told of an end that the journal does not have.
func (r *Record) visible() *Record {
	c := *r
	if !c.Unsaved {
		return &c
	}
	c.Result = skein.Result{Log: r.Log}
	c.Ended, c.Expires, c.Unsaved, c.Dead, c.OutputSize, c.LogSize = time.Time{}, time.Time{}, false, false, 0, int64(len(r.Log))
	c.State = skein.Running
	if c.Started.IsZero() {
		c.State = skein.Queued
	}
	return &c
}

// whole tells whether output and log are in memory too.
func (r *Record) whole() bool {
	return !r.Durable || !r.State.Terminal() || int64(len(r.Output)) == r.OutputSize && int64(len(r.Log)) == r.LogSize
}
