package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"skein.dev/platform/fault"
)

// demo shows an example at work. Each step is a command line of this program, printed and then run as if it had been
// typed: what the demo can do, a user can.
type demo struct {
	app      *app
	server   string
	function string
}

// runExample builds the Go example in dir, uploads it, calls it on the repository's LICENSE and draws the call's trace.
func (a *app) runExample(ctx context.Context, dir, addr string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "skein-example-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	name := exampleName(dir)
	module := filepath.Join(tmp, name+".wasm")
	text, err := above(dir, "LICENSE")
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(a.stdout, "\nbuilding %s …\n", dir)
	if err := buildGuest(ctx, dir, module); err != nil {
		return err
	}

	d := demo{app: a, server: addr, function: "ann/" + name}
	if _, err := d.step(ctx, "upload", d.function, module); err != nil {
		return err
	}
	if _, err := d.step(ctx, "files", "put", "ann/LICENSE", text); err != nil {
		return err
	}
	said, err := d.step(ctx, "invoke", "-v", d.function, "--input", "", "--", "LICENSE")
	if err != nil {
		return err
	}
	if call, ok := strings.CutPrefix(lastLine(said), "call "); ok {
		if _, err := d.step(ctx, "trace", call); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(a.stdout, `
Over REST:
  curl --data-binary 'the quick fox and the lazy dog' http://%s/v1/invoke/%s
  curl http://%[1]s/v1/state/ann/%[3]s
`, addr, d.function, name)
	return err
}

// step runs one command line and gives what it wrote to stderr.
func (d *demo) step(ctx context.Context, args ...string) (said string, err error) {
	_, _ = fmt.Fprintf(d.app.stdout, "\n$ %s %s\n", command(d.server), strings.Join(quoted(args), " "))
	var stderr bytes.Buffer
	line := append([]string{"--server", d.server, "--output", "text"}, args...)
	code := Run(ctx, line, nil, d.app.stdout, io.MultiWriter(d.app.stderr, &stderr))
	if code != 0 {
		return "", fmt.Errorf("%s ended with exit code %d", args[0], code)
	}
	return stderr.String(), nil
}

// quoted gives arguments as a shell reads them.
func quoted(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = a
		if a == "" || strings.ContainsAny(a, " '\"$&|;<>()*?`\\") {
			out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return out
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// exampleName is the directory's name, or its parent's where the directory is named after the language.
func exampleName(dir string) string {
	if base := filepath.Base(dir); base != "go" {
		return base
	}
	return filepath.Base(filepath.Dir(dir))
}

// above finds the nearest file of that name in dir or a directory around it.
func above(dir, name string) (string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		p := filepath.Join(at, name)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
		if at == filepath.Dir(at) {
			return "", fault.NotFound.New("NO_TEXT", "no %s in %s or above it", name, dir)
		}
	}
}

// guestBuild bounds a first build, which compiles the standard library for the guest.
const guestBuild = 5 * time.Minute

// buildGuest compiles a Go guest: as a reactor if it exports a function to the host, else as a command.
func buildGuest(ctx context.Context, dir, module string) error {
	sources, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	if len(sources) == 0 {
		return fault.NotFound.New("NO_SOURCE", "no Go source in %s", dir)
	}
	args := []string{"build", "-o", module}
	for _, name := range sources {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if bytes.Contains(text, []byte("\n//go:wasmexport ")) {
			args = []string{"build", "-buildmode=c-shared", "-o", module}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, guestBuild)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s in %s: %w\n%s", strings.Join(args, " "), dir, err, bytes.ReplaceAll(bytes.TrimSpace(out), []byte("\t"), []byte("    ")))
	}
	return nil
}
