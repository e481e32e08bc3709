package test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"skein.dev/platform/relaytest"
	"skein.dev/test/cluster"
)

// gate passes the executors' connections to state on, and does something once when so many bytes have come through one way.
type gate struct {
	mu   sync.Mutex
	left [2]int // bytes: to state, from state
	do   func()
}

const (
	toState = iota
	fromState
)

// arm has do called after n bytes that go one way; they and what follows wait until it is done.
func (g *gate) arm(way, n int, do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.do = [2]int{}, do
	g.left[way] = n
}

func (g *gate) pass(way, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left[way] > 0 {
		if g.left[way] -= n; g.left[way] <= 0 {
			g.do()
		}
	}
	return true
}

// front is a StateFront that leads through the gate.
func (g *gate) front(t *testing.T) func(int, string) string {
	return func(_ int, state string) string {
		r := relaytest.Listen(t)
		r.Serve(state, func(near, far net.Conn) {
			go relaytest.Pass(far, near, func(n int) bool { return g.pass(toState, n) })
			go relaytest.Pass(near, far, func(n int) bool { return g.pass(fromState, n) })
		})
		return r.Addr
	}
}

// The state process is killed in the middle of each kind of large transfer. Guests are told, keep what they have not pushed, and go on
// with its successor; a value that is replaced is the old or the new one at each moment, and one that is patched is so in each of its chunks.
func TestStateKilledInTransfer(t *testing.T) {
	const size, chunk = 16 << 20, 256 << 10
	var g gate
	c := cluster.Processes(t, cluster.Options{Executors: 1, StateFront: g.front(t)})
	upload(t, c, "ann", "keeper")
	value := func() (all []byte) {
		t.Helper()
		eventually(t, 10*time.Second, func() string { // one that is replaced while it is read is cut short
			a, err := tryRequest(t.Context(), c, http.MethodGet, "/v1/state/ann/big", nil)
			all = a.body
			if err != nil || a.status != 200 {
				return fmt.Sprint(a, err)
			}
			return ""
		})
		return all
	}
	// of says which bytes a value has, if each of its chunks has only one kind.
	of := func(value []byte) (kinds string) {
		for len(value) > 0 {
			n := min(chunk, len(value))
			if bytes.Count(value[:n], value[:1]) != n {
				return "a mix within a chunk"
			}
			if k := string(value[:1]); !strings.Contains(kinds, k) {
				kinds += k
			}
			value = value[n:]
		}
		return kinds
	}
	do := func(way int, input string) (said, meanwhile string) {
		t.Helper()
		happened := make(chan struct{})
		g.arm(way, size/2, func() { c.State.Kill(); close(happened) })
		end := background(t, c, http.MethodPost, "/v1/invoke/ann/keeper?timeout=50s", []byte(input))
		select {
		case <-happened:
		case <-time.After(time.Minute):
			t.Fatalf("%s: so many bytes did not come", input)
		}
		c.State.Start()
		meanwhile = of(value())
		a := end()
		if a.status != 200 {
			t.Errorf("%s: %s %s", input, a, a.header.Get("Skein-Exit-Code"))
		}
		t.Logf("%s: %s failed, meanwhile %q", input, a.body, meanwhile)
		return string(a.body), meanwhile
	}
	put := func(fill byte) {
		want(t, 200, c, http.MethodPut, "/v1/state/ann/big", bytes.Repeat([]byte{fill}, size))
	}

	put('a')
	if said, meanwhile := do(toState, fmt.Sprintf("fill big set %d b", size)); said == "0" || meanwhile != "a" && meanwhile != "b" {
		t.Errorf("replaced: %s pushes failed, and meanwhile there was %q", said, meanwhile)
	}
	if got := of(value()); got != "b" {
		t.Errorf("replaced: there is %q", got)
	}
	if said, meanwhile := do(toState, fmt.Sprintf("fill big map %d c", size)); said == "0" || strings.Trim(meanwhile, "bc") != "" {
		t.Errorf("patched: %s pushes failed, and meanwhile there was %q", said, meanwhile)
	}
	if got := of(value()); got != "c" {
		t.Errorf("patched: there is %q", got)
	}
	put('d') // the executor has another version
	do(fromState, fmt.Sprintf("look big %d d", size))
	c.Executors[0].Kill()
	c.Executors[0].Start() // it has none
	attached(t, c, 1)
	do(fromState, fmt.Sprintf("look big %d d", size))
}
