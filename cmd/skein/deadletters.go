package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"skein.dev"
	"skein.dev/platform/fault"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

func (a *app) deadLettersCmd() *cobra.Command {
	var user string
	var limit int
	list := func(cmd *cobra.Command, _ []string) error { return a.listDeadLetters(cmd.Context(), user, limit) }
	cmd := &cobra.Command{
		Use: "dead-letters", Short: "List calls that were given up after their attempts, or try them again", Args: cobra.NoArgs, RunE: list,
		Long: `List calls that were given up after their attempts, or try them again.

Their inputs are kept for 14 days.`,
	}
	listCmd := &cobra.Command{Use: "list", Short: "List dead letters, newest first", Args: cobra.NoArgs, RunE: list}
	for _, c := range []*cobra.Command{cmd, listCmd} {
		c.Flags().StringVar(&user, "user", "", "only those of this `user`'s functions")
		c.Flags().IntVar(&limit, "limit", 50, "how many; 0 for all")
	}
	var input bool
	show := a.oneCall("show", "Show a dead letter and its attempts", func(ctx context.Context, planner plannerv1.PlannerServiceClient, id string) error {
		return a.showDeadLetter(ctx, planner, id, input)
	})
	show.Flags().BoolVar(&input, "input", false, "print its input, byte for byte, and nothing else")
	cmd.AddCommand(listCmd, show, a.redriveCmd(), a.removeDeadLettersCmd())
	return cmd
}

// deadLetters reads up to limit of them (0: all).
func deadLetters(ctx context.Context, planner plannerv1.PlannerServiceClient, user string, limit int) (*plannerv1.ListDeadLettersResponse, error) {
	all := &plannerv1.ListDeadLettersResponse{}
	err := pages(limit, func(size int32, token string) (int, page, error) {
		resp, err := planner.ListDeadLetters(ctx, &plannerv1.ListDeadLettersRequest{User: user, PageSize: size, PageToken: token})
		all.DeadLetters = append(all.DeadLetters, resp.GetDeadLetters()...)
		all.NextPageToken = resp.GetNextPageToken()
		return len(resp.GetDeadLetters()), resp, err
	})
	return all, err
}

func (a *app) listDeadLetters(ctx context.Context, user string, limit int) error {
	planner, err := a.plannerClient()
	if err != nil {
		return err
	}
	all, err := deadLetters(ctx, planner, user, limit)
	if err != nil {
		return err
	}
	return a.record(all, func(w *tabwriter.Writer) {
		row(w, "CALL", "FUNCTION", "REASON", "ATTEMPTS", "INPUT", "ENDED", "MESSAGE")
		for _, d := range all.GetDeadLetters() {
			c := d.GetCall()
			row(w, c.GetCallId(), c.GetFunction(), dash(c.GetReason()), attempts(c), size(c.GetInputBytes()), age(c.GetEndTime()), c.GetMessage())
		}
	})
}

func (a *app) showDeadLetter(ctx context.Context, planner plannerv1.PlannerServiceClient, id string, input bool) error {
	resp, err := planner.GetDeadLetter(ctx, &plannerv1.GetDeadLetterRequest{CallId: id})
	if err != nil {
		return err
	}
	d := resp.GetDeadLetter()
	if input {
		_, err := a.stdout.Write(d.GetInput())
		return err
	}
	if a.json() {
		return a.record(d, nil)
	}
	if err := a.printCall(d.GetCall()); err != nil {
		return err
	}
	return a.table(func(w *tabwriter.Writer) {
		for i, arg := range d.GetArgs() {
			row(w, fmt.Sprintf("argument %d", i+1), arg)
		}
		drawAttempts(w, d.GetAttempts())
	})
}

func (a *app) redriveCmd() *cobra.Command {
	var of selection
	cmd := &cobra.Command{
		Use: "redrive [CALL...]", Short: "Call the function's current version with a dead letter's input, and remove the dead letter",
		Long: `Call the function's current version with a dead letter's input, and remove the dead letter.

Each line of the output has the dead letter's id and the new call's. Repeating it does nothing twice.`,
		Example: `  skein dead-letters redrive 281d5dccb748c8e5cae1453314dd0fc6
  skein dead-letters redrive --function ann/echo`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachDeadLetter(cmd.Context(), &of, args, func(planner plannerv1.PlannerServiceClient, id string) error {
				resp, err := planner.RedriveDeadLetter(cmd.Context(), &plannerv1.RedriveDeadLetterRequest{CallId: id})
				if err == nil {
					_, err = fmt.Fprintln(a.stdout, id, resp.GetCall().GetCallId())
				}
				return err
			})
		},
	}
	of.flags(cmd)
	return cmd
}

func (a *app) removeDeadLettersCmd() *cobra.Command {
	var of selection
	cmd := &cobra.Command{
		Use: "rm [CALL...]", Short: "Remove dead letters with their inputs",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachDeadLetter(cmd.Context(), &of, args, func(planner plannerv1.PlannerServiceClient, id string) error {
				_, err := planner.DeleteDeadLetter(cmd.Context(), &plannerv1.DeleteDeadLetterRequest{CallId: id})
				return err
			})
		},
	}
	of.flags(cmd)
	return cmd
}

// selection says which dead letters are meant.
type selection struct {
	function string
	all      bool
}

func (s *selection) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.function, "function", "", "all of `USER/FUNCTION`")
	cmd.Flags().BoolVar(&s.all, "all", false, "all that there are")
}

// ids finds the calls that are meant.
func (s *selection) ids(ctx context.Context, planner plannerv1.PlannerServiceClient, args []string) ([]string, error) {
	ways := 0
	for _, given := range []bool{len(args) > 0, s.function != "", s.all} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return nil, usagef("which ones? give calls, or --function USER/FUNCTION, or --all")
	}
	if len(args) > 0 {
		ids := make([]string, len(args))
		for i, arg := range args {
			id, err := skein.ParseCallID(arg)
			if err != nil {
				return nil, err
			}
			ids[i] = id.String()
		}
		return ids, nil
	}
	user := ""
	if s.function != "" {
		f, err := skein.ParseFunction(s.function)
		if err != nil {
			return nil, err
		}
		user = string(f.User)
	}
	found, err := deadLetters(ctx, planner, user, 0) // all before the first is removed: pages would shift
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, d := range found.GetDeadLetters() {
		if s.all || d.GetCall().GetFunction() == s.function {
			ids = append(ids, d.GetCall().GetCallId())
		}
	}
	return ids, nil
}

// eachDeadLetter does something to each, waits when the planner is full, and goes on after an error.
func (a *app) eachDeadLetter(ctx context.Context, of *selection, args []string, do func(planner plannerv1.PlannerServiceClient, id string) error) error {
	planner, err := a.plannerClient()
	if err != nil {
		return err
	}
	ids, err := of.ids(ctx, planner, args)
	if err != nil {
		return err
	}
	failed := 0
	for _, id := range ids {
		err := patiently(ctx, func() error { return do(planner, id) })
		switch {
		case err == nil:
		case len(ids) == 1 || ctx.Err() != nil:
			return err
		default:
			failed++
			_, _ = fmt.Fprintf(a.stderr, "%s: ", id)
			a.explain(err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d failed", failed, len(ids))
	}
	if len(ids) == 0 && terminal(a.stderr) {
		_, _ = fmt.Fprintln(a.stderr, "there are none")
	}
	return nil
}

// patiently repeats what the planner refused for want of room, when it says and for two minutes at most.
func patiently(ctx context.Context, do func() error) error {
	for began := time.Now(); ; {
		err := do()
		if !errors.Is(err, fault.Exhausted) || time.Since(began) > 2*time.Minute {
			return err
		}
		select {
		case <-time.After(max(fault.From(err).RetryAfter, 100*time.Millisecond)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
