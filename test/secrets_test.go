package test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"skein.dev/platform/blob"
	"skein.dev/test/cluster"
)

// secret is what must be seen nowhere but in guests.
const secret = "t0p-s3cr3t/0f+ann"

// A secret reaches the guests of its function, however they are called, and nothing else: not the object store, the journal, logs,
// traces, snapshots, records or listings.
func TestSecrets(t *testing.T) {
	t.Run("dev", func(t *testing.T) {
		data := t.TempDir()
		c := cluster.Dev(t, "--log", "debug", "--data", data)
		useSecret(t, c)
		noSecretIn(t, "the log", []byte(c.Planner.Log()))
		noSecretInFiles(t, data)
	})
	t.Run("processes", func(t *testing.T) {
		c := cluster.Processes(t, cluster.Options{Executors: 2, Env: []string{artifactKey, "SKEIN_LOG=debug"}})
		useSecret(t, c)
		cl := dialClient(t, c)
		if res := routed(t, cl, "ann/plain", ""); string(res.Output) != fmt.Sprintln(len(secret)) {
			t.Errorf("past the planner it has %q", res.Output)
		}
		for _, p := range append(c.Executors, c.Planner, c.Upload, c.State, c.Fs) {
			noSecretIn(t, "the log of "+p.Name, []byte(p.Log()))
		}
		noSecretInFiles(t, c.Redis.Dir)
		bucket, err := blob.Open(t.Context(), c.Objects.URL())
		if err != nil {
			t.Fatal(err)
		}
		snapshots := 0
		for item, err := range blob.All(t.Context(), bucket, "") {
			if err != nil {
				t.Fatal(err)
			}
			b, _, err := blob.Read(t.Context(), bucket, item.Key, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			if n := noSecretIn(t, item.Key, b); n > 1<<16 && strings.HasPrefix(item.Key, "snapshots/") {
				snapshots++
			}
		}
		if snapshots == 0 {
			t.Error("there is no snapshot that could have held it")
		}
	})
}

// useSecret has a secret used by calls of all kinds, and looks at what is told of them.
func useSecret(t *testing.T, c *cluster.Cluster) {
	uploadAs(t, c, "ann/plain", "plain-go")
	uploadAs(t, c, "ann/reactor", "echo-go") // it has a snapshot, and reads its environment at the beginning of each call
	config := []byte(`{"args": ["length", "TOKEN"], "secrets": {"TOKEN": "` + secret + `"}}`)
	told := [][]byte{
		want(t, 200, c, http.MethodPut, "/v1/functions/ann/plain/config?request_id=once", config).body,
		want(t, 200, c, http.MethodPut, "/v1/functions/ann/reactor/config", config).body,
		want(t, 400, c, http.MethodPut, "/v1/functions/ann/plain/config", bytes.Replace(config, []byte(`args": [`), []byte(`args": ["\u0000",`), 1)).body,
		want(t, 200, c, http.MethodGet, "/v1/functions/ann/plain", nil).body,
		want(t, 200, c, http.MethodGet, "/v1/functions/ann", nil).body,
	}
	var ids []string
	for _, path := range []string{"/v1/invoke/ann/plain", "/v1/invoke/ann/plain?request_id=r", "/v1/invoke/ann/reactor"} {
		for range 3 {
			a := want(t, 200, c, http.MethodPost, path, nil)
			if strings.Contains(path, "plain") && string(a.body) != fmt.Sprintln(len(secret)) {
				t.Errorf("%s has %q", path, a.body)
			}
			ids = append(ids, a.header.Get("Skein-Call-Id"))
		}
	}
	var rec record
	if err := json.Unmarshal(want(t, 200, c, http.MethodPost, "/v1/calls", []byte(`{"user": "ann", "function": "plain"}`)).body, &rec); err != nil {
		t.Fatal(err)
	}
	a := want(t, 200, c, http.MethodGet, "/v1/calls/"+rec.CallID+":wait?timeout=30s", nil)
	if !strings.Contains(string(a.body), base64.StdEncoding.EncodeToString([]byte(fmt.Sprintln(len(secret))))) {
		t.Errorf("the asynchronous call gives %s", a.body)
	}
	for _, id := range append(ids, rec.CallID) {
		for _, path := range []string{"", "/graph", "/logs"} {
			told = append(told, want(t, 200, c, http.MethodGet, "/v1/calls/"+id+path, nil).body)
		}
		if c.Dev() {
			told = append(told, traceOf(t, c, id))
		}
	}
	for _, b := range told {
		noSecretIn(t, fmt.Sprintf("%.300s", b), b)
	}
}

// traceOf is what is kept of a call's trace, once its configuration's being loaded is in it for the first.
func traceOf(t *testing.T, c *cluster.Cluster, id string) (b []byte) {
	t.Helper()
	var rec record
	if err := json.Unmarshal(want(t, 200, c, http.MethodGet, "/v1/calls/"+id, nil).body, &rec); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() string {
		a := request(t, c, http.MethodGet, "/api/v3/traces/"+rec.TraceID, nil)
		if b = a.body; a.status != http.StatusOK || !bytes.Contains(b, []byte("call ann/")) {
			return fmt.Sprintf("the trace is %d %.200s", a.status, b)
		}
		return ""
	})
	return b
}

func noSecretInFiles(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		noSecretIn(t, path, b)
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files in %s, %v", files, dir, err)
	}
}

// noSecretIn looks for the secret as it is, in base64 as JSON has bytes, and in what is compressed, of which it returns the bytes.
func noSecretIn(t *testing.T, where string, b []byte) (compressed int) {
	t.Helper()
	in := func(b []byte) bool {
		return bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte(base64.StdEncoding.EncodeToString([]byte(secret))[:20]))
	}
	found := in(b)
	for at := bytes.Index(b, []byte("\x28\xb5\x2f\xfd")); !found && at >= 0; {
		if z, err := zstd.NewReader(bytes.NewReader(b[at:]), zstd.WithDecoderConcurrency(1)); err == nil {
			plain, _ := io.ReadAll(io.LimitReader(z, 1<<30)) // what can be had: not all that looks so is a frame
			found = in(plain)
			compressed += len(plain)
			z.Close()
		}
		next := bytes.Index(b[at+4:], []byte("\x28\xb5\x2f\xfd"))
		if next < 0 {
			break
		}
		at += 4 + next
	}
	if found {
		t.Errorf("the secret is in %s", where)
	}
	return compressed
}
