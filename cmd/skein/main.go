// Command skein is Skein's command line: it uploads functions, calls them, looks at calls, state and files, and runs the
// whole suite in one process with `skein dev`. Everything it does goes through the services' public interface.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"skein.dev/platform/compile"
)

func main() {
	compile.Child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal has its default effect: it ends the process
	os.Exit(Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
