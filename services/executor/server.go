package executor

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	executorv1 "skein.dev/proto/skein/executor/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// server speaks proto for the executor; attach.go does on the standing stream.
type server struct {
	executorv1.UnimplementedExecutorServiceServer
	e *Executor
}

func (s *server) Run(ctx context.Context, r *executorv1.RunRequest) (*executorv1.RunResponse, error) {
	call, err := fromAssignment(r.GetAssignment())
	if err != nil {
		return nil, err
	}
	call.Parent, call.Root, call.Depth = skein.CallID{}, call.ID, 0 // it has no place in a tree
	res, err := s.e.runDirect(ctx, call)
	if err != nil {
		return nil, err
	}
	return &executorv1.RunResponse{Outcome: toOutcome(&call, &res)}, nil
}

func (s *server) GetStatus(context.Context, *executorv1.GetStatusRequest) (*executorv1.GetStatusResponse, error) {
	resp := &executorv1.GetStatusResponse{
		ExecutorId: s.e.name, Slots: int32(s.e.slots.size), SlotsUsed: int32(s.e.slots.used()), MemoryBytes: s.e.memory,
		MemoryUsedBytes: s.e.machine.MemoryInUse(), Attached: s.e.attached.Load(),
	}
	for d := range s.e.modules.digests() {
		resp.Modules = append(resp.Modules, d.String())
	}
	return resp, nil
}

func fromAssignment(a *callv1.Assignment) (skein.Call, error) {
	f, err := skein.NewFunction(a.GetUser(), a.GetFunction())
	if err != nil {
		return skein.Call{}, err
	}
	timeout := a.GetTimeout().AsDuration()
	switch {
	case len(a.GetCallId()) != len(skein.CallID{}), !idOrNone(a.GetParentId()), !idOrNone(a.GetRootId()):
		return skein.Call{}, fault.Invalid.New("BAD_ASSIGNMENT", "a call id has 16 bytes, not %d", len(a.GetCallId()))
	case len(a.GetDigest()) != len(skein.Digest{}):
		return skein.Call{}, fault.Invalid.New("BAD_ASSIGNMENT", "a digest has 32 bytes, not %d", len(a.GetDigest()))
	case len(a.GetConfigDigest()) != 0 && len(a.GetConfigDigest()) != len(skein.Digest{}):
		return skein.Call{}, fault.Invalid.New("BAD_ASSIGNMENT", "a configuration's digest has 32 bytes, not %d", len(a.GetConfigDigest()))
	case timeout > skein.MaxTimeout:
		return skein.Call{}, fault.Invalid.New("BAD_TIMEOUT", "a timeout of %s is more than %s", timeout, skein.MaxTimeout)
	case len(a.GetInput()) > skein.MaxPayload:
		return skein.Call{}, fault.TooLarge.New("TOO_LARGE", "the input has %d bytes, at most %d are allowed", len(a.GetInput()), skein.MaxPayload)
	}
	id, root := skein.CallID(a.GetCallId()), skein.CallID(padded(a.GetRootId()))
	if root.IsZero() {
		root = id
	}
	version := skein.Version{Function: f, Number: a.GetVersion(), Digest: skein.Digest(a.GetDigest())}
	copy(version.Config[:], a.GetConfigDigest())
	return skein.Call{
		ID: id, Function: f, Version: version, Parent: skein.CallID(padded(a.GetParentId())), Root: root, Depth: a.GetDepth(), Entry: a.Entry,
		Input: a.GetInput(), Args: a.GetArgs(), Deadline: time.Now().Add(timeout), Attempt: a.GetAttempt(), Trace: a.GetTrace(),
	}, nil
}

func idOrNone(id []byte) bool { return len(id) == 0 || len(id) == len(skein.CallID{}) }

// padded makes an id that may be missing convertible.
func padded(id []byte) []byte {
	if len(id) != len(skein.CallID{}) {
		return make([]byte, len(skein.CallID{}))
	}
	return id
}

var toState = map[skein.CallState]callv1.CallState{
	skein.Succeeded: callv1.CallState_CALL_STATE_SUCCEEDED,
	skein.Failed:    callv1.CallState_CALL_STATE_FAILED,
	skein.Cancelled: callv1.CallState_CALL_STATE_CANCELLED,
	skein.TimedOut:  callv1.CallState_CALL_STATE_TIMED_OUT,
}

func toOutcome(call *skein.Call, r *skein.Result) *callv1.Outcome {
	return &callv1.Outcome{
		CallId: call.ID[:], Attempt: call.Attempt, State: toState[r.State], ExitCode: r.ExitCode, Reason: r.Reason,
		Message: r.Message, Output: r.Output, Log: r.Log, ColdStart: r.Cold, RunTime: durationpb.New(r.Ended.Sub(r.Started)),
		MemoryPeakBytes: r.Memory, CpuTime: durationpb.New(r.CPU), Executor: r.Executor,
		StateReadBytes: r.StateRead, StateWrittenBytes: r.StateWritten, FileReadBytes: r.FileRead, FileWrittenBytes: r.FileWritten,
	}
}

// fromOutcome reads what matters to a parent.
func fromOutcome(o *callv1.Outcome) *skein.Result {
	res := &skein.Result{State: skein.Failed, ExitCode: o.GetExitCode(), Reason: o.GetReason(), Message: o.GetMessage(), Output: o.GetOutput()}
	for state, wire := range toState {
		if wire == o.GetState() {
			res.State = state
		}
	}
	return res
}

func toSpawn(s *spawn) *plannerv1.Spawn {
	c := &s.call
	return &plannerv1.Spawn{
		CallId: c.ID[:], ParentId: c.Parent[:], Function: c.Function.Name, Input: c.Input, Entry: c.Entry, Started: s.started,
		Timeout: durationpb.New(time.Until(c.Deadline)), Trace: c.Trace, Known: s.known,
	}
}

func toWait(r *run) *plannerv1.Wait {
	out := &plannerv1.Wait{CallId: r.call.ID[:]}
	for _, k := range r.awaits {
		out.ChildIds = append(out.ChildIds, k.id[:])
	}
	if !r.until.IsZero() && r.awaits != nil {
		out.Timeout = durationpb.New(time.Until(r.until))
	}
	return out
}
