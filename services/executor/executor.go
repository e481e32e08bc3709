// Package executor runs calls on this machine. Calls come down the standing stream it holds with the planner (attach.go);
// Run loads the function's module (modules.go), makes an instance (internal/machine), gives it the host interface
// (internal/host) and reports how it ended.
package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/shared"
	"skein.dev/services/executor/internal/vfs"
)

// tracer is looked up at each use: a variable would stay with the first provider of the process.
func tracer() trace.Tracer { return otel.Tracer("skein.dev/services/executor") }

// Executor runs calls, each in an instance of its own, at most as many at a time as it has slots.
type Executor struct {
	name     string
	log      *slog.Logger
	machine  *machine.Machine
	modules  *modules
	settings *settings
	state    *replica.Store
	shared   *shared.Cache // users' shared files
	local    *vfs.Store    // of what calls write to files
	kept     kept
	limits   vfs.Limits // of each call's
	homes    homes
	slots    *slots // one for each call that runs and doesn't wait
	meters   *meters
	memory   int64 // bytes all guests may have together
	parked   int64 // bytes that calls may keep which wait for others, before no call makes another

	direct   direct
	attached atomic.Bool
}

// Run executes a call to its end; whatever happens is told in the result. ctx bounds it besides the call's own deadline.
// It waits for a free slot. The call can't make others: no planner knows it.
func (e *Executor) Run(ctx context.Context, call skein.Call) skein.Result {
	return e.execute(ctx, &run{call: call}, nil)
}

// execute is Run for a call that may hold a slot already, and whose rows of the room chain are given.
func (e *Executor) execute(ctx context.Context, r *run, chain *host.Chain) skein.Result {
	call := r.call
	if d, ok := ctx.Deadline(); !ok || d.After(call.Deadline) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, call.Deadline)
		defer cancel()
	}
	if !r.holds {
		if e.slots.take(ctx, call.Depth, false) != nil {
			return result(machine.Interrupted(ctx))
		}
		r.holds = true
	}
	defer func() {
		if r.holds {
			e.slots.give()
		}
	}()

	if len(call.Trace) > 0 {
		ctx = otel.GetTextMapPropagator().Extract(ctx, propagation.MapCarrier(call.Trace))
	}
	ctx, span := tracer().Start(ctx, "call "+call.Function.String(), trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("faas.name", call.Function.String()),
			attribute.String("faas.version", strconv.FormatInt(call.Version.Number, 10)),
			attribute.String("faas.invocation_id", call.ID.String()),
			attribute.String("faas.instance", e.name),
			attribute.String("faas.trigger", "other"),
			attribute.Int("skein.attempt", int(call.Attempt)),
		)
		if r.link != nil {
			r.link.spanBegins(r, span)
		}
	}

	began := time.Now()
	res := e.call(ctx, r, chain)
	res.Executor, res.Started, res.Ended = e.name, began, time.Now()

	if span.IsRecording() {
		span.SetAttributes(attribute.Bool("faas.coldstart", res.Cold), attribute.Int64("faas.ext.memory_peak", res.Memory),
			attribute.Float64("faas.cpu", res.CPU.Seconds()))
		if r.link != nil {
			r.link.spanEnds(r, span)
		}
		if res.State != skein.Succeeded {
			span.SetAttributes(attribute.String("skein.reason", res.Reason), attribute.Int("skein.exit_code", int(res.ExitCode)))
			span.SetStatus(codes.Error, res.Message)
		}
	}
	e.meters.ended(ctx, call.Function, res)
	return res
}

func (e *Executor) call(ctx context.Context, r *run, chain *host.Chain) skein.Result {
	call, log := r.call, &r.log
	mod, cold, err := e.modules.acquire(ctx, call.Version.Digest)
	if err != nil {
		res := failed(ctx, err)
		res.Cold = cold
		return res
	}
	defer e.modules.release(call.Version.Digest)
	set, err := e.settings.of(ctx, call.Function, call.Version.Config)
	if err != nil {
		res := failed(ctx, err)
		res.Cold = cold
		return res
	}

	c := &host.Call{
		Context: ctx, ID: call.ID, Attempt: call.Attempt, Function: call.Function, Env: set.environ,
		Input: call.Input, Stderr: log, Log: log, State: e.state, Chain: chain,
	}
	set.apply(c, &call, mod.Plain())
	c.Park = func(c *host.Call, memory int64, wait func() error) error { return e.park(c, r, memory, wait) }
	files, done := e.files(call.Function.User, &set.config)
	defer done()
	c.Files = files
	var exit machine.Exit
	if call.Entry == nil {
		exit = mod.Run(c)
	} else {
		exit = mod.RunPointer(c, machine.Pointer{Entry: *call.Entry, Input: call.Input})
	}
	res := result(exit)
	if res.State == skein.Succeeded {
		if err := c.Publish(); err != nil {
			notPut(ctx, &res, err)
		}
	}
	c.End() // before anybody is told
	if exit.Backtrace != "" {
		fmt.Fprintf(log, "%s\n%s\n", exit.Message, exit.Backtrace)
	}
	e.homes.note(call.Version.Digest, c.Keys())
	res.Output, res.Log, res.Cold = c.Output, log.Bytes(), cold
	if c.Overflowed() {
		outputTooLarge(&res)
	}
	res.StateRead, res.StateWritten, res.FileRead = c.Moved().Read, c.Moved().Written, c.FilesRead()
	return res
}

// notPut makes a result that of a guest whose files of the shared tree, left open, could not be put.
func notPut(ctx context.Context, res *skein.Result, err error) {
	res.State, res.Reason = skein.Failed, "FILE_NOT_PUT"
	if ctx.Err() != nil {
		end := failed(ctx, err)
		res.State, res.Reason, err = end.State, end.Reason, errors.New(end.Message)
	}
	res.Message = fmt.Sprintf("what it wrote to a shared file that it left open was not put: %s", err)
}

// outputTooLarge makes a result that of a guest whose standard output was more than a call may give: there is no half of it.
func outputTooLarge(res *skein.Result) {
	res.Output = nil
	if res.State == skein.Succeeded || res.Reason == "GUEST_EXIT" {
		res.State, res.Reason = skein.Failed, "OUTPUT_TOO_LARGE"
		res.Message = fmt.Sprintf("the standard output has more than %d bytes, which is the most that a call may give", skein.MaxPayload)
	}
}

func result(x machine.Exit) skein.Result {
	return skein.Result{State: x.State, ExitCode: x.Code, Reason: x.Reason, Message: x.Message, Memory: x.MemoryPeak, CPU: x.CPU}
}

// failed is the result of a call whose guest never ran.
func failed(ctx context.Context, err error) skein.Result {
	if ctx.Err() != nil {
		return result(machine.Interrupted(ctx))
	}
	e := fault.From(err)
	return skein.Result{State: skein.Failed, Reason: e.Reason, Message: e.Message}
}

// defaultName tells executors apart that were given no name.
func defaultName() string {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "executor"
	}
	return hostname + "-" + skein.NewCallID().String()[:6]
}
