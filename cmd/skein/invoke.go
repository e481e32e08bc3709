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
}

func (a *app) invokeCmd() *cobra.Command {
	var in invocation
	cmd := &cobra.Command{
		Use:   "invoke USER/FUNCTION [-- ARG...]",
		Short: "Call a function and print its output",
		Long: `Call a function and print its output, byte for byte.

The input is --input's text, the file of --input @FILE or --file FILE, or else what is piped in.
The exit code is the guest's own if it ended with one, and 1 if it trapped, timed out or could not run.`,
		Example: `  skein invoke ann/echo --input hello
  skein invoke ann/resize -f photo.png --args 800x600 >small.png
  id=$(skein invoke ann/train --async --timeout 1h) && skein calls wait $id`,
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
			if in.async {
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
	f := cmd.Flags()
	f.StringVar(&in.input, "input", "", "the input as a `text`, or @FILE")
	f.StringVarP(&in.file, "file", "f", "", "`file` that holds the input; - for stdin")
	f.StringArrayVar(&in.args, "args", nil, "one argument for the function; may be repeated")
	f.DurationVar(&in.timeout, "timeout", 0, "how long the call may take, from its acceptance (default 1m)")
	f.BoolVar(&in.async, "async", false, "do not wait: print the call's id")
	f.StringVar(&in.requestID, "request-id", "", "`id` that makes a repeated request join the first one's call")
	return cmd
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

func (in *invocation) protoTimeout() *durationpb.Duration {
	if in.timeout <= 0 {
		return nil // the planner's default
	}
	return durationpb.New(in.timeout)
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
