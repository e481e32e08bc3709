package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// invocation is what the flags of `invoke` say.
type invocation struct {
	input, file string
	args        []string
	timeout     time.Duration
	async       bool
	requestID   string

	retries           int // these are for async ones alone
	retryFailures     bool
	maxAge, resultAge time.Duration
	webhook           string
}

// asyncFlags are those that say nothing of a call that is waited for.
var asyncFlags = []string{"retries", "retry-failures", "max-age", "result-age", "webhook"}

func (a *app) invokeCmd() *cobra.Command {
	var in invocation
	cmd := &cobra.Command{
		Use:   "invoke USER/FUNCTION [-- ARG...]",
		Short: "Call a function and print its output",
		Long: `Call a function and print its output, byte for byte.

The input is --input's text, the file of --input @FILE or --file FILE, or else what is piped in.
The exit code is the guest's own if it ended with one, and 1 if it trapped, timed out or could not run.

With --async the call's id is printed once the call is in the planner's journal: it outlives planner and executors, is tried
again if an executor is lost, and its result is kept. skein wait, skein logs -f and skein calls watch follow it.`,
		Example: `  skein invoke ann/echo --input hello
  skein invoke ann/resize -f photo.png --args 800x600 >small.png
  id=$(skein invoke ann/train --async --timeout 1h --retries 5) && skein wait $id`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); dash > 1 || dash < 0 && len(args) > 1 {
				return usagef("one function at a time; arguments for it go behind \"--\"")
			}
			f, err := skein.ParseFunction(args[0])
			if err != nil {
				return err
			}
			in.args = append(in.args, args[1:]...)
			input, err := a.input(cmd, &in)
			if err != nil {
				return err
			}
			if err := in.check(cmd); err != nil {
				return err
			}
			if in.async {
				if in.retries, err = maxAttempts(cmd, in.retries); err != nil {
					return err
				}
				return a.create(cmd.Context(), f, &in, input)
			}
			return a.invoke(cmd.Context(), f, &in, input)
		},
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 || cmd.ArgsLenAtDash() == 0 {
			return errors.New("which function? want USER/FUNCTION, such as ann/echo")
		}
		return nil
	}
	in.flags(cmd)
	return cmd
}

func (in *invocation) check(cmd *cobra.Command) error {
	for _, name := range asyncFlags {
		if !in.async && cmd.Flags().Changed(name) {
			return usagef("--%s is for calls that nobody waits for: add --async", name)
		}
	}
	if cmd.Flags().Changed("timeout") && in.timeout <= 0 {
		return usagef("--timeout %s: want a duration of more than 0, such as 500ms, 30s or 2m", in.timeout)
	}
	return nil
}

func (in *invocation) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&in.input, "input", "", "the input as a `text`, or @FILE")
	f.StringVarP(&in.file, "file", "f", "", "`file` that holds the input; - for stdin")
	f.StringArrayVar(&in.args, "args", nil, "one argument for the function; may be repeated")
	f.DurationVar(&in.timeout, "timeout", 0, "how long the call may take, from its acceptance; with --async each attempt (default the function's)")
	f.BoolVar(&in.async, "async", false, "do not wait: print the call's id")
	f.StringVar(&in.requestID, "request-id", "", "`id` that makes a repeated request join the first one's call")
	f.IntVar(&in.retries, "retries", 0, "how often to try again when executors or services are lost, 0 to 9 (default the function's)")
	f.BoolVar(&in.retryFailures, "retry-failures", false, "try again also when the guest itself failed")
	f.DurationVar(&in.maxAge, "max-age", 0, "how long after its acceptance the last attempt may begin (default 6h)")
	f.DurationVar(&in.resultAge, "result-age", 0, "how long the result is kept (default the function's)")
	f.StringVar(&in.webhook, "webhook", "", "`URL` that hears of the end (default the function's)")
}

func (a *app) input(cmd *cobra.Command, in *invocation) ([]byte, error) {
	const instead = "put larger data into a file or a state value, and give the function its name"
	given := cmd.Flags().Changed("input")
	if given && in.file != "" {
		return nil, usagef("give --input or --file, not both")
	}
	file := in.file
	if name, ok := strings.CutPrefix(in.input, "@"); ok {
		file = name
	} else if given {
		return payload(strings.NewReader(in.input), "the input", instead)
	}
	if file == "" {
		if !a.piped() {
			return nil, nil
		}
		file = "-"
	}
	body, _, err := a.source(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	return payload(body, "the input", instead)
}

func (in *invocation) protoTimeout() *durationpb.Duration { return given(in.timeout) }

// given is a duration of a flag; 0 stands for the server's default.
func given(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// maxAttempts turns --retries into attempts in all; 0 if the flag was not given.
func maxAttempts(cmd *cobra.Command, retries int) (int, error) {
	if !cmd.Flags().Changed("retries") {
		return 0, nil
	}
	if retries < 0 || retries >= skein.MaxAttempts {
		return 0, usagef("--retries %d: want 0 to %d", retries, skein.MaxAttempts-1)
	}
	return retries + 1, nil
}

func (a *app) invoke(ctx context.Context, f skein.Function, in *invocation, input []byte) error {
	planner, err := a.plannerClient()
	if err != nil {
		return err
	}
	resp, err := planner.Invoke(ctx, &plannerv1.InvokeRequest{
		User: string(f.User), Function: f.Name, Input: input, Args: in.args, Timeout: in.protoTimeout(), RequestId: in.requestID,
	})
	if err != nil {
		return err
	}
	return a.finish(resp.GetCall(), resp.GetOutput())
}

func (a *app) create(ctx context.Context, f skein.Function, in *invocation, input []byte) error {
	planner, err := a.plannerClient()
	if err != nil {
		return err
	}
	resp, err := planner.CreateCall(ctx, &plannerv1.CreateCallRequest{
		User: string(f.User), Function: f.Name, Input: input, Args: in.args, Timeout: in.protoTimeout(), RequestId: in.requestID,
		MaxAttempts: int32(in.retries), RetryFailures: in.retryFailures, MaxAge: given(in.maxAge), ResultAge: given(in.resultAge), //nolint:gosec // checked
		WebhookUrl: in.webhook,
	})
	if err != nil {
		return err
	}
	if a.format == "json" { // only when asked for: the id alone is what a script wants to keep
		raw, err := marshal(resp.GetCall())
		if err != nil {
			return err
		}
		return a.printJSON(raw)
	}
	_, err = fmt.Fprintln(a.stdout, resp.GetCall().GetCallId())
	return err
}

// finish prints what a call that has ended gave, and turns its end into ours.
func (a *app) finish(call *callv1.Call, output []byte) error {
	if a.verbose || terminal(a.stderr) {
		_, _ = fmt.Fprintln(a.stderr, "call", call.GetCallId())
	}
	if err := a.printOutput(call, output); err != nil {
		return err
	}
	if call.GetState() == callv1.CallState_CALL_STATE_SUCCEEDED {
		return nil
	}
	end := &exitError{code: exitFailure, err: callError(call)}
	if code := call.GetExitCode(); code != 0 {
		end.code = int(code)
	}
	return end
}

func (a *app) printOutput(call *callv1.Call, output []byte) error {
	if a.format == "json" { // output is data: it stays raw unless JSON was asked for
		raw, err := marshal(call)
		if err != nil {
			return err
		}
		doc := map[string]any{"call": json.RawMessage(raw)}
		binary("output", output, doc)
		return a.printJSON(doc)
	}
	if terminal(a.stdout) && len(output) > 0 && output[len(output)-1] != '\n' {
		output = append(output, '\n')
	}
	_, err := a.stdout.Write(output)
	return err
}

// callError says why a call that has ended did not succeed.
func callError(call *callv1.Call) error {
	kind := fault.Internal
	switch call.GetState() {
	case callv1.CallState_CALL_STATE_CANCELLED:
		kind = fault.Cancelled
	case callv1.CallState_CALL_STATE_TIMED_OUT:
		kind = fault.Timeout
	}
	message := call.GetMessage()
	switch {
	case message != "":
	case call.GetExitCode() != 0:
		message = fmt.Sprintf("the guest exited with code %d", call.GetExitCode())
	default:
		message = "the call ended as " + stateName(call.GetState())
	}
	err := kind.New(dash(call.GetReason()), "%s: %s", call.GetFunction(), message)
	if call.GetLogBytes() > 0 {
		return err.WithHint("what it wrote: skein logs %s", call.GetCallId())
	}
	return err
}
