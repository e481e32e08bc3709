package planner

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// modelTrees is what the model knows of calls that calls make.
type modelTrees struct {
	spawning map[skein.CallID][]*modelSpawn // said, and not answered as often as said
	asked    map[lookup]bool                // Resolve was commanded, Resolved not said
	missing  bool                           // the version that is looked up now is not found
	accepts  int                            // children ever accepted
}

type modelSpawn struct {
	Spawn
	ex     string
	key    *modelExecutor // a successor of the name is another
	parent *modelCall     // nil for one that does not run there
	late   bool           // it waits for the version
}

func newModelTrees() modelTrees {
	return modelTrees{spawning: map[skein.CallID][]*modelSpawn{}, asked: map[lookup]bool{}}
}

// refusal is the reason that a spawn must be refused for now; "" if it must not be.
func (m *model) refusal(s *modelSpawn) string {
	p := s.parent
	if p == nil {
		return "NO_PARENT"
	}
	cut := false
	for a := p; a != nil; a = a.parent {
		cut = cut || a.cut
	}
	var waits int64
	for _, id := range m.order {
		if k := m.calls[id]; k.root == p.root && k.final == nil && k.ran == "" {
			waits += weight(&k.call)
		}
	}
	_, known := p.root.versions[s.Function]
	switch {
	case s.Started && s.Entry == nil && !known:
		return "NO_VERSION"
	case s.Refuse != nil:
		return s.Refuse.Reason
	case cut:
		return "CANCELLED"
	case p.call.Depth >= skein.MaxDepth:
		return "TOO_DEEP"
	case p.made >= skein.MaxChildren:
		return "TOO_MANY_CHILDREN"
	case p.root.size >= m.c.limits.TreeCalls:
		return "TREE_TOO_LARGE"
	case !s.Started && waits > 0 && waits+int64(len(s.Input)) > m.c.limits.TreeBytes:
		return "TREE_TOO_LARGE"
	}
	return ""
}

// answer takes the spawn that an answer is to.
func (m *model) answer(cmd *Command) (*modelSpawn, error) {
	all := m.spawning[cmd.Call.ID]
	i := slices.IndexFunc(all, func(s *modelSpawn) bool { return s.ex == cmd.Executor && !s.late })
	if i < 0 {
		return nil, fmt.Errorf("%+v answers what was not said", cmd)
	}
	s := all[i]
	if m.spawning[s.ID] = slices.Delete(all, i, i+1); len(all) == 1 {
		delete(m.spawning, s.ID)
	}
	return s, nil
}

// obeyTree takes commands that have to do with spawns alone.
func (m *model) obeyTree(cmd *Command) (bool, error) {
	switch cmd.Kind {
	case ChildEnded: // seen to be right already
		return true, nil
	case Resolve:
		key := lookup{cmd.Call.ID, cmd.Function}
		if m.asked[key] || cmd.Call.Root != cmd.Call.ID {
			return true, fmt.Errorf("%v is asked for twice", key)
		}
		m.asked[key] = true
		return true, nil
	case CancelOn:
		_, spawned := m.spawning[cmd.Call.ID]
		return spawned && m.calls[cmd.Call.ID] == nil, nil
	case Refused:
		s, err := m.answer(cmd)
		if err != nil {
			return true, err
		}
		if k := m.calls[s.ID]; k != nil && k.call.Parent != s.Parent {
			if cmd.Reason != "CALL_EXISTS" {
				return true, fmt.Errorf("the id of %s is taken: %+v", k.call.ID, cmd)
			}
			return true, nil
		}
		want := m.refusal(s)
		if cmd.Reason == "NO_FUNCTION" && m.missing && want != "CANCELLED" {
			want = cmd.Reason
		}
		if cmd.Reason != want || cmd.Message == "" {
			return true, fmt.Errorf("refused for %q, want %q: %+v", cmd.Reason, want, s)
		}
		return true, nil
	case Accepted:
		return true, m.accepted(cmd)
	}
	return false, nil
}

func (m *model) accepted(cmd *Command) error {
	s, err := m.answer(cmd)
	if err != nil {
		return err
	}
	if k := m.calls[s.ID]; k != nil { // said before
		if k.call.Parent != s.Parent {
			return fmt.Errorf("%s is accepted below %s and below %s", s.ID, k.call.Parent, s.Parent)
		}
		return nil
	}
	if want := m.refusal(s); want != "" {
		return fmt.Errorf("accepted, it should be %s: %+v", want, s)
	}
	p := s.parent
	k := &modelCall{call: cmd.Call.Call, parent: p, root: p.root}
	want := p.root.versions[s.Function]
	if s.Entry != nil {
		want = p.call.Version
	}
	if k.call.Version != want || k.call.Depth != p.call.Depth+1 || k.call.Root != p.root.call.ID || k.call.Deadline.After(p.call.Deadline) {
		return fmt.Errorf("accepted as %+v below %+v", k.call, p.call)
	}
	if s.Started {
		k.ran = s.ex
		m.execs[s.ex].holds[s.ID] = true
	}
	p.made++
	p.root.size++
	m.accepts++
	m.calls[s.ID] = k
	m.order = append(m.order, s.ID)
	return nil
}

// spawn says of up to three calls that they were made, mostly by one that runs.
func (m *model) spawn() error {
	name := m.executor()
	ex := m.execs[name]
	var list []Spawn
	for range 1 + m.rng.IntN(4) {
		s := Spawn{ID: m.id(), Function: some(m, []string{"f", "g", "h", "i"}), Parent: some(m, m.order), Input: make([]byte, m.rng.IntN(60)), Started: m.rng.IntN(4) == 0}
		if ex != nil && m.rng.IntN(10) > 0 {
			s.Parent = some(m, m.held(ex))
		}
		if m.rng.IntN(8) == 0 {
			s.Entry = new(uint32)
		}
		if m.rng.IntN(4) == 0 {
			s.Deadline = m.now.Add(time.Duration(m.rng.IntN(9000)) * time.Millisecond)
		}
		switch m.rng.IntN(30) {
		case 0:
			s.Refuse = fault.Invalid.New("BAD_ARGS", "bad")
		case 1:
			if len(m.order) > 0 {
				s.ID = some(m, m.order)
			}
		}
		list = append(list, s)
		if m.rng.IntN(10) == 0 {
			list = append(list, s)
		}
	}
	if ex == nil {
		if commands := m.c.Spawn(m.now, name, list); commands != nil {
			return fmt.Errorf("nobody's spawn commands %+v", commands)
		}
		return nil
	}
	ex.heard = m.now
	for _, s := range list {
		m.forget()
		said := &modelSpawn{Spawn: s, ex: name, key: ex}
		if ex.holds[s.Parent] {
			said.parent = m.calls[s.Parent]
		}
		if said.parent == nil && ex.holds[s.Parent] {
			continue // forgotten, and still there: the core knows, the model has no record
		}
		if p := said.parent; p != nil && m.calls[s.ID] == nil && s.Entry == nil && !s.Started {
			_, known := p.root.versions[s.Function]
			said.late = !known && m.refusal(said) == ""
		}
		m.spawning[s.ID] = append(m.spawning[s.ID], said)
		// One by one, so that what must come of each is known before it is said.
		if err := m.obey(m.c.Spawn(m.now, name, []Spawn{s})); err != nil {
			return err
		}
		if said.late && !m.asked[lookup{said.parent.root.call.ID, skein.Function{User: said.parent.call.Function.User, Name: s.Function}}] {
			return fmt.Errorf("nobody looks up what %+v needs", s)
		}
	}
	return m.answered()
}

// answered checks that only what waits for a version has no answer.
func (m *model) answered() error {
	for id, all := range m.spawning {
		for _, s := range all {
			if !s.late {
				return fmt.Errorf("spawn %s of %s has no answer: %+v", id, s.ex, s)
			}
		}
	}
	return nil
}

// resolve answers a look-up, or one that nobody asked for.
func (m *model) resolve() error {
	keys := slices.SortedFunc(maps.Keys(m.asked), func(a, b lookup) int {
		return slices.Compare([]byte(a.root.String()+a.function.Name), []byte(b.root.String()+b.function.Name))
	})
	key := some(m, keys)
	version, err := skein.Version{Function: key.function, Number: 1 + m.rng.Int64N(3)}, error(nil)
	version.Digest[0] = byte(m.rng.IntN(3))
	if m.rng.IntN(5) == 0 {
		version, err = skein.Version{}, fault.NotFound.New("NO_FUNCTION", "there is none")
	}
	delete(m.asked, key)
	m.missing = err != nil
	defer func() { m.missing = false }()
	for id, all := range m.spawning {
		for _, s := range all {
			if !s.late || s.parent.root.call.ID != key.root || s.Function != key.function.Name {
				continue
			}
			if s.late = false; err == nil {
				s.parent.root.versions[s.Function] = version
			}
			if m.execs[s.ex] != s.key { // there is nobody to answer
				all = slices.DeleteFunc(slices.Clone(all), func(o *modelSpawn) bool { return o == s })
				if m.spawning[id] = all; len(all) == 0 {
					delete(m.spawning, id)
				}
			}
		}
	}
	if err := m.obey(m.c.Resolved(m.now, key.root, key.function, version, err)); err != nil {
		return err
	}
	return m.answered()
}

// held lists what an executor holds of what is known, in an order that depends on the seed alone.
func (m *model) held(ex *modelExecutor) (held []skein.CallID) {
	for _, id := range m.order {
		if ex.holds[id] {
			held = append(held, id)
		}
	}
	return held
}

// wait says that some call waits, or no more.
func (m *model) wait() error {
	name := m.executor()
	ex := m.execs[name]
	if ex == nil {
		return m.obey(m.c.Waits(m.now, "nobody", []Wait{{}}))
	}
	ex.heard = m.now
	id := some(m, m.held(ex))
	if m.rng.IntN(8) == 0 {
		id = some(m, m.order)
	}
	w := Wait{ID: id, Timeout: time.Duration(m.rng.IntN(2000)) * time.Millisecond}
	if m.rng.IntN(2) == 0 {
		w.Children = []skein.CallID{m.id(), some(m, m.order)}
	}
	if ex.holds[id] {
		delete(ex.waits, id)
		if w.Children != nil {
			ex.waits[id] = true
		}
	}
	return m.obey(m.c.Waits(m.now, name, []Wait{w, w}))
}

func (m *model) cancelChildren() error {
	name := m.executor()
	ids := []skein.CallID{m.id(), some(m, m.order), some(m, m.order)}
	if ex := m.execs[name]; ex != nil {
		ex.heard = m.now
		for _, id := range ids {
			if k := m.calls[id]; k != nil && k.parent != nil && ex.holds[k.call.Parent] {
				k.cut = true
			}
		}
	}
	return m.obey(m.c.CancelChildren(m.now, name, ids))
}
