package main

import (
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"skein.dev"
	"skein.dev/platform/fault"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// configuring is what the flags of `functions configure` say.
type configuring struct {
	timeout, resultAge       time.Duration
	retries                  int
	retryFailures, keepLocal bool
	webhook, stdin, stdout   string
	env, secrets, unset      []string
	args, mounts             []string
	noArgs, noMounts, reset  bool
}

// configureCmd is made by one, as the other commands about a function are.
func (a *app) configureCmd(one func(use, short string, most int, run functionRun) *cobra.Command) *cobra.Command {
	var c configuring
	cmd := one("configure USER/FUNCTION", "Change how a function's calls are treated", 1,
		func(cmd *cobra.Command, upload uploadv1.UploadServiceClient, f skein.Function, _ []string) error {
			edit, err := c.edit(cmd)
			if err != nil {
				return err
			}
			fn, err := reconfigure(cmd.Context(), upload, f, edit)
			if err != nil {
				return err
			}
			return a.printFunction(fn)
		})
	cmd.Long = `Change how a function's calls are treated: its next ones, whatever their version.

What no flag names stays as it is. A duration of 0, or "" for the webhook, is the default again; --reset gives all of it its default first.

A secret is an environment variable whose value is kept encrypted and never shown again. It is read from a file, or with "-" from
standard input, so that it is in no list of processes and no history; one newline at its end is left out.`
	cmd.Example = `  skein functions configure ann/echo --timeout 5s --retries 5
  skein functions configure ann/sort --arg -r --env LC_ALL=C
  skein functions configure ann/crawl --secret TOKEN=- <token.txt
  skein functions configure ann/echo --reset`
	c.flags(cmd)
	return cmd
}

func (c *configuring) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&c.timeout, "timeout", 0, "time limit of calls that ask for none, and the most that one may ask for (default 1m, and 24h the most)")
	f.IntVar(&c.retries, "retries", 0, "how often an asynchronous call is tried again, 0 to 9 (default 2)")
	f.BoolVar(&c.retryFailures, "retry-failures", false, "try again also when the guest itself failed")
	f.DurationVar(&c.resultAge, "result-age", 0, "how long results of asynchronous calls are kept, up to 720h (default 24h)")
	f.StringVar(&c.webhook, "webhook", "", "`URL` that hears of the ends of asynchronous calls")
	f.StringArrayVar(&c.env, "env", nil, "`NAME=VALUE`: an environment variable; may be repeated")
	f.StringArrayVar(&c.secrets, "secret", nil, "`NAME=FILE`: a secret with what is in the file, or NAME=- for standard input; may be repeated")
	f.StringArrayVar(&c.unset, "unset", nil, "`NAME` of a variable or secret to remove; may be repeated")
	f.StringArrayVar(&c.args, "arg", nil, "`argument` behind the program's name; repeated, they are all that there are")
	f.BoolVar(&c.noArgs, "no-args", false, "no arguments")
	f.StringArrayVar(&c.mounts, "mount", nil, "`PREFIX:/AT`: the shared files below a prefix are seen there; repeated, they are all that is seen")
	f.BoolVar(&c.noMounts, "no-mounts", false, "all shared files are seen, at /")
	f.BoolVar(&c.keepLocal, "keep-local", false, "files that calls write stay on their executor for the user's later calls")
	f.StringVar(&c.stdin, "stdin", "", "what is on standard input: `input` (default) or empty")
	f.StringVar(&c.stdout, "stdout", "", "where standard output goes: `output`, log or auto: output for plain programs, log for others (default)")
	f.BoolVar(&c.reset, "reset", false, "begin with the default of everything")
	cmd.MarkFlagsMutuallyExclusive("arg", "no-args")
	cmd.MarkFlagsMutuallyExclusive("mount", "no-mounts")
}

// edit is what the flags do to a configuration.
func (c *configuring) edit(cmd *cobra.Command) (func(*uploadv1.FunctionConfig), error) {
	most, err := maxAttempts(cmd, c.retries)
	if err != nil {
		return nil, err
	}
	env, err := pairs("env", "=", c.env)
	if err != nil {
		return nil, err
	}
	secrets, err := c.readSecrets(cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	mounts, err := c.mountList()
	if err != nil {
		return nil, err
	}
	in, okIn := map[string]uploadv1.Stdin{"": 0, "input": 0, "empty": uploadv1.Stdin_STDIN_EMPTY}[c.stdin]
	out, okOut := map[string]uploadv1.Stdout{"": 0, "auto": 0, "output": uploadv1.Stdout_STDOUT_OUTPUT, "log": uploadv1.Stdout_STDOUT_LOG}[c.stdout]
	switch {
	case !okIn:
		return nil, usagef("--stdin %q: want input or empty", c.stdin)
	case !okOut:
		return nil, usagef("--stdout %q: want output, log or auto", c.stdout)
	}
	var sets []func(*uploadv1.FunctionConfig)
	for name, set := range map[string]func(*uploadv1.FunctionConfig){
		"timeout":        func(to *uploadv1.FunctionConfig) { to.Timeout = given(c.timeout) },
		"retries":        func(to *uploadv1.FunctionConfig) { to.MaxAttempts = int32(most) }, //nolint:gosec // checked
		"retry-failures": func(to *uploadv1.FunctionConfig) { to.RetryFailures = c.retryFailures },
		"result-age":     func(to *uploadv1.FunctionConfig) { to.ResultAge = given(c.resultAge) },
		"webhook":        func(to *uploadv1.FunctionConfig) { to.WebhookUrl = c.webhook },
		"env":            func(to *uploadv1.FunctionConfig) { to.Env = merged(to.GetEnv(), env, to.GetSecrets()) },
		"secret":         func(to *uploadv1.FunctionConfig) { to.Secrets = merged(to.GetSecrets(), secrets, to.GetEnv()) },
		"unset": func(to *uploadv1.FunctionConfig) {
			for _, name := range c.unset {
				delete(to.GetEnv(), name)
				delete(to.GetSecrets(), name)
			}
		},
		"arg":        func(to *uploadv1.FunctionConfig) { to.Args = c.args },
		"no-args":    func(to *uploadv1.FunctionConfig) { to.Args = nil },
		"mount":      func(to *uploadv1.FunctionConfig) { to.Mounts = mounts },
		"no-mounts":  func(to *uploadv1.FunctionConfig) { to.Mounts = nil },
		"keep-local": func(to *uploadv1.FunctionConfig) { to.KeepLocal = c.keepLocal },
		"stdin":      func(to *uploadv1.FunctionConfig) { to.Stdin = in },
		"stdout":     func(to *uploadv1.FunctionConfig) { to.Stdout = out },
	} {
		if cmd.Flags().Changed(name) {
			sets = append(sets, set)
		}
	}
	return func(to *uploadv1.FunctionConfig) {
		if c.reset {
			revision := to.GetRevision()
			proto.Reset(to)
			to.Revision = revision
		}
		for _, set := range sets {
			set(to)
		}
	}, nil
}

// reconfigure edits a function's configuration. Another change that comes between costs another try.
func reconfigure(ctx context.Context, upload uploadv1.UploadServiceClient, f skein.Function, edit func(*uploadv1.FunctionConfig)) (*uploadv1.Function, error) {
	const tries = 200
	for try := 1; ; try++ {
		got, err := upload.GetFunction(ctx, &uploadv1.GetFunctionRequest{User: string(f.User), Function: f.Name})
		if err != nil {
			return nil, err
		}
		config := got.GetFunction().GetConfig()
		edit(config)
		resp, err := upload.ConfigureFunction(ctx, &uploadv1.ConfigureFunctionRequest{User: string(f.User), Function: f.Name, Config: config})
		if err == nil {
			return resp.GetFunction(), nil
		}
		if try == tries || fault.From(err).Reason != "CONFIG_CHANGED" {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(rand.N(time.Duration(min(try, 50)) * 5 * time.Millisecond)):
		}
	}
}

// pairs reads NAME=VALUE.
func pairs(flag, by string, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, one := range list {
		name, value, ok := strings.Cut(one, by)
		if !ok || name == "" {
			return nil, usagef("--%s: want NAME%sVALUE", flag, by) // what was given may be a secret, by mistake
		}
		out[name] = value
	}
	return out, nil
}

// merged is a map with more in it; a name can't be in the other map too.
func merged(to, more, other map[string]string) map[string]string {
	if to == nil {
		to = map[string]string{}
	}
	for name := range more {
		delete(other, name)
	}
	maps.Copy(to, more)
	return to
}

// maxSecret bounds what is read of a file, in bytes.
const maxSecret = skein.MaxEnvBytes

func (c *configuring) readSecrets(stdin io.Reader) (map[string]string, error) {
	from, err := pairs("secret", "=", c.secrets)
	if err != nil {
		return nil, err
	}
	used := false
	for name, path := range from {
		in := stdin
		switch {
		case path == "":
			return nil, usagef("--secret %s: want the name of a file, or - for standard input", name)
		case path == "-" && used:
			return nil, usagef("--secret %s=-: only one can come from standard input", name)
		case path == "-":
			used = true
		default:
			file, err := os.Open(path)
			if err != nil {
				return nil, usagef("--secret %s: the file with its value can't be read", name) // its name may be the value, by mistake
			}
			defer func() { _ = file.Close() }()
			in = file
		}
		b, err := io.ReadAll(io.LimitReader(in, maxSecret+1))
		if err != nil {
			return nil, err
		}
		value := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
		switch {
		case len(b) > maxSecret:
			return nil, fault.TooLarge.New("TOO_LARGE", "the secret %s has more than %d bytes", name, maxSecret)
		case value == "":
			return nil, usagef("--secret %s: it is empty", name)
		}
		from[name] = value
	}
	return from, nil
}

func (c *configuring) mountList() (list []*uploadv1.Mount, err error) {
	for _, m := range c.mounts {
		i := strings.LastIndex(m, ":/")
		if i < 0 {
			return nil, usagef("--mount %q: want PREFIX:/AT, such as models/v2:/data, or :/ for all shared files", m)
		}
		list = append(list, &uploadv1.Mount{Prefix: strings.Trim(m[:i], "/"), At: m[i+1:]})
	}
	return list, nil
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
	drawRun(w, c)
}

// drawRun shows how guests are started; secrets have no values here.
func drawRun(w *tabwriter.Writer, c *uploadv1.FunctionConfig) {
	for _, name := range slices.Sorted(maps.Keys(c.GetEnv())) {
		row(w, "env", name+"="+c.GetEnv()[name])
	}
	for _, name := range slices.Sorted(maps.Keys(c.GetSecrets())) {
		row(w, "secret", name)
	}
	for _, arg := range c.GetArgs() {
		row(w, "arg", arg)
	}
	for _, m := range c.GetMounts() {
		row(w, "mount", m.GetPrefix()+":"+m.GetAt())
	}
	if c.GetKeepLocal() {
		row(w, "local files", "kept")
	}
	if c.GetStdin() == uploadv1.Stdin_STDIN_EMPTY {
		row(w, "stdin", "empty")
	}
	switch c.GetStdout() {
	case uploadv1.Stdout_STDOUT_OUTPUT:
		row(w, "stdout", "the output")
	case uploadv1.Stdout_STDOUT_LOG:
		row(w, "stdout", "the log")
	}
}
