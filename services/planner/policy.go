package planner

import (
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Policy is how calls are placed.
type Policy uint8

// The policies.
const (
	BinPack Policy = iota // fill the fullest executor that has a free slot
	Compact               // the same, but an executor runs calls of one user at a time
	Spot                  // as BinPack, but nothing is placed on marked executors
)

var policyNames = [...]string{BinPack: "bin-pack", Compact: "compact", Spot: "spot"}

func (p Policy) String() string { return policyNames[p] }

// ParsePolicy reads a policy's name.
func ParsePolicy(s string) (Policy, error) {
	for p, name := range policyNames {
		if s == name {
			return Policy(p), nil
		}
	}
	return 0, fault.Invalid.New("BAD_POLICY", "there is no policy %.40q", s).WithHint("choose bin-pack, compact or spot")
}

// SetPolicy changes how calls are placed from now on. What runs stays where it is.
func (c *Core) SetPolicy(now time.Time, p Policy) []Command {
	c.policy, c.clearing = p, clearing{}
	c.places.setPolicy(p)
	c.schedule(now)
	return c.take()
}

// Cordon stops the placing of calls on an executor, or allows it again.
func (c *Core) Cordon(now time.Time, id string, on bool) ([]Command, error) {
	return c.label(now, id, func(ex *executor) { ex.Cordoned = on })
}

// Mark says of an executor that its machine will be taken away, or takes that back.
func (c *Core) Mark(now time.Time, id string, on bool) ([]Command, error) {
	return c.label(now, id, func(ex *executor) { ex.Marked = on })
}

func (c *Core) label(now time.Time, id string, change func(*executor)) ([]Command, error) {
	ex := c.executors[id]
	if ex == nil {
		return nil, fault.NotFound.New("NO_EXECUTOR", "no executor named %.64q is attached", id).WithHint("skein executors lists them")
	}
	change(ex)
	c.places.update(ex)
	c.schedule(now)
	return c.take(), nil
}

func (p *places) setPolicy(policy Policy) {
	p.policy = policy
	p.owned, p.empty = map[skein.User]*set{}, set{}
	for _, ex := range p.seats {
		if ex != nil {
			ex.owner = ""
			p.update(ex)
		}
	}
}

// own files an executor under the user whose calls it runs.
func (p *places) own(ex *executor) {
	owner := skein.User("")
	if len(ex.users) == 1 {
		for u := range ex.users {
			owner = u
		}
	}
	if owner != ex.owner {
		p.disown(ex)
		ex.owner = owner
		if owner != "" {
			s := p.owned[owner]
			if s == nil {
				s = &set{}
				p.owned[owner] = s
			}
			s.add(ex.seat)
		}
	}
	if len(ex.users) == 0 {
		p.empty.add(ex.seat)
	} else {
		p.empty.remove(ex.seat)
	}
}

func (p *places) disown(ex *executor) {
	p.empty.remove(ex.seat)
	if s := p.owned[ex.owner]; s != nil {
		s.remove(ex.seat)
		if s.empty() {
			delete(p.owned, ex.owner)
		}
	}
	ex.owner = ""
}

// clearing is an executor that gets no more calls from outside of its present user, so that it becomes another's. One at a
// time is enough: each user who waits gets one, and nobody waits for ever.
type clearing struct {
	ex   *executor
	user skein.User
}

// placeCompact picks an executor that runs calls of this user only, or none at all.
func (c *Core) placeCompact(r *record, near *executor) *executor {
	user := r.Function.User
	if near != nil && near.level >= 0 && near.owner == user {
		return near
	}
	among := c.places.owned[user]
	if ex := c.clearing.ex; ex != nil && r.Depth == 0 && c.clearing.user != user { // what is below calls there must go on
		if among != nil && among.has(ex.seat) {
			among.remove(ex.seat)
			defer among.add(ex.seat)
		}
		if c.places.empty.has(ex.seat) {
			c.places.empty.remove(ex.seat)
			defer c.places.empty.add(ex.seat)
		}
	}
	for _, s := range []*set{among, &c.places.empty} {
		if s == nil || c.places.free.firstWith(s) < 0 {
			continue
		}
		if warm := c.places.holders[r.Version.Digest]; warm != nil {
			if ex := c.places.fullest(warm, s); ex != nil {
				return ex
			}
		}
		return c.places.fullest(nil, s)
	}
	return nil
}

// scheduleCompact is schedule where one user's call can wait while another's need not.
func (c *Core) scheduleCompact(now time.Time) {
	blocked := map[skein.User]bool{}
	for c.queue.len() > 0 && !c.places.free.empty() {
		var first, late *record // the first that could not be placed, and one whose deadline has passed
		var next *record
		var at *executor
		for r := range c.queue.fronts {
			user := r.Function.User
			if blocked[user] {
				continue
			}
			if !now.Before(r.Deadline) {
				late = r
				break
			}
			if at = c.place(r); at != nil {
				next = r
				break
			}
			blocked[user] = true
			if first == nil && c.places.owned[user] == nil {
				first = r
			}
		}
		if first != nil {
			c.clear(first.Function.User)
		}
		switch {
		case late != nil:
			c.stop(now, late, overdue)
		case next != nil:
			if c.clearing.user == next.Function.User {
				c.clearing = clearing{}
			}
			c.dequeue(next)
			c.queue.pass(next)
			if c.paused && next.Durable {
				c.later(now, next)
				continue
			}
			c.run(now, at, next)
			c.emit(Dispatch, at.ID, next, "")
		default:
			return
		}
	}
}

// clear chooses the executor that a user who has none gets: the one with the least to finish.
func (c *Core) clear(user skein.User) {
	if ex := c.clearing.ex; ex != nil && c.executors[ex.ID] == ex && !ex.Draining() && c.queue.waits(c.clearing.user) {
		return
	}
	var least *executor
	for _, ex := range c.places.seats {
		if ex != nil && !ex.Draining() && (least == nil || len(ex.running) < len(least.running)) {
			least = ex
		}
	}
	c.clearing = clearing{least, user}
}
