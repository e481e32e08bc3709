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
	c.policy, c.clearing = p, clearing{cursor: c.clearing.cursor}
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

// label is what an operator said of an executor that went away.
type label struct {
	cordoned, marked bool
	until            time.Time
}

// labelAge is how long that holds: over a break of its stream, and a restart under its name.
const labelAge = 10 * time.Minute

func (p *places) setPolicy(policy Policy) {
	p.policy = policy
	p.owned, p.empty = map[skein.User]*set{}, set{}
	for _, ex := range p.seats {
		if ex != nil {
			ex.owner = ""
			clear(ex.users)
			for _, r := range ex.running {
				p.count(ex, r, 1)
			}
			p.update(ex)
		}
	}
}

// count notes that an executor runs a call more, or less; update must follow.
func (p *places) count(ex *executor, r *record, n int) {
	if p.policy != Compact {
		return
	}
	if ex.users[r.Function.User] += n; ex.users[r.Function.User] == 0 {
		delete(ex.users, r.Function.User)
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

// clearing is an executor that gets no more calls of others than those it has, and what is below them, so that it becomes one
// user's. One at a time is enough: those who wait take turns.
type clearing struct {
	ex     *executor
	user   skein.User
	until  time.Time // another is chosen then: what runs there may run for long
	cursor int       // the last seat that was chosen
}

// clearFor is how long an executor is cleared before another is tried.
const clearFor = 10 * time.Second

// placeCompact picks an executor that runs calls of this user only, or none at all. What is below a call may always go where
// that runs: it may wait for it.
func (c *Core) placeCompact(r *record, near *executor) *executor {
	if near != nil && near.level >= 0 && near.running[r.Parent] == r.parent {
		return near
	}
	if ex := c.among(r); ex != nil || r.parent == nil {
		return ex
	}
	served := false // whether some executor that has a call above this one takes calls
	for p := r.parent; p != nil; p = p.parent {
		ex := c.executors[p.Executor]
		if ex == nil || ex.running[p.ID] != p || ex.Draining() {
			continue
		}
		if ex.level >= 0 {
			return ex
		}
		served = true
	}
	if served {
		return nil
	}
	for _, ex := range c.places.seats { // rare: all above it are on executors that drain
		if ex != nil && ex.level >= 0 && ex.users[r.Function.User] > 0 {
			return ex
		}
	}
	return nil
}

// among picks of the executors that are this user's, else of the empty ones, without the one that is cleared for another.
func (c *Core) among(r *record) *executor {
	if ex := c.clearing.ex; ex != nil && ex.level >= 0 && c.clearing.user != r.Function.User && c.clears() {
		level := ex.level
		c.places.move(ex, -1)
		defer c.places.move(ex, level)
	}
	for _, s := range []*set{c.places.owned[r.Function.User], &c.places.empty} {
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

// clears tells whether the executor that is cleared is there and its user waits for it.
func (c *Core) clears() bool {
	ex := c.clearing.ex
	return ex != nil && c.executors[ex.ID] == ex && !ex.Draining() && c.queue.waits(c.clearing.user)
}

// scheduleCompact is schedule where one user's call can wait while another's need not.
func (c *Core) scheduleCompact(now time.Time) {
	blocked := map[skein.User]bool{}
	for c.queue.len() > 0 && !c.places.free.empty() {
		var late, choked, next *record
		var at *executor
		homeless := skein.User("") // the first of those who wait and have no executor
		for r := range c.queue.fronts {
			user := r.Function.User
			if blocked[user] {
				continue
			}
			if !now.Before(r.Deadline) {
				late = r
				break
			}
			if c.chokes(r) {
				choked = r
				break
			}
			if at = c.place(r); at != nil {
				next = r
				break
			}
			blocked[user] = true
			if homeless == "" && !c.houses(user) {
				homeless = user
			}
		}
		if homeless != "" {
			c.clear(now, homeless)
		}
		switch {
		case late != nil:
			c.stop(now, late, overdue)
		case choked != nil:
			c.postpone(now, choked)
		case next != nil:
			if c.clearing.user == next.Function.User {
				c.clearing = clearing{cursor: c.clearing.cursor}
			}
			c.dequeue(next)
			c.queue.pass(next)
			c.run(now, at, next)
			c.emit(Dispatch, at.ID, next, "")
		default:
			return
		}
	}
}

// houses tells whether an executor is a user's and takes calls, now or when it has a free slot.
func (c *Core) houses(user skein.User) bool {
	if s := c.places.owned[user]; s != nil {
		for seat := range s.all {
			if !c.places.seats[seat].Draining() {
				return true
			}
		}
	}
	return false
}

// clear chooses the executor that a user who has none gets: the one with the most free slots, then, each in turn.
func (c *Core) clear(now time.Time, user skein.User) {
	if c.clears() && now.Before(c.clearing.until) {
		return
	}
	p, cursor := &c.places, c.clearing.cursor
	if c.clearing.ex == nil && !p.free.empty() {
		cursor = p.levels[p.filled.first()].first()
	} else {
		for range p.seats {
			cursor = (cursor + 1) % len(p.seats)
			if ex := p.seats[cursor]; ex != nil && !ex.Draining() {
				break
			}
		}
	}
	c.clearing = clearing{p.seats[cursor], user, now.Add(clearFor), cursor}
}
