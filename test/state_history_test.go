package test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/anishathalye/porcupine"
	"github.com/rs/zerolog"

	"skein.dev/test/cluster"
)

var historyTime = flag.Duration("history", 8*time.Second, "how long TestStateHistories lets faults happen")

// wants is what a guest is asked to do, and got what it said. Of a call that failed nobody knows whether it did it.
type wants struct {
	op, key  string
	old, new string
	delta    int64
}

type got struct {
	known bool
	text  string
}

// shared is what porcupine thinks a value is.
type shared struct {
	sum  int64
	data string
}

var sharedModel = porcupine.Model{
	Init: func() any { return shared{} },
	Partition: func(history []porcupine.Operation) (all [][]porcupine.Operation) {
		keys := map[string][]porcupine.Operation{}
		for _, o := range history {
			keys[o.Input.(wants).key] = append(keys[o.Input.(wants).key], o)
		}
		for _, part := range keys {
			all = append(all, part)
		}
		return all
	},
	Step: func(state, in, out any) (bool, any) {
		says, next := sharedStep(state.(shared), in.(wants))
		return !out.(got).known || out.(got).text == says, next
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

// sharedStep is what an operation answers, and what the value is then.
func sharedStep(v shared, in wants) (says string, _ shared) {
	switch in.op {
	case "add":
		v.sum += in.delta
		return strconv.FormatInt(v.sum, 10), v
	case "increment":
		v.sum++
		return strconv.FormatInt(v.sum, 10), v
	case "append":
		return strconv.Itoa(len(v.data)), shared{data: v.data + in.new}
	case "get":
		return v.data, v
	}
	if strings.TrimPrefix(in.old, "-") != v.data {
		return "0", v
	}
	return "1", shared{data: in.new}
}

// invoke has a guest do it.
func (in wants) invoke(ctx context.Context, c *cluster.Cluster) got {
	text := strings.Join([]string{in.op, in.key, in.new}, " ")
	switch in.op {
	case "add":
		text = fmt.Sprint("add ", in.key, " ", in.delta)
	case "cas":
		text = strings.Join([]string{in.op, in.key, in.old, in.new}, " ")
	}
	a, err := tryRequest(ctx, c, http.MethodPost, "/v1/invoke/ann/keeper?timeout=8s", []byte(text))
	return got{err == nil && a.status == 200, string(a.body)}
}

// frontier is each executor's way to state.
type frontier struct{ proxies []*toxiproxy.Proxy }

func (f *frontier) front(t *testing.T) func(int, string) string {
	nobody := zerolog.Nop()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), nobody)
	return func(i int, state string) string {
		p := toxiproxy.NewProxy(server, fmt.Sprint("state", i), cluster.FreePort(t), state)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		f.proxies = append(f.proxies, p)
		return p.Listen
	}
}

// faults happen one after another until the context ends; afterwards all is well.
func (f *frontier) faults(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	pause := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	toxics := func(all ...string) func() {
		return func() {
			p := f.proxies[rand.N(len(f.proxies))]
			for _, toxic := range all {
				if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
					t.Error(err)
				}
			}
			pause(700 * time.Millisecond)
			p.Toxics.ResetToxics(context.WithoutCancel(ctx))
		}
	}
	const up, down = `{"name":"up","type":"timeout","stream":"upstream","attributes":{"timeout":0}}`, `{"name":"down","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`
	all := map[string]func(){
		"cut off":         toxics(up, down),
		"half open, up":   toxics(up),
		"half open, down": toxics(down),
		"reset":           toxics(`{"name":"reset","type":"reset_peer","stream":"downstream","attributes":{"timeout":20}}`),
		"late":            toxics(`{"name":"late","type":"latency","stream":"downstream","attributes":{"latency":100,"jitter":90}}`),
		"slow":            toxics(`{"name":"slow","type":"bandwidth","stream":"upstream","attributes":{"rate":8}}`),
		"executor killed": func() { p := c.Executors[rand.N(len(c.Executors))]; p.Kill(); p.Start() },
		"executor frozen": func() {
			p := c.Executors[rand.N(len(c.Executors))]
			p.Pause()
			pause(1500 * time.Millisecond) // longer than a lease
			p.Resume()
		},
		"state killed":    func() { c.State.Kill(); c.State.Start() },
		"state restarted": func() { c.State.Stop(); c.State.Start() },
		"redis killed":    func() { c.Redis.Kill(); c.Redis.Start() },
	}
	for ctx.Err() == nil {
		for name, fault := range all { // in a random order
			if ctx.Err() == nil {
				t.Log(name)
				fault()
				pause(200 * time.Millisecond)
			}
		}
	}
}

// freshKeys are keys that change with time, and after a few calls of unknown end: a history with many of these is hard to judge,
// since each may have happened at any time since, or never.
type freshKeys struct {
	began   time.Time
	mu      sync.Mutex
	unknown map[string]int    // calls, by key
	turn    map[string]int    // by kind
	all     map[string]string // the kind of each
}

const mostUnknown = 3

func (f *freshKeys) of(kind string, lives time.Duration) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		key := fmt.Sprintf("h/%s%d.%d", kind, time.Since(f.began)/lives, f.turn[kind])
		if f.unknown[key] < mostUnknown {
			f.all[key] = kind
			return key
		}
		f.turn[kind]++
	}
}

func (f *freshKeys) doubt(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unknown[key]++
}

// What guests on two executors see of values, while these are cut off from state, killed and frozen, and state and Redis killed,
// has an order in which it could have happened one after another; those that have a lock are alone.
func TestStateHistories(t *testing.T) {
	var f frontier
	c := cluster.Processes(t, cluster.Options{
		Executors: 2, ExecutorArgs: []string{"--slots", "8", "--lock-lease", "1s"}, PlannerArgs: []string{"--executor-silence", "1s"}, StateFront: f.front(t),
	})
	upload(t, c, "ann", "keeper")
	ctx, cancel := context.WithTimeout(t.Context(), *historyTime)
	defer cancel()
	var mu sync.Mutex
	var history []porcupine.Operation
	known, began := 0, time.Now()
	keys := freshKeys{began: began, unknown: map[string]int{}, turn: map[string]int{}, all: map[string]string{}}
	do := func(in wants) got {
		call := int64(time.Since(began))
		out, back := in.invoke(t.Context(), c), int64(time.Since(began))
		mu.Lock()
		defer mu.Unlock()
		if out.known {
			known++
		} else {
			keys.doubt(in.key)
			back = int64(1000 * time.Hour) // it may happen yet
		}
		history = append(history, porcupine.Operation{ClientId: len(history), Input: in, Call: call, Output: out, Return: back})
		return out
	}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			last := map[string]string{}
			for n := 0; ctx.Err() == nil; n++ {
				in := wants{op: []string{"add", "append", "append", "get", "get", "cas", "cas", "increment", "increment"}[rand.N(9)], new: fmt.Sprintf("%d.%d,", w, n)}
				switch in.op {
				case "add":
					in.key, in.delta = keys.of("sum", time.Second), rand.Int64()
				case "increment":
					in.key, in.new = keys.of("lock", 4*time.Second), ""
				case "cas":
					in.key = keys.of("cas", time.Second)
					in.old = "-"
					if was := last[in.key]; was != "" {
						in.old = was
					}
				default:
					in.key = keys.of("log", time.Second)
				}
				if in.op == "get" && rand.N(2) == 0 {
					in.key = keys.of("cas", time.Second)
				}
				out := do(in)
				if out.known && (in.op == "cas" && out.text == "1") {
					last[in.key] = in.new
				} else if out.known && in.op == "get" {
					last[in.key] = out.text
				}
			}
		})
	}
	f.faults(ctx, t, c)
	wg.Wait()
	attached(t, c, 2)
	for key, kind := range keys.all { // no lock has stayed
		if kind != "lock" {
			continue
		}
		eventually(t, 30*time.Second, func() string { // executors may still be on their way back to state
			if out := do(wants{op: "increment", key: key}); !out.known {
				return fmt.Sprintf("the lock of %s: %+v", key, out)
			}
			return ""
		})
	}
	result, info := porcupine.CheckOperationsVerbose(sharedModel, history, time.Minute)
	t.Logf("%d operations, %d of them answered: %s", len(history), known, result)
	if result != porcupine.Ok {
		name := t.ArtifactDir() + "/history.html"
		t.Errorf("not linearizable, or too hard to tell; see %s (%v)", name, porcupine.VisualizePath(sharedModel, info, name))
	}
	if known < 50 {
		t.Errorf("only %d operations were answered", known)
	}
}
