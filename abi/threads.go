package abi

import "slices"

const noteThreads = "arrives with threads"

var pthreads = Func{Module: Env, Mission: "pthreads", Note: noteThreads}

var roomThreads = Room{
	Name: "threads",
	Doc: "Threads: the wasi-threads import that wasm32-wasip1-threads programs use, Faasm's pthread imports, and Faasm's shared " +
		"variables of a team. pthread functions answer 0 or an errno, positive.",
	Funcs: slices.Concat([]Func{{
		Module: WASIThreads, Import: "thread-spawn", Mission: "pthreads", Note: noteThreads,
		Decl: "int thread_spawn(void *arg)",
		Doc:  "Starts a thread that shares this memory and calls the export wasi_thread_start(tid, arg), and returns its tid, greater than 0; a negative number if it can't be started.",
	}}, pthreadThreads, pthreadSync, pthreadKeys, faasmShared),
}

var pthreadThreads = each(
	pthreads,
	[2]string{"int pthread_create(pthread_t *thread, const pthread_object *attr, pthread_start fn, void *arg)", "Starts a thread that calls fn(arg) and stores its number at thread. EAGAIN if the call has too many."},
	[2]string{"int pthread_join(pthread_t thread, void **result)", "Waits for the thread to end and stores what it returned at result unless that is NULL. ESRCH if there is no such thread, EDEADLK for oneself, EINVAL if it is detached."},
	[2]string{"void pthread_exit(void *result)", "Ends the calling thread with a result; doesn't return."},
	[2]string{"int pthread_detach(pthread_t thread)", "Lets the thread's resources go as soon as it ends; nobody joins it."},
	[2]string{"pthread_t pthread_self(void)", "Returns the calling thread's number."},
	[2]string{"int pthread_equal(pthread_t a, pthread_t b)", "Returns 1 if both are the same thread, else 0."},
	[2]string{"int pthread_attr_init(pthread_object *attr)", "Sets attributes of a thread to their defaults."},
	[2]string{"int pthread_attr_destroy(pthread_object *attr)", "Ends the use of attributes."},
	[2]string{"int pthread_attr_setdetachstate(pthread_object *attr, int state)", "Chooses whether the thread starts detached. EINVAL for an unknown state."},
	[2]string{"int pthread_attr_getdetachstate(const pthread_object *attr, int *state)", "Stores whether the thread starts detached."},
	[2]string{"int pthread_attr_setstacksize(pthread_object *attr, size_t size)", "Sets the size of the thread's stack in bytes. EINVAL if it is too small."},
	[2]string{"int pthread_attr_getstacksize(const pthread_object *attr, size_t *size)", "Stores the size of the thread's stack in bytes."},
)

var pthreadSync = each(
	pthreads,
	[2]string{"int pthread_mutex_init(pthread_object *mutex, const pthread_object *attr)", "Makes an unlocked mutex."},
	[2]string{"int pthread_mutex_destroy(pthread_object *mutex)", "Ends the use of a mutex. EBUSY if it is locked."},
	[2]string{"int pthread_mutex_lock(pthread_object *mutex)", "Waits for the mutex and locks it."},
	[2]string{"int pthread_mutex_trylock(pthread_object *mutex)", "Locks the mutex if it is free. EBUSY if it is not."},
	[2]string{"int pthread_mutex_unlock(pthread_object *mutex)", "Unlocks the mutex. EPERM if another thread holds it."},
	[2]string{"int pthread_mutexattr_init(pthread_object *attr)", "Sets attributes of a mutex to their defaults."},
	[2]string{"int pthread_mutexattr_destroy(pthread_object *attr)", "Ends the use of attributes."},
	[2]string{"int pthread_mutexattr_settype(pthread_object *attr, int type)", "Chooses a normal, recursive or error-checking mutex. EINVAL for an unknown type."},
	[2]string{"int pthread_cond_init(pthread_object *cond, const pthread_object *attr)", "Makes a condition variable."},
	[2]string{"int pthread_cond_destroy(pthread_object *cond)", "Ends the use of a condition variable."},
	[2]string{"int pthread_cond_wait(pthread_object *cond, pthread_object *mutex)", "Unlocks the mutex, waits to be woken and locks it again."},
	[2]string{"int pthread_cond_timedwait(pthread_object *cond, pthread_object *mutex, const timespec *deadline)", "As pthread_cond_wait, with ETIMEDOUT at the deadline, a time since 1970."},
	[2]string{"int pthread_cond_signal(pthread_object *cond)", "Wakes one of the waiting threads."},
	[2]string{"int pthread_cond_broadcast(pthread_object *cond)", "Wakes all of the waiting threads."},
	[2]string{"int pthread_once(int *control, pthread_routine fn)", "Calls fn once for all threads; later callers wait for the first."},
	[2]string{"int pthread_rwlock_init(pthread_object *lock, const pthread_object *attr)", "Makes an unlocked read-write lock."},
	[2]string{"int pthread_rwlock_destroy(pthread_object *lock)", "Ends the use of a read-write lock."},
	[2]string{"int pthread_rwlock_rdlock(pthread_object *lock)", "Waits for and takes a read lock. EDEADLK if this thread holds the write lock."},
	[2]string{"int pthread_rwlock_wrlock(pthread_object *lock)", "Waits for and takes the write lock. EDEADLK if this thread holds it."},
	[2]string{"int pthread_rwlock_unlock(pthread_object *lock)", "Releases this thread's lock. EPERM if it holds none."},
	[2]string{"int pthread_barrier_init(pthread_object *barrier, const pthread_object *attr, unsigned int count)", "Makes a barrier for count threads. EINVAL if count is 0."},
	[2]string{"int pthread_barrier_wait(pthread_object *barrier)", "Waits until count threads wait; one of them gets -1, the others 0."},
	[2]string{"int pthread_barrier_destroy(pthread_object *barrier)", "Ends the use of a barrier. EBUSY if threads wait at it."},
)

var pthreadKeys = each(
	pthreads,
	[2]string{"int pthread_key_create(pthread_key_t *key, pthread_destructor fn)", "Makes a key under which each thread keeps a value, NULL at first; fn gets a value that is not NULL when its thread ends. EAGAIN if there are too many keys."},
	[2]string{"int pthread_key_delete(pthread_key_t key)", "Removes a key without calling its destructor. EINVAL if there is no such key."},
	[2]string{"void *pthread_getspecific(pthread_key_t key)", "Returns the calling thread's value under key; NULL if it has none."},
	[2]string{"int pthread_setspecific(pthread_key_t key, const void *value)", "Sets the calling thread's value under key. EINVAL if there is no such key."},
)

var faasmShared = each(
	Func{Module: Env, Note: "arrives with teams of threads"},
	[2]string{"void __faasm_sm_reduce(void *var, int type, int op, int batch)", "Declares that the variable at var, of a Faasm type number, is combined with a Faasm operation number when the team's memories are merged; batch tells the current batch."},
	[2]string{"void __faasm_sm_critical_local(void)", "Waits for and takes the lock that the team's threads on this executor share."},
	[2]string{"void __faasm_sm_critical_local_end(void)", "Releases that lock."},
)
