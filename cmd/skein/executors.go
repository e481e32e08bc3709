package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	plannerv1 "skein.dev/proto/skein/planner/v1"
)

func (a *app) executorsCmd() *cobra.Command {
	list := func(cmd *cobra.Command, _ []string) error { return a.listExecutors(cmd) }
	cmd := &cobra.Command{Use: "executors", Short: "List the executors that are attached, or manage one", Args: cobra.NoArgs, RunE: list}
	one := func(use, short string, run func(cmd *cobra.Command, planner plannerv1.PlannerServiceClient, id string) (*plannerv1.Executor, error)) *cobra.Command {
		return &cobra.Command{
			Use: use + " EXECUTOR", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				planner, err := a.plannerClient()
				if err != nil {
					return err
				}
				e, err := run(cmd, planner, args[0])
				if err != nil {
					return err
				}
				return a.record(e, func(w *tabwriter.Writer) { drawExecutors(w, []*plannerv1.Executor{e}) })
			},
		}
	}
	drain := func(undo bool) func(*cobra.Command, plannerv1.PlannerServiceClient, string) (*plannerv1.Executor, error) {
		return func(cmd *cobra.Command, planner plannerv1.PlannerServiceClient, id string) (*plannerv1.Executor, error) {
			resp, err := planner.DrainExecutor(cmd.Context(), &plannerv1.DrainExecutorRequest{ExecutorId: id, Undo: undo})
			return resp.GetExecutor(), err
		}
	}
	mark := func(undo bool) func(*cobra.Command, plannerv1.PlannerServiceClient, string) (*plannerv1.Executor, error) {
		return func(cmd *cobra.Command, planner plannerv1.PlannerServiceClient, id string) (*plannerv1.Executor, error) {
			resp, err := planner.MarkExecutor(cmd.Context(), &plannerv1.MarkExecutorRequest{ExecutorId: id, Undo: undo})
			return resp.GetExecutor(), err
		}
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List the executors that are attached", Args: cobra.NoArgs, RunE: list},
		one("drain", "Place no more calls on an executor; those that run there end by themselves", drain(false)),
		one("undrain", "Place calls on it again", drain(true)),
		one("mark", "Say that an executor's machine will be taken away: policy spot avoids it", mark(false)),
		one("unmark", "Take that back", mark(true)),
	)
	return cmd
}

func (a *app) listExecutors(cmd *cobra.Command) error {
	planner, err := a.plannerClient()
	if err != nil {
		return err
	}
	all := &plannerv1.ListExecutorsResponse{}
	err = pages(0, func(size int32, token string) (int, page, error) {
		resp, err := planner.ListExecutors(cmd.Context(), &plannerv1.ListExecutorsRequest{PageSize: size, PageToken: token})
		all.Executors = append(all.Executors, resp.GetExecutors()...)
		return len(resp.GetExecutors()), resp, err
	})
	if err != nil {
		return err
	}
	return a.record(all, func(w *tabwriter.Writer) { drawExecutors(w, all.GetExecutors()) })
}

func drawExecutors(w *tabwriter.Writer, all []*plannerv1.Executor) {
	row(w, "EXECUTOR", "SLOTS", "USED", "MEMORY", "MODULES", "ATTACHED", "HEARD", "DRAINING", "MARKED", "ADDRESS")
	for _, e := range all {
		memory := size(e.GetMemoryUsedBytes()) + " of " + size(e.GetMemoryBytes())
		row(w, e.GetExecutorId(), e.GetSlots(), e.GetSlotsUsed(), memory, e.GetModules(), age(e.GetAttachTime()),
			age(e.GetLastHeartbeatTime()), e.GetDraining(), e.GetMarked(), dash(e.GetAddress()))
	}
}

func (a *app) policyCmd() *cobra.Command {
	get := func(cmd *cobra.Command, _ []string) error {
		planner, err := a.plannerClient()
		if err != nil {
			return err
		}
		resp, err := planner.GetPolicy(cmd.Context(), &plannerv1.GetPolicyRequest{})
		if err != nil {
			return err
		}
		return a.record(resp, func(w *tabwriter.Writer) {
			row(w, "policy", resp.GetPolicy())
			row(w, "queue", fmt.Sprintf("%d of %d", resp.GetQueueUsed(), resp.GetQueueLimit()))
		})
	}
	cmd := &cobra.Command{Use: "policy", Short: "Show how calls are placed, or change it", Args: cobra.NoArgs, RunE: get}
	cmd.AddCommand(
		&cobra.Command{Use: "get", Short: "Show how calls are placed, and how many wait", Args: cobra.NoArgs, RunE: get},
		&cobra.Command{
			Use: "set bin-pack|compact|spot", Short: "Change how calls are placed from now on", Args: cobra.ExactArgs(1),
			Long: `Change how calls are placed from now on, also after a restart.

  bin-pack  fill the fullest executor that has a free slot, one that holds the module first
  compact   the same, but an executor runs calls of one user at a time
  spot      as bin-pack, but nothing is placed on executors that are marked`,
			RunE: func(cmd *cobra.Command, args []string) error {
				planner, err := a.plannerClient()
				if err != nil {
					return err
				}
				resp, err := planner.SetPolicy(cmd.Context(), &plannerv1.SetPolicyRequest{Policy: args[0]})
				if err != nil {
					return err
				}
				return a.record(resp, func(w *tabwriter.Writer) { row(w, "policy", resp.GetPolicy()) })
			},
		},
	)
	return cmd
}
