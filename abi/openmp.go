package abi

import "slices"

const noteOpenMP = "arrives with teams of threads"

var openmp = Func{Module: Env, Mission: "OpenMP", Note: noteOpenMP}

var roomOpenMP = Room{
	Name: "openmp",
	Doc: "What clang calls for -fopenmp, and the omp_ functions of programs. loc tells where in the source a call is; gtid is the " +
		"calling thread's number in the program.",
	Funcs: slices.Concat(kmpcRegions, kmpcLoops, kmpcTasks, ompQuery, ompLocks),
}

// kmpcRegions: parallel regions, synchronisation and reductions.
var kmpcRegions = each(
	openmp,
	[2]string{"void __kmpc_fork_call(ident_t *loc, int argc, kmpc_micro fn, ...)", "Runs fn in every thread of a new team with the argc addresses that follow, and waits for all."},
	[2]string{"void __kmpc_push_num_threads(ident_t *loc, int gtid, int n)", "Makes the next team have n threads."},
	[2]string{"void __kmpc_push_proc_bind(ident_t *loc, int gtid, int bind)", "Says where the next team's threads should run."},
	[2]string{"void __kmpc_serialized_parallel(ident_t *loc, int gtid)", "Begins a region that this thread runs alone."},
	[2]string{"void __kmpc_end_serialized_parallel(ident_t *loc, int gtid)", "Ends it."},
	[2]string{"int __kmpc_global_thread_num(ident_t *loc)", "Returns the calling thread's number in the program."},
	[2]string{"int __kmpc_ok_to_fork(ident_t *loc)", "Returns 1: a team can always be made."},
	[2]string{"void __kmpc_barrier(ident_t *loc, int gtid)", "Waits until every thread of the team waits; waiting threads run tasks."},
	[2]string{"int __kmpc_cancel_barrier(ident_t *loc, int gtid)", "As __kmpc_barrier, returning 1 if the region was cancelled."},
	[2]string{"int __kmpc_cancel(ident_t *loc, int gtid, int kind)", "Asks to cancel the region and returns 1 if the thread shall leave it."},
	[2]string{"int __kmpc_cancellationpoint(ident_t *loc, int gtid, int kind)", "Returns 1 if the region was cancelled."},
	[2]string{"void __kmpc_critical(ident_t *loc, int gtid, kmp_critical_name *name)", "Waits for and takes the lock of a critical section's name."},
	[2]string{"void __kmpc_critical_with_hint(ident_t *loc, int gtid, kmp_critical_name *name, unsigned int hint)", "As __kmpc_critical; the hint is ignored."},
	[2]string{"void __kmpc_end_critical(ident_t *loc, int gtid, kmp_critical_name *name)", "Releases it."},
	[2]string{"int __kmpc_master(ident_t *loc, int gtid)", "Returns 1 in thread 0 of the team, else 0."},
	[2]string{"void __kmpc_end_master(ident_t *loc, int gtid)", "Ends what thread 0 does alone."},
	[2]string{"int __kmpc_masked(ident_t *loc, int gtid, int filter)", "Returns 1 in thread filter of the team, else 0."},
	[2]string{"void __kmpc_end_masked(ident_t *loc, int gtid)", "Ends what that thread does alone."},
	[2]string{"int __kmpc_single(ident_t *loc, int gtid)", "Returns 1 in the first thread that arrives, 0 in the others."},
	[2]string{"void __kmpc_end_single(ident_t *loc, int gtid)", "Ends what that thread does alone."},
	[2]string{"void __kmpc_copyprivate(ident_t *loc, int gtid, size_t size, void *data, kmpc_copy_fn copy, int did)", "Copies the single thread's variables to the others by copy; did is 1 in that thread."},
	[2]string{"void __kmpc_ordered(ident_t *loc, int gtid)", "Waits for this iteration's turn."},
	[2]string{"void __kmpc_end_ordered(ident_t *loc, int gtid)", "Gives the turn to the next iteration."},
	[2]string{"void __kmpc_flush(ident_t *loc)", "Orders this thread's reads and writes before and after it."},
	[2]string{"int __kmpc_reduce(ident_t *loc, int gtid, int nvars, size_t size, void *data, kmpc_reduce_fn fn, kmp_critical_name *lock)", "Begins a reduction: 1 means that the thread combines its values and calls the end, 2 that it does so by atomics, 0 that it is done."},
	[2]string{"void __kmpc_end_reduce(ident_t *loc, int gtid, kmp_critical_name *lock)", "Ends a reduction and waits for the team."},
	[2]string{"int __kmpc_reduce_nowait(ident_t *loc, int gtid, int nvars, size_t size, void *data, kmpc_reduce_fn fn, kmp_critical_name *lock)", "As __kmpc_reduce for a reduction without a barrier."},
	[2]string{"void __kmpc_end_reduce_nowait(ident_t *loc, int gtid, kmp_critical_name *lock)", "Ends a reduction without a barrier."},
	[2]string{"void *__kmpc_threadprivate_cached(ident_t *loc, int gtid, void *data, size_t size, void ***cache)", "Returns the address of this thread's copy of a variable."},
	[2]string{"void __kmpc_threadprivate_register(ident_t *loc, void *data, kmpc_ctor ctor, kmpc_cctor cctor, kmpc_dtor dtor)", "Says how copies of a variable are made and destroyed."},
)

// kmpcLoops: work-sharing loops.
var kmpcLoops = each(
	openmp,
	[2]string{"void __kmpc_for_static_init_4(ident_t *loc, int gtid, int schedule, int *last, int *lower, int *upper, int *stride, int incr, int chunk)", "Stores this thread's share of a loop over 32-bit signed integers."},
	[2]string{"void __kmpc_for_static_init_4u(ident_t *loc, int gtid, int schedule, int *last, unsigned int *lower, unsigned int *upper, int *stride, int incr, int chunk)", "Stores this thread's share of a loop over 32-bit unsigned integers."},
	[2]string{"void __kmpc_for_static_init_8(ident_t *loc, int gtid, int schedule, int *last, int64_t *lower, int64_t *upper, int64_t *stride, int64_t incr, int64_t chunk)", "Stores this thread's share of a loop over 64-bit signed integers."},
	[2]string{"void __kmpc_for_static_init_8u(ident_t *loc, int gtid, int schedule, int *last, uint64_t *lower, uint64_t *upper, int64_t *stride, int64_t incr, int64_t chunk)", "Stores this thread's share of a loop over 64-bit unsigned integers."},
	[2]string{"void __kmpc_for_static_fini(ident_t *loc, int gtid)", "Ends a static loop."},
	[2]string{"void __kmpc_dispatch_init_4(ident_t *loc, int gtid, int schedule, int lower, int upper, int stride, int chunk)", "Begins a dynamic, guided, runtime or ordered loop over 32-bit signed integers."},
	[2]string{"void __kmpc_dispatch_init_4u(ident_t *loc, int gtid, int schedule, unsigned int lower, unsigned int upper, int stride, int chunk)", "Begins such a loop over 32-bit unsigned integers."},
	[2]string{"void __kmpc_dispatch_init_8(ident_t *loc, int gtid, int schedule, int64_t lower, int64_t upper, int64_t stride, int64_t chunk)", "Begins such a loop over 64-bit signed integers."},
	[2]string{"void __kmpc_dispatch_init_8u(ident_t *loc, int gtid, int schedule, uint64_t lower, uint64_t upper, int64_t stride, int64_t chunk)", "Begins such a loop over 64-bit unsigned integers."},
	[2]string{"int __kmpc_dispatch_next_4(ident_t *loc, int gtid, int *last, int *lower, int *upper, int *stride)", "Stores this thread's next chunk of the loop and returns 1; 0 at its end."},
	[2]string{"int __kmpc_dispatch_next_4u(ident_t *loc, int gtid, int *last, unsigned int *lower, unsigned int *upper, int *stride)", "Stores this thread's next chunk of the loop and returns 1; 0 at its end."},
	[2]string{"int __kmpc_dispatch_next_8(ident_t *loc, int gtid, int *last, int64_t *lower, int64_t *upper, int64_t *stride)", "Stores this thread's next chunk of the loop and returns 1; 0 at its end."},
	[2]string{"int __kmpc_dispatch_next_8u(ident_t *loc, int gtid, int *last, uint64_t *lower, uint64_t *upper, int64_t *stride)", "Stores this thread's next chunk of the loop and returns 1; 0 at its end."},
	[2]string{"void __kmpc_dispatch_fini_4(ident_t *loc, int gtid)", "Ends an iteration of an ordered loop over 32-bit signed integers."},
	[2]string{"void __kmpc_dispatch_fini_4u(ident_t *loc, int gtid)", "Ends an iteration of an ordered loop over 32-bit unsigned integers."},
	[2]string{"void __kmpc_dispatch_fini_8(ident_t *loc, int gtid)", "Ends an iteration of an ordered loop over 64-bit signed integers."},
	[2]string{"void __kmpc_dispatch_fini_8u(ident_t *loc, int gtid)", "Ends an iteration of an ordered loop over 64-bit unsigned integers."},
	[2]string{"void __kmpc_dispatch_deinit(ident_t *loc, int gtid)", "Ends a dispatched loop; newer compilers call it."},
)

// kmpcTasks: tasks.
var kmpcTasks = each(
	openmp,
	[2]string{"kmp_task_t *__kmpc_omp_task_alloc(ident_t *loc, int gtid, int flags, size_t size, size_t shareds, kmp_task_entry fn)", "Makes a task of size bytes with room for the addresses of shared variables."},
	[2]string{"int __kmpc_omp_task(ident_t *loc, int gtid, kmp_task_t *task)", "Gives a task to the team."},
	[2]string{"int __kmpc_omp_task_with_deps(ident_t *loc, int gtid, kmp_task_t *task, int n, kmp_depend_info *deps, int n_noalias, kmp_depend_info *noalias)", "Gives a task to the team that starts after those it depends on."},
	[2]string{"void __kmpc_omp_wait_deps(ident_t *loc, int gtid, int n, kmp_depend_info *deps, int n_noalias, kmp_depend_info *noalias)", "Waits for the tasks that the dependences name."},
	[2]string{"void __kmpc_omp_task_begin_if0(ident_t *loc, int gtid, kmp_task_t *task)", "Begins a task that this thread runs at once."},
	[2]string{"void __kmpc_omp_task_complete_if0(ident_t *loc, int gtid, kmp_task_t *task)", "Ends it."},
	[2]string{"int __kmpc_omp_taskwait(ident_t *loc, int gtid)", "Waits for the tasks that this one made."},
	[2]string{"int __kmpc_omp_taskyield(ident_t *loc, int gtid, int end)", "Lets another task run."},
	[2]string{"void __kmpc_taskgroup(ident_t *loc, int gtid)", "Begins a group of tasks."},
	[2]string{"void __kmpc_end_taskgroup(ident_t *loc, int gtid)", "Waits for all tasks of the group."},
	[2]string{"void __kmpc_taskloop(ident_t *loc, int gtid, kmp_task_t *task, int if_, uint64_t *lower, uint64_t *upper, int64_t stride, int nogroup, int schedule, uint64_t grainsize, void *dup)", "Makes tasks of a loop's iterations."},
)

// ompQuery: the omp_ functions: questions and settings.
var ompQuery = each(
	openmp,
	[2]string{"int omp_get_thread_num(void)", "Returns the calling thread's number in its team, from 0."},
	[2]string{"int omp_get_num_threads(void)", "Returns how many threads the team has."},
	[2]string{"int omp_get_max_threads(void)", "Returns how many threads the next team may have."},
	[2]string{"void omp_set_num_threads(int n)", "Makes the next teams have n threads."},
	[2]string{"int omp_get_num_procs(void)", "Returns how many processors the call may use."},
	[2]string{"int omp_in_parallel(void)", "Returns 1 inside a team of more than one thread, else 0."},
	[2]string{"int omp_get_level(void)", "Returns how many parallel regions enclose the caller."},
	[2]string{"int omp_get_active_level(void)", "Returns how many of them have more than one thread."},
	[2]string{"int omp_get_ancestor_thread_num(int level)", "Returns the number of the caller's ancestor at a level; -1 if there is none."},
	[2]string{"int omp_get_team_size(int level)", "Returns the size of the team at a level; -1 if there is none."},
	[2]string{"int omp_get_max_active_levels(void)", "Returns how deep teams of more than one thread may nest."},
	[2]string{"void omp_set_max_active_levels(int n)", "Sets how deep teams of more than one thread may nest."},
	[2]string{"int omp_get_thread_limit(void)", "Returns how many threads the call may have."},
	[2]string{"int omp_get_dynamic(void)", "Returns whether team sizes may be adjusted."},
	[2]string{"void omp_set_dynamic(int on)", "Sets whether team sizes may be adjusted."},
	[2]string{"int omp_get_nested(void)", "Returns whether teams nest."},
	[2]string{"void omp_set_nested(int on)", "Sets whether teams nest."},
	[2]string{"void omp_get_schedule(int *kind, int *chunk)", "Stores what schedule(runtime) means."},
	[2]string{"void omp_set_schedule(int kind, int chunk)", "Sets what schedule(runtime) means."},
	[2]string{"int omp_get_cancellation(void)", "Returns whether cancellation is on."},
	[2]string{"int omp_in_final(void)", "Returns whether the caller runs in a final task."},
	[2]string{"int omp_get_num_devices(void)", "Returns 0: there are no other devices."},
	[2]string{"void omp_set_default_device(int device)", "Is accepted; there are no other devices."},
	[2]string{"int omp_get_default_device(void)", "Returns 0."},
	[2]string{"int omp_is_initial_device(void)", "Returns 1."},
	[2]string{"double omp_get_wtime(void)", "Returns the seconds since some moment that stays the same during the call."},
	[2]string{"double omp_get_wtick(void)", "Returns the resolution of omp_get_wtime in seconds."},
)

// ompLocks: the omp_ functions: locks.
var ompLocks = each(
	openmp,
	[2]string{"void omp_init_lock(omp_lock_t *lock)", "Makes a free lock."},
	[2]string{"void omp_destroy_lock(omp_lock_t *lock)", "Ends the use of a lock."},
	[2]string{"void omp_set_lock(omp_lock_t *lock)", "Waits for and takes the lock."},
	[2]string{"void omp_unset_lock(omp_lock_t *lock)", "Releases the lock."},
	[2]string{"int omp_test_lock(omp_lock_t *lock)", "Takes the lock if it is free; returns 1 if it did, else 0."},
	[2]string{"void omp_init_nest_lock(omp_nest_lock_t *lock)", "Makes a free lock that its owner may take again."},
	[2]string{"void omp_destroy_nest_lock(omp_nest_lock_t *lock)", "Ends the use of such a lock."},
	[2]string{"void omp_set_nest_lock(omp_nest_lock_t *lock)", "Waits for and takes the lock, once more if this task has it."},
	[2]string{"void omp_unset_nest_lock(omp_nest_lock_t *lock)", "Releases the lock once."},
	[2]string{"int omp_test_nest_lock(omp_nest_lock_t *lock)", "Takes the lock if it is free or this task's; returns how often it is now held, 0 if it isn't."},
)
