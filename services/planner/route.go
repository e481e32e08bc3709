package planner

import (
	"cmp"
	"context"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc/peer"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
)

// Route is where a caller may give its calls of a function to by itself.
type Route struct {
	Executor string
	Address  string
	Target   Target
}

// routeLease is how long a route may be used: what changes is seen by those who use one within it.
const routeLease = time.Second

// Lease names an executor for calls of a function that do not come by this planner. It is chosen as one for a call would be.
func (p *Planner) Lease(ctx context.Context, f skein.Function) (Route, error) {
	target, err := p.resolve(ctx, f)
	if err != nil {
		return Route{}, err
	}
	if target.Chains {
		return Route{}, notRoutable("%s can make calls, which the planner must know of", f)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return Route{}, fault.Unavailable.New("DRAINING", "this planner is shutting down").WithRetry(time.Second)
	}
	if err := p.standing(); err != nil {
		return Route{}, err
	}
	ex, err := p.core.Route(target.Version.Digest)
	if err != nil {
		return Route{}, err
	}
	return Route{ex.ID, ex.Address, target}, nil
}

func notRoutable(format string, args ...any) error {
	return fault.Precondition.New("NOT_ROUTABLE", format, args...).WithHint("call it by the planner: Invoke")
}

// Route picks the executor that a call of a module would get now.
func (c *Core) Route(d skein.Digest) (Executor, error) {
	if c.policy == Compact { // whose calls run where is the planner's to decide
		return Executor{}, notRoutable("the policy is compact")
	}
	ex := c.places.pick(d, nil)
	switch {
	case c.queue.len() > 0 || ex == nil:
		return Executor{}, fault.Exhausted.New("NO_SLOT", "no slot is free").WithRetry(100 * time.Millisecond)
	case ex.Address == "":
		return Executor{}, notRoutable("executor %s does not say where it listens", ex.ID)
	}
	return ex.Executor, nil
}

// Load notes how many slots of an executor calls take that were not placed there.
func (c *Core) Load(now time.Time, id string, direct int) []Command {
	ex := c.executors[id]
	if ex == nil {
		return nil
	}
	ex.LastHeard, ex.direct = now, max(0, min(direct, ex.Slots))
	c.places.update(ex)
	c.schedule(now)
	return c.take()
}

// timeouts are how long a call of a target may take that asks for nothing, and the most that one may ask for.
func (s *Settings) timeouts() (usual, most time.Duration) {
	return cmp.Or(s.Timeout, DefaultTimeout), cmp.Or(s.Timeout, MaxTimeout)
}

// chains tells from what a module imports ("module.name") whether its calls can make others.
func chains(imports []string) bool {
	for _, imp := range imports {
		module, name, _ := strings.Cut(imp, ".")
		if row, ok := abi.Lookup(module, name); ok && row.Room == "chain" {
			return true
		}
	}
	return false
}

// reachedAt is the address that an executor gave, with the host that its stream came from in place of one that says "all".
func reachedAt(ctx context.Context, address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return address
	}
	from, ok := peer.FromContext(ctx)
	if !ok {
		return address
	}
	if host, _, err = net.SplitHostPort(from.Addr.String()); err != nil {
		return address
	}
	return net.JoinHostPort(host, port)
}
