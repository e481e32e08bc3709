package state

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/redistest"
)

// until waits for something that other processes do.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never happened:", what)
		}
	}
}

// startMasters starts a cluster of three, as its operators do.
func startMasters(t *testing.T) *redistest.Server {
	t.Helper()
	if _, err := exec.LookPath("redis-cli"); err != nil {
		if os.Getenv("SKEIN_REQUIRE_TOOLS") == "1" {
			t.Fatal("redis-cli is not installed, and SKEIN_REQUIRE_TOOLS=1")
		}
		t.Skip("redis-cli is not installed")
	}
	args := []string{"--cluster", "create"}
	var all []*redistest.Server
	for range 3 {
		r := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", portOf(t, freeAddr(t)))
		args, all = append(args, r.Addr), append(all, r)
	}
	if out, err := exec.CommandContext(t.Context(), "redis-cli", append(args, "--cluster-replicas", "0", "--cluster-yes")...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, r := range all {
		until(t, "a cluster", func() bool {
			return r.Says("CLUSTER COUNTKEYSINSLOT 0") == ":0" && strings.Contains(r.Text("CLUSTER INFO"), "cluster_state:ok")
		})
	}
	return all[0]
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// When the primary dies, Sentinel makes a replica the primary: values are there as far as they were replicated, and changes,
// locks and watches go on.
func TestSentinel(t *testing.T) {
	primary := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", strings.ReplaceAll(primary.Addr, ":", " "))
	until(t, "replication", func() bool { return strings.Contains(replica.Text("INFO replication"), "master_link_status:up") })
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	addr := freeAddr(t)
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor main %s 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n",
		portOf(t, addr), strings.ReplaceAll(primary.Addr, ":", " "))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := redistest.At(addr, conf, "--sentinel")
	sentinel.Start(t)
	t.Cleanup(sentinel.Kill)
	until(t, "the Sentinel knows the replica", func() bool { return strings.Contains(sentinel.Text("SENTINEL REPLICAS main"), "slave-priority") })

	s := openStore(t, "redis://"+addr+"?master_name=main", time.Second)
	ctx, k := t.Context(), key(t, "ann", "k")
	info, err := s.Set(ctx, k, []byte("before"), Any, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := make(chan int64, 100)
	sets := make(chan []skein.StateKey, 1)
	sets <- []skein.StateKey{k}
	go func() {
		_ = s.Watch(ctx, sets, func(_ skein.StateKey, v int64) error { told <- v; return nil })
	}()
	if v := <-told; v != info.Version {
		t.Errorf("told version %d, want %d", v, info.Version)
	}
	until(t, "the value is on the replica", func() bool { return replica.Says("EXISTS "+metaKey(k)) == ":1" })
	primary.Kill()
	var again Info
	until(t, "a new primary", func() bool { again, err = s.Set(ctx, k, []byte("after"), info.Version, "id"); return err == nil })
	if again.Version <= info.Version {
		t.Error("versions", info.Version, again.Version)
	}
	holds(t, s, k, []byte("after"))
	for {
		select {
		case v := <-told:
			if v == again.Version {
				return
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the change was not told")
		}
	}
}
