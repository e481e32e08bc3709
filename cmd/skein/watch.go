package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

func (a *app) logsCmd() *cobra.Command {
	var follow bool
	cmd := a.oneCall("logs", "Print what a call wrote to stdout and stderr", func(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error {
		if follow {
			return a.followLogs(ctx, planner, id)
		}
		resp, err := planner.GetCallLogs(ctx, &plannerv1.GetCallLogsRequest{CallId: id})
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(resp.GetLog())
		return err
	})
	cmd.Long = "Print what a call has written to stdout and stderr so far; with --follow also what it writes from now on, until it has ended."
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the call has ended")
	return cmd
}

func (a *app) followLogs(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error {
	attempt := int32(0)
	return watchCall(ctx, planner, id, true, func(e *plannerv1.WatchCallResponse) error {
		if attempt != 0 && e.GetAttempt() != attempt {
			_, _ = fmt.Fprintf(a.stderr, "attempt %d\n", e.GetAttempt())
		}
		attempt = e.GetAttempt()
		_, err := a.stdout.Write(e.GetLog().GetData())
		return err
	})
}

func (a *app) watchCmd() *cobra.Command {
	cmd := a.oneCall("watch", "Print a call's states as they change, until it has ended", func(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error {
		return watchCall(ctx, planner, id, false, func(e *plannerv1.WatchCallResponse) error {
			if a.json() { // one document a line
				raw, err := marshal(e.GetCall())
				if err != nil {
					return err
				}
				return a.printLine(raw)
			}
			c := e.GetCall()
			line := fmt.Sprintf("%s  attempt %s  %s  %s", stateName(c.GetState()), attempts(c), printable(dash(c.GetExecutor())), printable(whyEnded(c)))
			_, err := fmt.Fprintln(a.stdout, strings.TrimRight(line, " "))
			return err
		})
	})
	cmd.Long = "Print a call's states as they change, one a line, until it has ended; as JSON the whole record each time."
	return cmd
}

// whyEnded is what a line says about a call beside its state.
func whyEnded(c *callv1.Call) string {
	switch {
	case c.GetRetryTime() != nil && !terminalState(c.GetState()):
		return "the next attempt begins " + moment(c.GetRetryTime())
	case c.GetReason() != "":
		return c.GetReason() + ": " + c.GetMessage()
	}
	return ""
}

// watchPatience is how long a watch that was cut off tries to go on.
const watchPatience = time.Minute

// watchCall gives each event to see until the call has ended. It goes on where it was after the planner was away.
func watchCall(ctx context.Context, planner plannerv1.PlannerServiceClient, id string, logs bool, see func(*plannerv1.WatchCallResponse) error) error {
	req := &plannerv1.WatchCallRequest{CallId: id, Logs: logs}
	var heard time.Time
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		ended, err := watchOnce(ctx, planner, req, func(e *plannerv1.WatchCallResponse) error {
			heard = time.Now()
			return see(e)
		})
		if ended || !errors.Is(err, fault.Unavailable) || heard.IsZero() || time.Since(heard) > watchPatience {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func watchOnce(ctx context.Context, planner plannerv1.PlannerServiceClient, req *plannerv1.WatchCallRequest, see func(*plannerv1.WatchCallResponse) error) (ended bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := planner.WatchCall(ctx, req)
	if err != nil {
		return false, err
	}
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ended, fault.Unavailable.New("DISCONNECTED", "the planner ended the watch before the call had ended")
		}
		if err != nil {
			return false, err
		}
		if err := see(e); err != nil {
			return true, err
		}
		if log := e.GetLog(); log != nil {
			req.LogAttempt, req.LogOffset = e.GetAttempt(), log.GetOffset()+int64(len(log.GetData()))
		}
		if terminalState(e.GetCall().GetState()) {
			return true, nil
		}
	}
}
