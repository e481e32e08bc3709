package machine

import (
	"context"
	"sync"
	"time"

	"skein.dev/platform/fault"
)

// pool is the instances that wait for calls, of all modules, and what they may keep.
type pool struct {
	mu       sync.Mutex
	memory   budget // bytes
	mappings budget // of the kernel: instances that serve calls have theirs too
	ages     [4]list
}

type budget struct{ used, most int64 }

const (
	idleTrim  = 10 * time.Second // after which an instance gives back what it can
	idleClose = 5 * time.Minute
	idleTick  = time.Second
)

// ages are by whether an instance has been trimmed, and whether it holds mappings; in each the longest idle is first.
const (
	cold   = 0
	hot    = 1
	copied = 0
	inMaps = 2
)

func (p *pool) open(cfg Config) {
	p.memory.most, p.mappings.most = cfg.WarmMemory, int64(cfg.Mappings)
	if cfg.Mappings == 0 {
		p.mappings.most = int64(defaultMappings())
	}
	for i := range p.ages {
		p.ages[i].by = byAge
	}
}

// acquire gives an instance that is as the snapshot says: a warm one, the last that was left first; one that is to be
// reset; or a fresh one. release must follow.
func (mod *Module) acquire() (*instance, error) {
	p := &mod.m.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if mod.closed {
			return nil, fault.Unavailable.New("MODULE_CLOSED", "the module was unloaded").WithRetry(time.Millisecond)
		}
		if inst := mod.clean.back; inst != nil {
			p.take(inst)
			if !inst.trimmed {
				return inst, nil
			}
			p.mu.Unlock()
			err := inst.wake()
			if err != nil {
				inst.close()
			}
			p.mu.Lock()
			if err != nil {
				mod.unbusy()
				return nil, err
			}
			return inst, nil
		}
		if mod.dirty.back != nil {
			if inst := mod.resetOne(); inst != nil {
				return inst, nil
			}
			continue
		}
		if mod.resetting <= mod.waiting {
			break
		}
		mod.waiting++ // it takes less time than to make another
		mod.free.Wait()
		mod.waiting--
	}
	mod.busy++
	p.mu.Unlock()
	inst, err := mod.fresh()
	p.mu.Lock()
	if err != nil {
		mod.unbusy()
	}
	return inst, err
}

// release takes an instance back. What has to be done for its next call is done later.
func (mod *Module) release(inst *instance, usable bool) {
	p := &mod.m.pool
	if !usable {
		inst.close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	mod.unbusy()
	if usable {
		mod.dirty.push(inst)
		mod.m.stopped.Go(mod.refresh)
	}
}

// refresh resets one of the instances that wait for it, unless a call has been faster.
func (mod *Module) refresh() {
	p := &mod.m.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if mod.dirty.back == nil {
		return
	}
	mod.resetting++
	inst := mod.resetOne()
	mod.resetting--
	if inst != nil {
		inst.since = clock()
		p.put(inst, hot)
		mod.unbusy()
		mod.clean.push(inst)
		p.shrink()
	}
	mod.free.Broadcast()
}

// resetOne takes the instance that was left last and resets it, or drops it and returns nil if that fails. The caller
// holds the pool's mutex, which is not held meanwhile; the instance is busy.
func (mod *Module) resetOne() *instance {
	p := &mod.m.pool
	inst := mod.dirty.back
	mod.dirty.remove(inst)
	mod.busy++
	p.mu.Unlock()
	err := inst.reset()
	if err != nil {
		inst.close()
	}
	p.mu.Lock()
	if err != nil {
		mod.unbusy()
		return nil
	}
	return inst
}

// unbusy is called with the pool's mutex.
func (mod *Module) unbusy() {
	mod.busy--
	if mod.closed {
		mod.free.Broadcast()
	}
}

// take makes an idle instance busy. It is called with the mutex, as put is.
func (p *pool) take(inst *instance) {
	inst.mod.clean.remove(inst)
	inst.age.remove(inst)
	p.memory.used -= inst.cost
	inst.mod.busy++
}

// put adds an instance to those that are idle.
func (p *pool) put(inst *instance, temperature int) {
	kind := copied
	if inst.mem.held.mappings > 0 {
		kind = inMaps
	}
	inst.age = &p.ages[temperature+kind]
	inst.age.push(inst)
	p.memory.used += inst.cost
}

// shrink closes idle instances until the rest are within the budget of memory. It is called with the mutex, which is
// not held while one is closed.
func (p *pool) shrink() {
	for p.memory.used > p.memory.most {
		inst := p.oldest(0, 1, 2, 3)
		if inst == nil {
			return
		}
		p.discard(inst)
	}
}

// oldest is the instance that has been idle longest of the coldest lists named.
func (p *pool) oldest(ages ...int) *instance {
	for _, temperature := range []int{cold, hot} {
		var found *instance
		for _, i := range ages {
			if inst := p.ages[i].front; i&1 == temperature && inst != nil && (found == nil || inst.since < found.since) {
				found = inst
			}
		}
		if found != nil {
			return found
		}
	}
	return nil
}

func (p *pool) discard(inst *instance) {
	p.take(inst)
	p.mu.Unlock()
	inst.close()
	p.mu.Lock()
	inst.mod.unbusy()
}

// takeMappings charges n mappings, and closes idle instances that have some if there are too many. If that doesn't help
// it charges nothing and says so.
func (m *Machine) takeMappings(n int) bool {
	p := &m.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mappings.used+int64(n) > p.mappings.most {
		inst := p.oldest(inMaps+cold, inMaps+hot)
		if inst == nil {
			return false
		}
		p.discard(inst)
	}
	p.mappings.used += int64(n)
	return true
}

func (m *Machine) giveMappings(n int) {
	if n == 0 {
		return
	}
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	m.pool.mappings.used -= int64(n)
}

// drain closes all idle instances, of a module or, for nil, of all.
func (p *pool) drain(mod *Module) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if mod == nil {
		for inst := p.oldest(0, 1, 2, 3); inst != nil; inst = p.oldest(0, 1, 2, 3) {
			p.discard(inst)
		}
		return
	}
	for mod.clean.back != nil {
		p.discard(mod.clean.back)
	}
	for mod.dirty.back != nil {
		inst := mod.dirty.back
		mod.dirty.remove(inst)
		p.mu.Unlock()
		inst.close()
		p.mu.Lock()
	}
}

// age lets instances that nobody calls cost less and less.
func (m *Machine) age(ctx context.Context) {
	tick := time.NewTicker(idleTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.pool.age(clock())
		case <-ctx.Done():
			return
		}
	}
}

func (p *pool) age(now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kind := range []int{copied, inMaps} {
		for inst := p.ages[hot+kind].front; inst != nil && now-inst.since >= idleTrim; inst = p.ages[hot+kind].front {
			p.take(inst)
			p.mu.Unlock()
			inst.trim()
			p.mu.Lock()
			p.put(inst, cold)
			inst.mod.clean.pushFront(inst)
			inst.mod.unbusy()
		}
		for inst := p.ages[cold+kind].front; inst != nil && now-inst.since >= idleClose; inst = p.ages[cold+kind].front {
			p.discard(inst)
		}
	}
}

// list holds instances by one of their links. Front is who was pushed first.
type list struct {
	by          int
	front, back *instance
}

const (
	byModule = iota
	byAge
)

type link struct{ prev, next *instance }

func (l *list) push(inst *instance) {
	inst.links[l.by] = link{prev: l.back}
	if l.back == nil {
		l.front = inst
	} else {
		l.back.links[l.by].next = inst
	}
	l.back = inst
}

func (l *list) pushFront(inst *instance) {
	inst.links[l.by] = link{next: l.front}
	if l.front == nil {
		l.back = inst
	} else {
		l.front.links[l.by].prev = inst
	}
	l.front = inst
}

func (l *list) remove(inst *instance) {
	at := inst.links[l.by]
	if at.prev == nil {
		l.front = at.next
	} else {
		at.prev.links[l.by].next = at.next
	}
	if at.next == nil {
		l.back = at.prev
	} else {
		at.next.links[l.by].prev = at.prev
	}
	inst.links[l.by] = link{}
}
