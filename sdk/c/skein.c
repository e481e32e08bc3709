#include <skein.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// One reader for everything that answers "at most cap bytes, and the full size": asks the size, and asks again if the
// value grew in between, as state may.
typedef int (*read_fn)(const char *key, size_t key_len, void *buf, size_t cap);

static void *read_all(read_fn read, const char *key, size_t key_len, size_t *len) {
	char *buf = NULL;
	int size = read(key, key_len, NULL, 0);
	while (size >= 0) {
		size_t cap = (size_t)size;
		char *grown = realloc(buf, cap + 1);
		if (!grown) {
			size = -ENOMEM;
			break;
		}
		buf = grown;
		size = read(key, key_len, buf, cap);
		if (size >= 0 && (size_t)size <= cap) {
			buf[size] = 0;
			if (len)
				*len = (size_t)size;
			return buf;
		}
	}
	free(buf);
	errno = -size;
	return NULL;
}

static int read_input(const char *key, size_t key_len, void *buf, size_t cap) {
	(void)key, (void)key_len;
	return __skein_read_call_input(buf, cap);
}

static int read_state(const char *key, size_t key_len, void *buf, size_t cap) {
	return __skein_read_state(key, key_len, 0, buf, cap);
}

// A child has a handle for a key.
static int read_output(const char *key, size_t id, void *buf, size_t cap) {
	(void)key;
	return __skein_await_call_output((int)id, buf, cap);
}

static int read_error(const char *key, size_t id, void *buf, size_t cap) {
	(void)key;
	return __skein_call_error((int)id, buf, cap);
}

void *skein_input(size_t *len) { return read_all(read_input, NULL, 0, len); }

int skein_output(const void *ptr, size_t len) { return __skein_write_call_output(ptr, len); }

int skein_output_string(const char *text) { return __skein_write_call_output(text, strlen(text)); }

int skein_append_output(const void *ptr, size_t len) { return __skein_append_call_output(ptr, len); }

void *skein_read_state(const char *key, size_t *len) { return read_all(read_state, key, strlen(key), len); }

int skein_set_state(const char *key, const void *val, size_t len) {
	return __skein_set_state(key, strlen(key), val, len);
}

int skein_set_state_at(const char *key, int64_t off, const void *val, size_t len) {
	return __skein_set_state_offset(key, strlen(key), val, len, off);
}

// The allocator's first use is when it takes its memory.
static void own_heap(void) {
	static void *volatile first;
	if (!first)
		first = malloc(1);
}

static void *address(void *at) {
	if (!at)
		errno = __skein_last_error();
	return at;
}

void *skein_get_state(const char *key, size_t size, int flags) {
	own_heap();
	return address(__skein_get_state(key, strlen(key), size, flags));
}

void *skein_get_state_offset(const char *key, int64_t off, size_t len, int64_t size, int flags) {
	own_heap();
	return address(__skein_get_state_offset(key, strlen(key), off, len, size, flags));
}

int skein_lock_state_read(const char *key) { return __skein_lock_state_read(key, strlen(key)); }

int skein_lock_state_write(const char *key) { return __skein_lock_state_write(key, strlen(key)); }

int skein_unlock_state_read(const char *key) { return __skein_unlock_state_read(key, strlen(key)); }

int skein_unlock_state_write(const char *key) { return __skein_unlock_state_write(key, strlen(key)); }

int skein_push_state(const char *key) { return __skein_push_state(key, strlen(key)); }

int skein_pull_state(const char *key) { return __skein_pull_state(key, strlen(key)); }

int64_t skein_append_state(const char *key, const void *val, size_t len) {
	return __skein_append_state(key, strlen(key), val, len);
}

int64_t skein_state_size(const char *key) { return __skein_state_size(key, strlen(key)); }

int skein_delete_state(const char *key) { return __skein_delete_state(key, strlen(key)); }

int skein_chain(const char *name, const void *in, size_t len) { return __skein_chain_name(name, strlen(name), in, len); }

int skein_chain_fn(int (*fn)(void), const void *in, size_t len) { return __skein_chain_ptr(fn, in, len); }

int skein_await(int id) { return __skein_await_call(id); }

void *skein_await_output(int id, size_t *len) { return read_all(read_output, NULL, (size_t)id, len); }

int skein_await_any(const int *ids, size_t n, int timeout_ms) { return __skein_await_any(ids, n, timeout_ms); }

int skein_cancel(int id) { return __skein_cancel_call(id); }

char *skein_call_error(int id) { return read_all(read_error, NULL, (size_t)id, NULL); }
