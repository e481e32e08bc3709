package main

import (
	"context"
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"skein.dev"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// functionRun does something to one function.
type functionRun func(cmd *cobra.Command, upload uploadv1.UploadServiceClient, f skein.Function, rest []string) error

func (a *app) functionsCmd() *cobra.Command {
	list := func(cmd *cobra.Command, args []string) error {
		user := ""
		if len(args) > 0 {
			u, err := skein.ParseUser(args[0])
			if err != nil {
				return err
			}
			user = string(u)
		}
		return a.listFunctions(cmd.Context(), user)
	}
	cmd := &cobra.Command{Use: "functions", Short: "List functions, or manage one", Args: cobra.NoArgs, RunE: list}

	one := func(use, short string, most int, run functionRun) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: cobra.RangeArgs(1, most),
			RunE: func(cmd *cobra.Command, args []string) error {
				f, err := skein.ParseFunction(args[0])
				if err != nil {
					return err
				}
				upload, err := a.uploadClient()
				if err != nil {
					return err
				}
				return run(cmd, upload, f, args[1:])
			},
		}
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list [USER]", Short: "List functions", Args: cobra.MaximumNArgs(1), RunE: list},
		one("get USER/FUNCTION", "Show a function and its current version", 1, a.getFunction),
		one("versions USER/FUNCTION", "List a function's versions, newest first", 1, a.listVersions),
		one("rollback USER/FUNCTION [VERSION]", "Make another version current; the one before unless named", 2, a.rollBack),
		a.configureCmd(one),
		one("delete USER/FUNCTION", "Remove a function and all its versions", 1, a.deleteFunction),
	)
	return cmd
}

func (a *app) listFunctions(ctx context.Context, user string) error {
	upload, err := a.uploadClient()
	if err != nil {
		return err
	}
	all := &uploadv1.ListFunctionsResponse{}
	err = pages(0, func(size int32, token string) (int, page, error) {
		resp, err := upload.ListFunctions(ctx, &uploadv1.ListFunctionsRequest{User: user, PageSize: size, PageToken: token})
		all.Functions = append(all.Functions, resp.GetFunctions()...)
		return len(resp.GetFunctions()), resp, err
	})
	if err != nil {
		return err
	}
	return a.record(all, func(w *tabwriter.Writer) {
		row(w, "FUNCTION", "VERSION", "KIND", "SIZE", "AGE", "TIMEOUT", "ATTEMPTS", "DIGEST")
		for _, f := range all.GetFunctions() {
			v, c := f.GetCurrent(), f.GetConfig()
			most := "-"
			if c.GetMaxAttempts() > 0 {
				most = strconv.Itoa(int(c.GetMaxAttempts()))
			}
			row(w, f.GetUser()+"/"+f.GetName(), v.GetNumber(), kindName(v.GetKind()), size(v.GetSize()), age(f.GetUpdateTime()), span(c.GetTimeout()), most, v.GetDigest())
		}
	})
}

func (a *app) getFunction(cmd *cobra.Command, upload uploadv1.UploadServiceClient, f skein.Function, _ []string) error {
	resp, err := upload.GetFunction(cmd.Context(), &uploadv1.GetFunctionRequest{User: string(f.User), Function: f.Name})
	if err != nil {
		return err
	}
	return a.printFunction(resp.GetFunction())
}

func (a *app) printFunction(f *uploadv1.Function) error {
	return a.record(f, func(w *tabwriter.Writer) {
		v := f.GetCurrent()
		row(w, "function", f.GetUser()+"/"+f.GetName())
		row(w, "version", v.GetNumber())
		row(w, "digest", "sha256:"+v.GetDigest())
		row(w, "kind", kindName(v.GetKind()))
		row(w, "size", size(v.GetSize()))
		row(w, "uploaded", moment(v.GetCreateTime()))
		row(w, "updated", moment(f.GetUpdateTime()))
		drawConfig(w, f.GetConfig())
		for i, name := range v.GetImports() {
			label := "imports"
			if i > 0 {
				label = ""
			}
			row(w, label, name)
		}
	})
}

func (a *app) listVersions(cmd *cobra.Command, upload uploadv1.UploadServiceClient, f skein.Function, _ []string) error {
	all := &uploadv1.ListVersionsResponse{}
	err := pages(0, func(size int32, token string) (int, page, error) {
		resp, err := upload.ListVersions(cmd.Context(), &uploadv1.ListVersionsRequest{
			User: string(f.User), Function: f.Name, PageSize: size, PageToken: token,
		})
		all.Versions = append(all.Versions, resp.GetVersions()...)
		return len(resp.GetVersions()), resp, err
	})
	if err != nil {
		return err
	}
	return a.record(all, func(w *tabwriter.Writer) {
		row(w, "VERSION", "KIND", "SIZE", "UPLOADED", "DIGEST")
		for _, v := range all.GetVersions() {
			row(w, v.GetNumber(), kindName(v.GetKind()), size(v.GetSize()), moment(v.GetCreateTime()), v.GetDigest())
		}
	})
}

func (a *app) rollBack(cmd *cobra.Command, upload uploadv1.UploadServiceClient, f skein.Function, rest []string) error {
	req := &uploadv1.RollBackRequest{User: string(f.User), Function: f.Name}
	if len(rest) > 0 {
		n, err := strconv.ParseInt(rest[0], 10, 64)
		if err != nil || n < 1 {
			return usagef("version %q: want a number from 1", rest[0])
		}
		req.Version = n
	}
	resp, err := upload.RollBack(cmd.Context(), req)
	if err != nil {
		return err
	}
	return a.printFunction(resp.GetFunction())
}

func (a *app) deleteFunction(cmd *cobra.Command, upload uploadv1.UploadServiceClient, f skein.Function, _ []string) error {
	_, err := upload.DeleteFunction(cmd.Context(), &uploadv1.DeleteFunctionRequest{User: string(f.User), Function: f.Name})
	if err == nil && terminal(a.stdout) {
		_, _ = fmt.Fprintf(a.stdout, "%s and its versions are gone\n", f)
	}
	return err
}

func kindName(k uploadv1.ModuleKind) string {
	switch k {
	case uploadv1.ModuleKind_MODULE_KIND_COMMAND:
		return "command"
	case uploadv1.ModuleKind_MODULE_KIND_REACTOR:
		return "reactor"
	}
	return "-"
}
