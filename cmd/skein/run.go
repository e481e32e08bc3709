package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"skein.dev"
	"skein.dev/platform/fault"
)

// app is one run of the command line.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	server                     string
	planner, upload, state, fs string // where they differ from server
	traces                     string
	format                     string
	verbose                    bool

	began bool // a command's own work has begun: an error from here on is not about usage
	conns []*grpc.ClientConn
}

// Exit codes. `invoke` also exits with the guest's own.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// Run executes one command line and gives its exit code.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	defer func() {
		for _, c := range a.conns {
			_ = c.Close()
		}
	}()
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if !a.began {
		fmt.Fprintf(stderr, "error: %v\nhint: %s --help\n", err, cmd.CommandPath())
		return exitUsage
	}
	return a.report(ctx, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "skein",
		Short: "Stateful serverless functions in WebAssembly",
		Long: `Stateful serverless functions in WebAssembly.

Start a server with "skein dev", then upload a function and invoke it:

  skein upload ann/echo echo.wasm
  skein invoke ann/echo --input hello`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			switch a.format {
			case "", "json", "text":
			default:
				return fmt.Errorf("--output %q: want json or text", a.format)
			}
			a.began = true
			return nil
		},
	}
	env := func(name, fallback string) string {
		if v, ok := os.LookupEnv(name); ok {
			return v
		}
		return fallback
	}
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", env("SKEIN_SERVER", "127.0.0.1:8080"), "`address` of the services (SKEIN_SERVER)")
	f.StringVar(&a.planner, "planner", env("SKEIN_PLANNER", ""), "`address` of the planner if it differs (SKEIN_PLANNER)")
	f.StringVar(&a.upload, "upload", env("SKEIN_UPLOAD", ""), "`address` of the upload service if it differs (SKEIN_UPLOAD)")
	f.StringVar(&a.state, "state", env("SKEIN_STATE", ""), "`address` of the state service if it differs (SKEIN_STATE)")
	f.StringVar(&a.fs, "fs", env("SKEIN_FS", ""), "`address` of the fs service if it differs (SKEIN_FS)")
	f.StringVarP(&a.format, "output", "o", "", "`form` of records: text (default on a terminal) or json (default elsewhere)")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "say more")

	root.AddCommand(a.uploadCmd(), a.invokeCmd(), a.callsCmd(), a.waitCmd(), a.logsCmd(), a.whyCmd(), a.traceCmd(), a.deadLettersCmd(), a.functionsCmd(),
		a.stateCmd(), a.filesCmd(), a.executorsCmd(), a.policyCmd(), a.versionCmd(), a.devCmd(), a.internalCmd())
	return root
}

// report says on stderr what went wrong and what to do about it, and gives the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if exit, ok := errors.AsType[*exitError](err); ok {
		if exit.err != nil {
			a.explain(exit.err)
		}
		return exit.code
	}
	if ctx.Err() != nil {
		fmt.Fprintln(a.stderr, "interrupted")
		return exitInterrupted
	}
	a.explain(err)
	if errors.Is(err, skein.ErrInvalid) {
		return exitUsage // a name that can't be one: nothing was asked of a server
	}
	return exitFailure
}

func (a *app) explain(err error) {
	const most = 8 << 10 // bytes of a text: there are servers that answer with megabytes
	text := printableLines(clipped(err.Error(), most))
	e, ok := errors.AsType[*fault.Error](err)
	if !ok && errors.Is(err, skein.ErrInvalid) {
		e, ok = fault.From(err), true
	}
	if !ok { // an error of this machine: it has no reason, only a text
		fmt.Fprintf(a.stderr, "error: %s\n", text)
		return
	}
	fmt.Fprintf(a.stderr, "error: %s [%s]\n", text, printable(clipped(e.Reason, 80)))
	switch {
	case e.Hint != "":
		fmt.Fprintf(a.stderr, "hint: %s\n", printable(clipped(e.Hint, most)))
	case e.RetryAfter > 0:
		fmt.Fprintf(a.stderr, "hint: try again in %s\n", e.RetryAfter)
	}
}

// exitError ends the run with a code of its own.
type exitError struct {
	code int
	err  error // nil: everything was said already
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }
