package machine

import "time"

// Compare makes every reset compare memory with the image; Differences counts those that differ.
func (m *Machine) Compare() { m.compare = true }

// Differences is how many resets have left something.
func (m *Machine) Differences() int64 { return m.differences.Load() }

// Mappings is what memories are charged for.
func (m *Machine) Mappings() int64 {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	return m.pool.mappings.used
}

// Warm is the bytes that idle instances keep.
func (m *Machine) Warm() int64 {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	return m.pool.memory.used
}

// Age does what time does to those that are idle.
func (m *Machine) Age(by time.Duration) { m.pool.age(clock() + by) }

// Settle waits until all instances are idle.
func (mod *Module) Settle() {
	for {
		mod.m.pool.mu.Lock()
		n := mod.busy
		if mod.dirty.back != nil {
			n++
		}
		mod.m.pool.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// Idle counts the instances that wait for calls.
func (mod *Module) Idle() (n int) {
	mod.m.pool.mu.Lock()
	defer mod.m.pool.mu.Unlock()
	for inst := mod.clean.back; inst != nil; inst = inst.links[byModule].prev {
		n++
	}
	return n
}

// Prewarm makes n idle instances.
func (mod *Module) Prewarm(n int) error {
	p := &mod.m.pool
	for range n {
		inst, err := mod.fresh()
		if err != nil {
			return err
		}
		p.mu.Lock()
		inst.cost, inst.since = instanceCost, clock()
		p.put(inst, hot)
		mod.clean.push(inst)
		p.mu.Unlock()
	}
	return nil
}

// Fresh makes an instance and takes it down.
func (mod *Module) Fresh() error {
	inst, err := mod.fresh()
	if err == nil {
		inst.close()
	}
	return err
}

// StackSeen reports whether the engine's stacks can be measured.
func StackSeen() bool { return stackFields().stack != nil }

// Kept is an instance that its holder calls and resets.
type Kept struct{ inst *instance }

// Keep makes one.
func (mod *Module) Keep() (Kept, error) {
	inst, err := mod.fresh()
	return Kept{inst}, err
}

// Call is one, without a reset.
func (k Kept) Call(ctx Guest) Exit {
	exit, _ := k.inst.serve(ctx, nil)
	return exit
}

// Reset is what is done after each.
func (k Kept) Reset() error { return k.inst.reset() }

// Close takes the instance down.
func (k Kept) Close() { k.inst.close() }

// CallEach has each of the idle instances serve a call, and waits until all are idle again.
func (mod *Module) CallEach(call func() Guest) (failed int) {
	p := &mod.m.pool
	var all []*instance
	p.mu.Lock()
	for inst := mod.clean.back; inst != nil; inst = mod.clean.back {
		p.take(inst)
		all = append(all, inst)
	}
	p.mu.Unlock()
	for _, inst := range all {
		if inst.wake() != nil {
			failed++
		}
		exit, usable := inst.serve(call(), nil)
		if exit.Reason != "" {
			failed++
		}
		mod.release(inst, usable)
	}
	mod.Settle()
	return failed
}
