// Sugar over the host interface, implemented in sdk/c/skein.c: link it into the guest. Buffers that come back are from
// malloc, end with a NUL that len doesn't count, and are the caller's to free. Where a function returns a pointer, NULL
// is failure and errno says why; where it returns a number, a negative one is -errno.

#ifndef SKEIN_SUGAR_H
#define SKEIN_SUGAR_H

#include <stddef.h>
#include <stdint.h>

// Exports a function under its own name: SKEIN_EXPORT(handle) int handle(void) { … }. A reactor has
//   handle          int (void)   for each call: its exit code;
//   skein_init      int (void)   if it likes, once after its constructors and before it is frozen; 0 is success;
//   skein_restored  void (void)  if it likes, before a call that begins as it was frozen.
#define SKEIN_EXPORT(name) __attribute__((export_name(#name)))

#ifdef __cplusplus
extern "C" {
#endif

// Returns the call's input and stores its size at len unless that is NULL.
void *skein_input(size_t *len);

// Makes len bytes the call's output, replacing what was written before; returns 0.
int skein_output(const void *ptr, size_t len);

// Makes a NUL-terminated string the call's output; returns 0.
int skein_output_string(const char *text);

// Adds len bytes to the call's output; returns 0.
int skein_append_output(const void *ptr, size_t len);

// Names and keys below are NUL-terminated.

// Starts a call of the same user's function name; returns its handle, a number from 1 that is this call's own.
int skein_chain(const char *name, const void *in, size_t len);

// Starts a call of fn, a function of this module, in an instance of its own; returns its handle. fn gets in as its input,
// nothing of this instance's memory, and returns the exit code.
int skein_chain_fn(int (*fn)(void), const void *in, size_t len);

// Waits for the child to end; returns its exit code, 0 to 255. EIO if it failed without one: skein_call_error says why.
int skein_await(int id);

// Waits for the child to end and returns a copy of its output; stores its size at len unless that is NULL.
void *skein_await_output(int id, size_t *len);

// Waits until one of n children has ended, at most timeout_ms milliseconds unless that is negative; returns its index.
int skein_await_any(const int *ids, size_t n, int timeout_ms);

// Asks the child to stop; returns 0 without waiting for it.
int skein_cancel(int id);

// Returns why the child failed, "" if it didn't. EAGAIN if it has not ended.
char *skein_call_error(int id);

// Returns a copy of the value under key, pulled if this executor has none, and stores its size at len unless that is
// NULL. ENOENT if the value is absent.
void *skein_read_state(const char *key, size_t *len);

// Makes len bytes the value on this executor; returns 0. skein_push_state shares it.
int skein_set_state(const char *key, const void *val, size_t len);

// Writes len bytes into the value on this executor from off; returns 0.
int skein_set_state_at(const char *key, int64_t off, const void *val, size_t len);

// Maps this executor's replica of the value, and returns its address: all instances here that do so see the same bytes. It is
// valid until the call ends. size 0 takes the value as it is; otherwise one that is absent or shorter is made of that size.
// flags are SKEIN_STATE_…. Prefer it to __skein_get_state, which a program must not call before its first malloc: the
// allocator of some wasi-libcs then takes all memory that it finds for its own, mapped state too.
void *skein_get_state(const char *key, size_t size, int flags);

// As skein_get_state for len bytes from off of a value of at least size bytes.
void *skein_get_state_offset(const char *key, int64_t off, size_t len, int64_t size, int flags);

// Take and release a lock of the replica among the calls of this executor, and wait for it; return 0. All locks of a call
// end with it.
int skein_lock_state_read(const char *key);
int skein_lock_state_write(const char *key);
int skein_unlock_state_read(const char *key);
int skein_unlock_state_write(const char *key);

// Sends what this executor changed to everybody; returns 0.
int skein_push_state(const char *key);

// Fetches what changed elsewhere, keeping what was changed here and not yet pushed; returns 0.
int skein_pull_state(const char *key);

// Drops what this executor changed and did not push, whoever changed it: a holder that failed may have left something.
int skein_discard_state(const char *key);

// Has the shared value end ttl_ms milliseconds from now, or never with 0; returns 0.
int skein_expire_state(const char *key, int64_t ttl_ms);

// Appends len bytes to the shared value atomically; returns the offset where they landed.
int64_t skein_append_state(const char *key, const void *val, size_t len);

// Returns the value's size in bytes.
int64_t skein_state_size(const char *key);

// Removes the value; returns 0.
int skein_delete_state(const char *key);

#ifdef __cplusplus
}
#endif

#endif
