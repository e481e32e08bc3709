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

int skein_discard_state(const char *key) { return __skein_discard_state(key, strlen(key)); }

int skein_expire_state(const char *key, int64_t ttl_ms) { return __skein_expire_state(key, strlen(key), ttl_ms); }

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

int skein_counter_add(const char *key, int64_t delta, int64_t *sum) {
	int64_t now;
	return __skein_add_state_i64(key, strlen(key), delta, sum ? sum : &now);
}

int skein_counter_get(const char *key, int64_t *sum) {
	unsigned char bytes[8] = {0};
	int64_t n = __skein_read_appended_state(key, strlen(key), 0, bytes, sizeof bytes);
	if (n < 0 && n != -ENOENT)
		return (int)n;
	memcpy(sum, bytes, sizeof bytes);
	return 0;
}

// A record's length lies before it.
enum { PREFIX = 4, AHEAD = 64 << 10 };

int skein_log_append(const char *key, const void *record, size_t len) {
	if (len > SKEIN_LOG_RECORD)
		return -EMSGSIZE;
	char *framed = malloc(PREFIX + len);
	if (!framed)
		return -ENOMEM;
	uint32_t prefix = (uint32_t)len;
	memcpy(framed, &prefix, PREFIX);
	if (len)
		memcpy(framed + PREFIX, record, len);
	int64_t at = __skein_append_state(key, strlen(key), framed, PREFIX + len);
	free(framed);
	return at < 0 ? (int)at : 0;
}

int skein_log_clear(const char *key) { return __skein_clear_appended_state(key, strlen(key)); }

// Has need bytes in the buffer from used on. Returns 1, 0 if the log ends before, or -errno.
static int log_fill(skein_log *log, size_t need) {
	if (log->have - log->used >= need)
		return 1;
	log->have -= log->used;
	if (log->have)
		memmove(log->buf, log->buf + log->used, log->have);
	log->used = 0;
	if (log->cap < need) {
		size_t cap = need > AHEAD ? need : AHEAD;
		char *grown = realloc(log->buf, cap);
		if (!grown)
			return -ENOMEM;
		log->buf = grown, log->cap = cap;
	}
	int64_t n = __skein_read_appended_state(log->key, strlen(log->key), log->at + (int64_t)log->have, log->buf + log->have,
	                                        log->cap - log->have);
	if (n < 0)
		return n == -ENOENT ? 0 : (int)n;
	log->have += (size_t)n;
	return log->have >= need;
}

int skein_log_next(skein_log *log, const void **record, size_t *len) {
	uint32_t prefix;
	int more = log_fill(log, PREFIX);
	if (more == 0 && log->have > 0)
		return -EILSEQ;
	if (more <= 0)
		return more;
	memcpy(&prefix, log->buf + log->used, PREFIX);
	if (prefix > SKEIN_LOG_RECORD)
		return -EILSEQ;
	more = log_fill(log, PREFIX + prefix);
	if (more <= 0)
		return more == 0 ? -EILSEQ : more;
	*record = log->buf + log->used + PREFIX, *len = prefix;
	log->used += PREFIX + prefix, log->at += PREFIX + prefix;
	return 1;
}

void skein_log_close(skein_log *log) {
	free(log->buf);
	log->buf = NULL, log->cap = log->have = log->used = 0;
}

// Bounds what is multiplied below; values are far smaller.
static const int64_t MOST_BYTES = INT64_C(1) << 31;

int skein_array_open_part(skein_array *array, const char *key, size_t element, int64_t first, size_t n, int64_t total, int flags) {
	if (element == 0 || n == 0 || first < 0 || total < 0)
		return -EINVAL;
	const int64_t most = MOST_BYTES / (int64_t)element;
	if (first > most || (int64_t)n > most || total > most)
		return -EFBIG;
	int64_t size = skein_state_size(key);
	if (size < 0 && (size != -ENOENT || total == 0))
		return (int)size;
	if (size % (int64_t)element || (total > 0 && size > total * (int64_t)element))
		if (size != -ENOENT)
			return -EINVAL;
	void *at = skein_get_state_offset(key, first * (int64_t)element, n * element, total * (int64_t)element, flags);
	if (!at)
		return -errno;
	*array = (skein_array){.key = key, .at = at, .n = n, .element = element, .first = first};
	return 0;
}

int skein_array_open(skein_array *array, const char *key, size_t element, size_t n, int flags) {
	int64_t total = (int64_t)n;
	if (n == 0) {
		int64_t size = skein_state_size(key);
		if (size < 0)
			return (int)size;
		if (element == 0 || size == 0 || size % (int64_t)element)
			return -EINVAL;
		n = (size_t)(size / (int64_t)element);
	}
	return skein_array_open_part(array, key, element, 0, n, total, flags);
}

int skein_array_push(const skein_array *a) {
	return __skein_push_state_offset(a->key, strlen(a->key), a->first * (int64_t)a->element, a->n * a->element);
}

int skein_array_pull(const skein_array *a) {
	return __skein_pull_state_offset(a->key, strlen(a->key), a->first * (int64_t)a->element, a->n * a->element);
}

int skein_matrix_open_rows(skein_matrix *matrix, const char *key, size_t element, int64_t first, size_t n, size_t rows,
                           size_t cols, int flags) {
	const int64_t most = MOST_BYTES;
	if (element == 0 || cols == 0 || n == 0 || first < 0)
		return -EINVAL;
	if ((int64_t)cols > most / (int64_t)element || (int64_t)rows > most / (int64_t)(cols * element) ||
	    first > most / (int64_t)(cols * element) || (int64_t)n > most / (int64_t)(cols * element))
		return -EFBIG;
	int err = skein_array_open_part(&matrix->array, key, element, first * (int64_t)cols, n * cols, (int64_t)(rows * cols), flags);
	if (err == 0)
		matrix->first = first, matrix->rows = n, matrix->cols = cols;
	return err;
}

int skein_matrix_open(skein_matrix *matrix, const char *key, size_t element, size_t rows, size_t cols, int flags) {
	size_t n = rows;
	if (rows == 0) {
		int64_t size = skein_state_size(key), row = (int64_t)cols * (int64_t)element;
		if (size < 0)
			return (int)size;
		if (row == 0 || size == 0 || size % row)
			return -EINVAL;
		n = (size_t)(size / row);
	}
	return skein_matrix_open_rows(matrix, key, element, 0, n, rows, cols, flags);
}

void *skein_matrix_row(const skein_matrix *m, int64_t row) {
	if (row < m->first || row - m->first >= (int64_t)m->rows)
		return NULL;
	return (char *)m->array.at + (size_t)(row - m->first) * m->cols * m->array.element;
}

int skein_matrix_push(const skein_matrix *m) { return skein_array_push(&m->array); }

int skein_matrix_pull(const skein_matrix *m) { return skein_array_pull(&m->array); }
