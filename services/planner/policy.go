package planner

import (
	"maps"
	"slices"
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
	c.rescan = true
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
	c.rescan = true
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
		return c.places.fullest(c.places.choice(r.Version.Digest, s), s)
	}
	return nil
}

// clears tells whether the executor that is cleared is there and its user waits for it.
func (c *Core) clears() bool {
	ex := c.clearing.ex
	return ex != nil && c.executors[ex.ID] == ex && !ex.Draining() && c.queue.waits(c.clearing.user)
}

// scheduleCompact is schedule where one user's call can wait while another's need not. It looks only at those for whom something
// changed: users who have calls on an executor that has a free slot anew, and, if an executor is empty, whose turn it is.
func (c *Core) scheduleCompact(now time.Time) {
	p := &c.places
	if c.rescan {
		c.rescan = false
		var all []skein.User
		for r := range c.queue.fronts {
			all = append(all, r.Function.User)
		}
		for _, user := range all {
			c.serve(now, user)
		}
		c.seek(now)
	}
	for c.queue.len() > 0 {
		if n := len(p.freed); n > 0 {
			ex := p.freed[n-1]
			p.freed, ex.freed = p.freed[:n-1], false
			if len(ex.users) == 0 && ex == c.clearing.ex && c.clears() {
				c.serve(now, c.clearing.user)
			}
			for _, user := range slices.Sorted(maps.Keys(ex.users)) {
				c.serve(now, user)
			}
			continue
		}
		r := c.queue.next()
		if p.free.firstWith(&p.empty) < 0 || !c.serve(now, r.Function.User) {
			break
		}
	}
	for _, ex := range p.freed {
		ex.freed = false
	}
	p.freed = p.freed[:0]
}

// serve lets the calls of a user begin that have a place, the deeper first, and tells whether one left the queue.
func (c *Core) serve(now time.Time, user skein.User) bool {
	served := false
	for !c.places.free.empty() {
		r := c.queue.nextOf(user)
		if r == nil {
			break
		}
		switch ex := c.place(r); {
		case !now.Before(r.Deadline):
			c.stop(now, r, overdue)
		case c.chokes(r):
			c.postpone(now, r)
		case ex == nil:
			return served
		default:
			if served && c.places.empty.has(ex.seat) && c.queue.next().Function.User != user { // it is others' turn to get an executor
				return served
			}
			if c.clearing.user == user {
				c.free(c.clearing.ex)
				c.clearing = clearing{cursor: c.clearing.cursor}
				defer c.seek(now)
			}
			c.dequeue(r)
			c.queue.pass(r)
			c.run(now, ex, r)
			c.emit(Dispatch, ex.ID, r, "")
		}
		served = true
	}
	return served
}

// free has scheduleCompact look at an executor.
func (c *Core) free(ex *executor) {
	if ex != nil && c.executors[ex.ID] == ex {
		c.places.update(ex)
	}
}

// seek has an executor cleared for the first of those who wait and have none.
func (c *Core) seek(now time.Time) {
	if len(c.executors) == 0 || c.clears() && now.Before(c.clearing.until) {
		return
	}
	for r := range c.queue.fronts {
		if !c.houses(r.Function.User) {
			c.clear(now, r.Function.User)
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
	old := c.clearing.ex
	c.clearing = clearing{p.seats[cursor], user, now.Add(clearFor), cursor}
	c.free(old)
}
