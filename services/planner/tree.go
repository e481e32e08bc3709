package planner

import (
	"fmt"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// tree is what all calls that descend from one call from outside share. It begins with the first call that a call makes.
type tree struct {
	root     *record
	versions map[string]skein.Version // of functions by name: a tree keeps those it began with
	calls    int                      // ever accepted, the root included
	waiting  int64                    // bytes of input of its calls in the queue
}

// kin is a call's place among those of its tree that are alive, or have one alive below them: what a cancellation walks.
// It holds no call that ended with all below it, so what a tree once did costs nothing.
type kin struct {
	parent     *record
	kids       *record // the first; the others by next
	prev, next *record
	linked     bool // it is among its parent's kids
	pending    int  // spawns of this call whose version is being looked up
	severed    bool // it was cancelled, timed out or lost, or one above it was: nothing may begin below it
}

func (r *record) link() {
	p := r.parent
	r.linked, r.next = true, p.kids
	if p.kids != nil {
		p.kids.prev = r
	}
	p.kids = r
}

func (r *record) unlink() {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		r.parent.kids = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.prev, r.next, r.linked = nil, nil, false
}

// prune takes a call that has ended out of its kin once nothing is alive below it, and those above it likewise.
func prune(r *record) {
	for r.linked && r.State.Terminal() && r.kids == nil && r.pending == 0 {
		p := r.parent
		r.unlink()
		r = p
	}
}

// below gathers all that hangs below a call, those above before those below.
func (r *record) below(into []*record) []*record {
	for k := r.kids; k != nil; k = k.next {
		into = append(into, k)
		into = k.below(into)
	}
	return into
}

// sever ends all below a call, whether it ended itself or not. Those above go first, so that none is told of its
// children's ends.
func (c *Core) sever(now time.Time, r *record, why string) {
	r.severed = true
	if r.kids == nil {
		return
	}
	message := fmt.Sprintf("call %s above it %s", r.ID, why)
	below := r.below(nil)
	for _, k := range below {
		k.severed = true
	}
	for _, k := range below {
		if !k.State.Terminal() {
			c.stop(now, k, skein.Result{State: skein.Cancelled, Reason: "CANCELLED", Message: message})
		}
	}
}

// Spawn is a call that a call on an executor made.
type Spawn struct {
	ID       skein.CallID
	Parent   skein.CallID
	Function string // a name under the parent's user; with Entry, the parent's own whatever it says
	Input    []byte
	Args     []string
	Entry    *uint32   // of the module's function table
	Started  bool      // it runs there already
	Known    bool      // its executor knows the version: that it is accepted need not be said
	Deadline time.Time // zero for its parent's, which is the latest it can be
	Trace    map[string]string
	Refuse   *fault.Error // set for one that must not be, whatever the core knows
}

// pending is a spawn whose function's version is not known to its tree yet.
type pending struct {
	Spawn
	ex      *executor
	parent  *record
	attempt int32 // of the parent
}

// lookup names a function of a tree.
type lookup struct {
	root     skein.CallID
	function skein.Function
}

// Spawn takes calls that calls on an executor made. Each is answered: Accepted, with the version that its tree has of
// the function, or Refused; but one whose version is known to both only if it is refused. Saying it twice is the same as once.
func (c *Core) Spawn(now time.Time, executorID string, spawns []Spawn) []Command {
	ex := c.executors[executorID]
	if ex == nil {
		return nil
	}
	ex.LastHeard = now
	for i := range spawns {
		c.spawn(now, ex, &spawns[i])
	}
	c.schedule(now)
	return c.take()
}

func (c *Core) spawn(now time.Time, ex *executor, s *Spawn) {
	if r := c.calls[s.ID]; r != nil {
		if r.Parent != s.Parent {
			c.refuse(ex, s, "CALL_EXISTS", "there is another call of this id")
			return
		}
		c.emit(Accepted, ex.ID, r, "")
		return
	}
	parent := ex.running[s.Parent]
	if parent == nil {
		c.refuse(ex, s, "NO_PARENT", "the call that made it does not run on this executor")
		return
	}
	if parent.tree == nil {
		parent.tree = &tree{root: parent, calls: 1, versions: map[string]skein.Version{parent.Function.Name: parent.Version}}
	}
	fn, version := skein.Function{User: parent.Function.User, Name: s.Function}, parent.Version
	if s.Entry == nil {
		var known bool
		version, known = parent.tree.versions[s.Function]
		switch {
		case !known && s.Started:
			c.refuse(ex, s, "NO_VERSION", "its tree has no version of "+fn.String())
			return
		case !known && c.refusal(parent, s) == nil:
			key := lookup{parent.tree.root.ID, fn}
			if c.lookups[key] == nil {
				c.emit(Resolve, "", parent.tree.root, "")
				c.commands[len(c.commands)-1].Function = fn
			}
			parent.pending++
			late := *s
			late.Known = false // it can't be: the tree has none yet
			c.lookups[key] = append(c.lookups[key], pending{late, ex, parent, parent.Attempt})
			return
		}
	}
	c.admit(now, ex, parent, s, version)
}

// Resolved answers a Resolve: the version that the tree of root has of a function from now on, or why there is none.
func (c *Core) Resolved(now time.Time, root skein.CallID, fn skein.Function, version skein.Version, err error) []Command {
	key := lookup{root, fn}
	waiting := c.lookups[key]
	delete(c.lookups, key)
	if len(waiting) > 0 && err == nil {
		waiting[0].parent.tree.versions[fn.Name] = version
	}
	for i := range waiting {
		p := &waiting[i]
		p.parent.pending--
		switch {
		case c.executors[p.ex.ID] != p.ex: // nobody waits for the answer
		case p.attempt != p.parent.Attempt:
			c.refuse(p.ex, &p.Spawn, "NO_PARENT", "the attempt that made it has ended")
		case err != nil && !p.parent.severed:
			f := fault.From(err)
			c.refuse(p.ex, &p.Spawn, f.Reason, f.Message)
		default:
			c.admit(now, p.ex, p.parent, &p.Spawn, version)
		}
		prune(p.parent)
	}
	c.schedule(now)
	return c.take()
}

// refusal says why a call may not make another.
func (c *Core) refusal(parent *record, s *Spawn) *fault.Error {
	t := parent.tree
	switch {
	case s.Refuse != nil:
		return s.Refuse
	case parent.severed:
		return fault.Cancelled.New("CANCELLED", "the call that made it, or one above that, was cancelled")
	case parent.Depth >= skein.MaxDepth:
		return fault.Exhausted.New("TOO_DEEP", "a call can have %d calls above it", skein.MaxDepth)
	case len(parent.children) >= skein.MaxChildren:
		return fault.Exhausted.New("TOO_MANY_CHILDREN", "a call can make %d calls", skein.MaxChildren)
	case t.calls >= c.limits.TreeCalls:
		return fault.Exhausted.New("TREE_TOO_LARGE", "a tree can have %d calls", c.limits.TreeCalls)
	case !s.Started && t.waiting > 0 && t.waiting+weight(&skein.Call{Input: s.Input, Args: s.Args}) > c.limits.TreeBytes:
		return fault.Exhausted.New("TREE_TOO_LARGE", "the inputs of a tree's calls that wait can have %d bytes", c.limits.TreeBytes)
	}
	return nil
}

func (c *Core) refuse(ex *executor, s *Spawn, reason, message string) {
	if s.Started && c.calls[s.ID] == nil { // it must not go on without a record
		c.emit(CancelOn, ex.ID, &record{Record: Record{Call: skein.Call{ID: s.ID, Parent: s.Parent}}}, "CANCELLED")
	}
	c.emit(Refused, ex.ID, &record{Record: Record{Call: skein.Call{ID: s.ID, Parent: s.Parent}}}, reason)
	c.commands[len(c.commands)-1].Message = message
}

// admit makes a call of a spawn, or refuses it.
func (c *Core) admit(now time.Time, ex *executor, parent *record, s *Spawn, version skein.Version) {
	if f := c.refusal(parent, s); f != nil {
		c.refuse(ex, s, f.Reason, f.Message)
		return
	}
	if r := c.calls[s.ID]; r != nil { // said twice while its version was looked up
		c.emit(Accepted, ex.ID, r, "")
		return
	}
	deadline := s.Deadline
	if deadline.IsZero() || deadline.After(parent.Deadline) {
		deadline = parent.Deadline
	}
	fn := parent.Function
	if s.Entry == nil {
		fn.Name = s.Function
	}
	r := &record{
		Record: Record{
			Call: skein.Call{
				ID: s.ID, Function: fn, Version: version, Parent: parent.ID, Root: parent.Root, Depth: parent.Depth + 1,
				Entry: s.Entry, Input: s.Input, Args: s.Args, Deadline: deadline, Trace: s.Trace,
			},
			Options: Options{TraceID: parent.TraceID},
		},
		tree: parent.tree,
		kin:  kin{parent: parent},
	}
	parent.tree.calls++
	parent.children = append(parent.children, r.ID)
	r.link()
	c.enter(now, r)
	if !s.Known {
		c.emit(Accepted, ex.ID, r, "")
	}
	if s.Started {
		c.run(now, ex, r)
		return
	}
	c.begin(now, r)
}

// Wait is a call that gave its slot back until one of its children ends, or has one again.
type Wait struct {
	ID       skein.CallID
	Children []skein.CallID // none: it waits no more
	Timeout  time.Duration  // 0: until its deadline
}

// waiting is what a call waits for.
type waiting struct {
	children []skein.CallID
	since    time.Time
	until    time.Time
}

// Waits notes which calls of an executor wait: those use no slot.
func (c *Core) Waits(now time.Time, executorID string, waits []Wait) []Command {
	ex := c.executors[executorID]
	if ex == nil {
		return nil
	}
	ex.LastHeard = now
	for _, w := range waits {
		r := ex.running[w.ID]
		switch {
		case r == nil:
			continue
		case len(w.Children) == 0:
			delete(ex.waiting, w.ID)
		default:
			until := r.Deadline
			if w.Timeout > 0 && now.Add(w.Timeout).Before(until) {
				until = now.Add(w.Timeout)
			}
			ex.waiting[w.ID] = waiting{w.Children, now, until}
		}
	}
	c.places.update(ex)
	c.schedule(now)
	return c.take()
}

// CancelChildren ends calls that calls on an executor made, and all below them.
func (c *Core) CancelChildren(now time.Time, executorID string, ids []skein.CallID) []Command {
	ex := c.executors[executorID]
	if ex == nil {
		return nil
	}
	ex.LastHeard = now
	for _, id := range ids {
		if r := c.calls[id]; r != nil && ex.running[r.Parent] != nil {
			c.cancel(now, r)
		}
	}
	c.schedule(now)
	return c.take()
}
