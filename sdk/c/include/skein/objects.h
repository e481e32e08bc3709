// Objects over shared state: a counter, a log, and arrays and matrices in mapped memory. They are implemented in
// sdk/c/skein.c, as is sugar.h, and have its rules: a negative result is -errno, keys are NUL-terminated. A key that an
// object keeps must live as long as the object does.

#ifndef SKEIN_OBJECTS_H
#define SKEIN_OBJECTS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A counter is a signed integer of 64 bits in the global tier. It begins as 0 and wraps. Additions are atomic, and each is
// one exchange with the global tier: add what a call has counted at its end.

// Adds delta, and stores the sum at sum unless that is NULL; returns 0.
int skein_counter_add(const char *key, int64_t delta, int64_t *sum);

// Stores what has been added so far at sum; returns 0.
int skein_counter_get(const char *key, int64_t *sum);

// A log is a sequence of records of any bytes, 0 to 1 MiB each, that all functions of the user add to. A record is appended
// whole, and the order is the same for all. In the value each is its length, 4 bytes, little-endian, and its bytes.

enum { SKEIN_LOG_RECORD = 1 << 20 };

// Appends a record; returns 0. EMSGSIZE if it is too long, EFBIG if the log would pass a value's limit.
int skein_log_append(const char *key, const void *record, size_t len);

// Makes the log empty; returns 0. What readers have begun is not defined then.
int skein_log_clear(const char *key);

// A reader of a log. Begin with {.key = key}; at is the offset of the next record, to go on there another time.
typedef struct {
	const char *key;
	int64_t at;
	char *buf; // what has been read ahead: cap bytes, of which have are read and used have been given
	size_t cap, have, used;
} skein_log;

// Stores the next record's address, valid until the next use of the reader, and its length; returns 1. Returns 0 at the end,
// where records that come later can be had by asking again, and for a log that is absent; EILSEQ if the value is no log.
int skein_log_next(skein_log *log, const void **record, size_t *len);

// Frees what the reader has read ahead.
void skein_log_close(skein_log *log);

// An array is a value of n elements of the same size, mapped: all calls on this executor that open it see the same bytes at
// once, without copying. push sends what this executor has changed, and pull fetches what others pushed, keeping what was
// changed here since the last push. Elements that several calls write to need a lock, or an algorithm that bears races.
// Address elements by SKEIN_AT(double, array, i). Views live until the call ends. Flags are SKEIN_STATE_…
typedef struct {
	const char *key;
	void *at;      // the first element of the view
	size_t n;      // elements in the view
	size_t element; // bytes each
	int64_t first; // the first element's index in the value
} skein_array;

#define SKEIN_AT(type, array, i) (((type *)(array).at)[i])

// Opens all of an array; returns 0. n 0 takes the array as it is, ENOENT if absent. Otherwise one that is absent is made, and
// one that is shorter grows, with zeroes. EINVAL if the value is longer, or no whole number of elements.
int skein_array_open(skein_array *array, const char *key, size_t element, size_t n, int flags);

// Opens n elements from first of an array of total elements, 0 for as many as it has; returns 0. Only the chunks of 256 KiB
// that the part lies in are fetched.
int skein_array_open_part(skein_array *array, const char *key, size_t element, int64_t first, size_t n, int64_t total, int flags);

// Send, and fetch, the part of the value that the view shows; return 0.
int skein_array_push(const skein_array *array);
int skein_array_pull(const skein_array *array);

// A matrix is an array of rows of cols elements each.
typedef struct {
	skein_array array;
	int64_t first; // the view's first row
	size_t rows;   // in the view
	size_t cols;
} skein_matrix;

// Open all of a matrix of rows by cols, or n rows of it from first; return 0. Errors are those of arrays. rows 0 takes the
// matrix as it is, with EINVAL if it is no whole number of rows.
int skein_matrix_open(skein_matrix *matrix, const char *key, size_t element, size_t rows, size_t cols, int flags);
int skein_matrix_open_rows(skein_matrix *matrix, const char *key, size_t element, int64_t first, size_t n, size_t rows,
                           size_t cols, int flags);

// Returns a row's address, by its index in the whole matrix; NULL if the view doesn't have it.
void *skein_matrix_row(const skein_matrix *matrix, int64_t row);

int skein_matrix_push(const skein_matrix *matrix);
int skein_matrix_pull(const skein_matrix *matrix);

#ifdef __cplusplus
}
#endif

#endif
