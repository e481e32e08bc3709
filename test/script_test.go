package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"skein.dev/test/cluster"
)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// The scripts of testdata run against both forms of the suite. They run beside one another on one suite, so each has users
// of its own. testdata/README.md has the commands that they use besides testscript's.
func TestScripts(t *testing.T) {
	t.Run("dev", func(t *testing.T) { runScripts(t, cluster.Dev(t)) })
	t.Run("processes", func(t *testing.T) {
		runScripts(t, cluster.Processes(t, cluster.Options{
			Executors: 2, Env: []string{
				"SKEIN_WEBHOOK_ALLOW=127.0.0.1", "SKEIN_WEBHOOK_KEY=" + webhookKey, artifactKey,
				"SKEIN_REDIS_TIMEOUT=20s", // a busy disk is not what these tests are about
			},
		}))
	})
}

func runScripts(t *testing.T, c *cluster.Cluster) {
	s := scripts{c}
	bin := cluster.BinDir(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"http": s.http, "json": jsonCmd, "capture": captureCmd, "exits": exitsCmd, "guest": guestCmd,
			"until": untilCmd, "receiver": receiverCmd, "received": receivedCmd,
		},
		Condition: s.condition,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, c.Env()...)
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("ROOT", cluster.Root())
			env.Setenv("PLANNER", c.URL("/v1/invoke"))
			env.Setenv("UPLOAD", c.URL("/v1/functions"))
			env.Setenv("STATE", c.URL("/v1/state"))
			env.Setenv("FILES", c.URL("/v1/files"))
			env.Setenv("CALLS", c.URL("/v1/calls"))
			env.Setenv("SERVER", c.URL(""))
			return nil
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// artifactKey is the environment of services that can keep secrets.
const artifactKey = "SKEIN_ARTIFACT_KEY=a-key-that-only-tests-have"

type scripts struct{ c *cluster.Cluster }

func (s scripts) condition(name string) (bool, error) {
	switch name {
	case "dev":
		return s.c.Dev(), nil
	case "clang":
		if !cluster.HaveC() && cluster.RequireTools() {
			return false, errors.New("guests in C can't be built here, and SKEIN_REQUIRE_TOOLS is set")
		}
		return cluster.HaveC(), nil
	case "curl":
		_, err := exec.LookPath("curl")
		if err != nil && cluster.RequireTools() {
			return false, err
		}
		return err == nil, nil
	}
	return false, fmt.Errorf("no condition is called %q", name)
}

// httpTime bounds one request of a script.
const httpTime = 2 * time.Minute

var client = &http.Client{
	Timeout:       httpTime,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// http STATUS METHOD PATH [-d TEXT | -T FILE | -zeros N] [-H 'NAME: VALUE']...
//
// It sends a request to the service that PATH's prefix names. The body becomes the script's stdout, status and header its
// stderr. STATUS may end in xx.
func (s scripts) http(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: http STATUS METHOD PATH [-d TEXT | -T FILE | -zeros N] [-H 'NAME: VALUE']...")
	}
	want, method, path := args[0], args[1], args[2]
	req, err := http.NewRequest(method, s.c.URL(path), nil)
	ts.Check(err)
	for rest := args[3:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) == 1 {
			ts.Fatalf("http: %s needs a value", rest[0])
		}
		switch value := rest[1]; rest[0] {
		case "-d":
			setBody(req, strings.NewReader(value), len(value))
		case "-T":
			data := ts.ReadFile(value)
			setBody(req, strings.NewReader(data), len(data))
		case "-zeros":
			n, err := strconv.Atoi(value)
			ts.Check(err)
			setBody(req, io.LimitReader(zeros{}, int64(n)), n)
		case "-H":
			name, v, ok := strings.Cut(value, ":")
			if !ok {
				ts.Fatalf("http: -H %q: want NAME: VALUE", value)
			}
			req.Header.Add(name, strings.TrimSpace(v))
		default:
			ts.Fatalf("http: no option %s", rest[0])
		}
	}
	resp, err := client.Do(req)
	ts.Check(err)
	body, err := io.ReadAll(resp.Body)
	ts.Check(errors.Join(err, resp.Body.Close()))
	_, _ = ts.Stdout().Write(body)
	_, _ = fmt.Fprintf(ts.Stderr(), "HTTP %d\n", resp.StatusCode)
	ts.Check(resp.Header.Write(ts.Stderr()))
	if ok, _ := regexp.MatchString("^"+strings.ReplaceAll(want, "x", ".")+"$", strconv.Itoa(resp.StatusCode)); !ok {
		ts.Fatalf("%s %s: status %d, want %s: %.500q", method, path, resp.StatusCode, want, body)
	}
}

func setBody(req *http.Request, body io.Reader, size int) {
	req.Body, req.ContentLength = io.NopCloser(body), int64(size)
	if size == 0 {
		req.Body = http.NoBody
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// json PATH REGEXP
//
// The value at PATH (names and indices, joined by dots) of the JSON in the last command's stdout must match all of REGEXP.
// "! json PATH" says that there is none.
func jsonCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 && !(neg && len(args) == 1) {
		ts.Fatalf("usage: json PATH REGEXP, or ! json PATH")
	}
	value, ok := lookUp(ts.ReadFile("stdout"), args[0])
	if neg {
		if ok {
			ts.Fatalf("json: there is %s: %q", args[0], value)
		}
		return
	}
	if !ok {
		ts.Fatalf("json: there is no %s in %.2000s", args[0], ts.ReadFile("stdout"))
	}
	re, err := regexp.Compile("^(?:" + args[1] + ")$")
	ts.Check(err)
	if !re.MatchString(value) {
		ts.Fatalf("json: %s is %q, want %s", args[0], value, args[1])
	}
}

func lookUp(text, path string) (string, bool) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var at any
	if dec.Decode(&at) != nil {
		return "", false
	}
	for name := range strings.SplitSeq(path, ".") {
		ok := false
		switch v := at.(type) {
		case map[string]any:
			at, ok = v[name]
		case []any:
			i, err := strconv.Atoi(name)
			if ok = err == nil && i >= 0 && i < len(v); ok {
				at = v[i]
			}
		}
		if !ok {
			return "", false
		}
	}
	switch v := at.(type) {
	case map[string]any, []any, nil:
		b, err := json.Marshal(v)
		return string(b), err == nil
	}
	return fmt.Sprint(at), true
}

// capture NAME REGEXP
//
// It puts the first group of REGEXP in the last command's stdout, or else its stderr, into a variable.
func captureCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for _, from := range []string{"stdout", "stderr"} {
		if m := re.FindStringSubmatch(ts.ReadFile(from)); len(m) > 1 {
			ts.Setenv(args[0], m[1])
			return
		}
	}
	ts.Fatalf("capture: nothing matches %s", args[1])
}

// exits CODE PROGRAM ARG...
//
// It is exec for a program that must end with CODE.
func exitsCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// guest NAME...
//
// It puts the modules of guests (see cluster.Guest) into the working directory as NAME.wasm.
func guestCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: guest NAME...")
	}
	for _, name := range args {
		file, err := cluster.BuildGuest(name)
		ts.Check(err)
		module, err := os.ReadFile(file)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(name+".wasm"), module, 0o644))
	}
}

// until REGEXP PROGRAM ARG...
//
// It runs a program again and again until it succeeds and its stdout matches, for a minute at most.
func untilCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM ARG...")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(50 * time.Millisecond) {
		if ts.Exec(args[1], args[2:]...) == nil && re.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("%s never gives %s", strings.Join(args[1:], " "), args[0])
}

// webhookKey signs webhooks where the suite is given one; skein dev leaves them unsigned.
const webhookKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// receiver is what webhooks are sent to.
type receiver struct {
	mu       sync.Mutex
	statuses []string
	got      chan *http.Request // with their bodies read into memory
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	rc.mu.Lock()
	status := http.StatusNoContent
	if len(rc.statuses) > 0 {
		status, _ = strconv.Atoi(rc.statuses[0])
		rc.statuses = rc.statuses[1:]
	}
	rc.mu.Unlock()
	w.WriteHeader(status)
	rc.got <- r
}

// receiver NAME STATUS...
//
// It starts a server for webhooks and puts its URL into a variable. Its first requests are answered with the statuses, the rest
// with 204.
func receiverCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: receiver NAME STATUS...")
	}
	rc := &receiver{statuses: args[1:], got: make(chan *http.Request, 100)}
	server := httptest.NewServer(rc)
	ts.Defer(server.Close)
	ts.Setenv(args[0], server.URL)
	receivers.Store(server.URL, rc)
}

var receivers sync.Map // by URL

// received URL
//
// It waits for the next request at a receiver: its headers are the script's stderr, its body the stdout.
func receivedCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: received URL")
	}
	rc, ok := receivers.Load(args[0])
	if !ok {
		ts.Fatalf("received: there is no receiver at %s", args[0])
	}
	select {
	case r := <-rc.(*receiver).got:
		body, _ := io.ReadAll(r.Body)
		_, _ = ts.Stdout().Write(body)
		ts.Check(r.Header.Write(ts.Stderr()))
	case <-time.After(httpTime):
		ts.Fatalf("received: nothing came in %s", httpTime)
	}
}

// The builder of small guests must say what it means: sizes and numbers are in LEB128.
func TestGuestsAreModules(t *testing.T) {
	for _, name := range []string{"hello", "trap", "spin", "exit3", "hog", "sleep", "push"} {
		module, err := os.ReadFile(cluster.Guest(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(module, []byte("\x00asm\x01\x00\x00\x00")) || len(module) > 500 {
			t.Errorf("%s: %d bytes, beginning %q", name, len(module), module[:8])
		}
	}
}
