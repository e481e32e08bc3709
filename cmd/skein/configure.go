package main

import (
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"skein.dev"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// configureCmd is made by one, as the other commands about a function are.
func (a *app) configureCmd(one func(use, short string, most int, run functionRun) *cobra.Command) *cobra.Command {
	var (
		timeout, resultAge time.Duration
		retries            int
		retryFailures      bool
		webhook            string
		reset              bool
	)
	cmd := one("configure USER/FUNCTION", "Change how a function's calls are treated", 1,
		func(cmd *cobra.Command, upload uploadv1.UploadServiceClient, f skein.Function, _ []string) error {
			most, err := maxAttempts(cmd, retries)
			if err != nil {
				return err
			}
			config := &uploadv1.FunctionConfig{}
			if !reset {
				resp, err := upload.GetFunction(cmd.Context(), &uploadv1.GetFunctionRequest{User: string(f.User), Function: f.Name})
				if err != nil {
					return err
				}
				config = resp.GetFunction().GetConfig()
			}
			for name, set := range map[string]func(){
				"timeout":        func() { config.Timeout = given(timeout) },
				"retries":        func() { config.MaxAttempts = int32(most) }, //nolint:gosec // checked
				"retry-failures": func() { config.RetryFailures = retryFailures },
				"result-age":     func() { config.ResultAge = given(resultAge) },
				"webhook":        func() { config.WebhookUrl = webhook },
			} {
				if cmd.Flags().Changed(name) {
					set()
				}
			}
			resp, err := upload.ConfigureFunction(cmd.Context(), &uploadv1.ConfigureFunctionRequest{User: string(f.User), Function: f.Name, Config: config})
			if err != nil {
				return err
			}
			return a.printFunction(resp.GetFunction())
		})
	cmd.Long = `Change how a function's calls are treated: its next ones, whatever their version.

What no flag names stays as it is. A duration of 0, or "" for the webhook, is the default again; --reset gives all of it its default first.`
	cmd.Example = `  skein functions configure ann/echo --timeout 5s --retries 5
  skein functions configure ann/echo --reset`
	f := cmd.Flags()
	f.DurationVar(&timeout, "timeout", 0, "time limit of calls that ask for none, and the most that one may ask for (default 1m, and 24h the most)")
	f.IntVar(&retries, "retries", 0, "how often an asynchronous call is tried again, 0 to 9 (default 2)")
	f.BoolVar(&retryFailures, "retry-failures", false, "try again also when the guest itself failed")
	f.DurationVar(&resultAge, "result-age", 0, "how long results of asynchronous calls are kept, up to 720h (default 24h)")
	f.StringVar(&webhook, "webhook", "", "`URL` that hears of the ends of asynchronous calls")
	f.BoolVar(&reset, "reset", false, "begin with the default of everything")
	return cmd
}

// drawConfig shows what of a function's configuration is not the default.
func drawConfig(w *tabwriter.Writer, c *uploadv1.FunctionConfig) {
	if c.GetTimeout() != nil {
		row(w, "timeout", span(c.GetTimeout()))
	}
	if c.GetMaxAttempts() > 0 {
		row(w, "attempts", c.GetMaxAttempts())
	}
	if c.GetRetryFailures() {
		row(w, "tries again", "also when the guest failed")
	}
	if c.GetResultAge() != nil {
		row(w, "results kept", span(c.GetResultAge()))
	}
	if c.GetWebhookUrl() != "" {
		row(w, "webhook", c.GetWebhookUrl())
	}
}
