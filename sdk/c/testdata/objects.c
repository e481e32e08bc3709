// A guest that uses the objects, and checks them. handle has four children fill a part each of the same objects, wherever they
// run, and looks at what they did.
#include <skein.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKERS = 4, EACH = 50000, N = WORKERS * EACH, COLS = 100 };

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "line %d: not so: %s\n", __LINE__, #what); \
			return 1; \
		} \
	} while (0)

static int fill(void) {
	int me;
	CHECK(__skein_read_call_input(&me, sizeof me) == sizeof me);
	skein_array part;
	CHECK(skein_array_open_part(&part, "array", sizeof(double), me * EACH, EACH, N, 0) == 0);
	for (int i = 0; i < EACH; i++)
		SKEIN_AT(double, part, i) = me * EACH + i;
	CHECK(skein_array_push(&part) == 0);

	skein_matrix rows;
	const int n = EACH / COLS;
	CHECK(skein_matrix_open_rows(&rows, "matrix", sizeof(float), me * n, n, N / COLS, COLS, 0) == 0);
	for (int r = me * n; r < (me + 1) * n; r++)
		for (int c = 0; c < COLS; c++)
			((float *)skein_matrix_row(&rows, r))[c] = (float)(r - c);
	CHECK(!skein_matrix_row(&rows, me * n - 1) && !skein_matrix_row(&rows, (me + 1) * n));
	CHECK(skein_matrix_push(&rows) == 0);

	char record[80 << 10];
	memset(record, 'a' + me, sizeof record);
	for (int i = 0; i < 3; i++)
		CHECK(skein_log_append("log", record, i * 40 << 10) == 0);
	int64_t sum;
	CHECK(skein_counter_add("counter", me, &sum) == 0);
	CHECK(skein_counter_add("counter", INT64_MIN, NULL) == 0 && skein_counter_add("counter", INT64_MIN, NULL) == 0);
	return 0;
}

static int wrong(void) {
	skein_array a;
	skein_matrix m;
	CHECK(skein_array_open(&a, "absent", 8, 0, 0) == -ENOENT);
	CHECK(skein_array_open_part(&a, "absent", 8, 0, 1, 0, 0) == -ENOENT);
	CHECK(skein_array_open(&a, "array", 8, N - 1, 0) == -EINVAL); // the value is longer
	CHECK(skein_array_open(&a, "array", 7, 0, 0) == -EINVAL);
	CHECK(skein_array_open(&a, "array", 0, 1, 0) == -EINVAL);
	CHECK(skein_array_open(&a, "array", SIZE_MAX, 2, 0) == -EFBIG);
	CHECK(skein_array_open(&a, "large", 1 << 20, 65, 0) == -EFBIG);
	CHECK(skein_array_open_part(&a, "array", 8, -1, 1, N, 0) == -EINVAL);
	CHECK(skein_array_open_part(&a, "array", 8, N, 1, N, 0) == -EINVAL);
	CHECK(skein_matrix_open(&m, "matrix", 4, 0, COLS + 1, 0) == -EINVAL);
	CHECK(skein_matrix_open(&m, "matrix", 4, SIZE_MAX, SIZE_MAX, 0) == -EFBIG);
	CHECK(skein_log_append("log", "", SKEIN_LOG_RECORD + 1) == -EMSGSIZE);
	const void *record;
	size_t len;
	skein_log other = {.key = "array"}, none = {.key = "absent"};
	CHECK(skein_log_next(&none, &record, &len) == 0);
	other.at = 4; // of a double: what lies there is no length
	CHECK(skein_log_next(&other, &record, &len) == 1 || skein_log_next(&other, &record, &len) == -EILSEQ);
	skein_log_close(&none), skein_log_close(&other);
	int64_t sum;
	CHECK(skein_counter_get("absent", &sum) == 0 && sum == 0);
	return 0;
}

static int look(void) {
	skein_array all;
	CHECK(skein_array_open(&all, "array", sizeof(double), 0, SKEIN_STATE_PULL) == 0 && all.n == N);
	for (int i = 0; i < N; i++)
		CHECK(SKEIN_AT(double, all, i) == i);
	CHECK(skein_array_pull(&all) == 0);
	skein_matrix m;
	CHECK(skein_matrix_open(&m, "matrix", sizeof(float), 0, COLS, SKEIN_STATE_PULL | SKEIN_STATE_READ_ONLY_HINT) == 0);
	CHECK(m.rows == N / COLS && skein_matrix_pull(&m) == 0);
	for (int r = 0; r < N / COLS; r++)
		for (int c = 0; c < COLS; c++)
			CHECK(((float *)skein_matrix_row(&m, r))[c] == (float)(r - c));

	skein_log log = {.key = "log"};
	const void *record;
	size_t len, n = 0, bytes = 0;
	int more;
	for (; (more = skein_log_next(&log, &record, &len)) == 1; n++, bytes += len)
		for (size_t i = 0; i < len; i++)
			CHECK(((const char *)record)[i] == ((const char *)record)[0]);
	CHECK(more == 0 && n == 3 * WORKERS && bytes == WORKERS * (120 << 10));
	CHECK(skein_log_append("log", "late", 4) == 0);
	CHECK(skein_log_next(&log, &record, &len) == 1 && len == 4 && !memcmp(record, "late", 4));
	skein_log_close(&log);
	CHECK(skein_log_clear("log") == 0 && skein_log_clear("absent") == 0);
	skein_log empty = {.key = "log"};
	CHECK(skein_log_next(&empty, &record, &len) == 0);
	skein_log_close(&empty);
	int64_t sum;
	CHECK(skein_counter_get("counter", &sum) == 0 && sum == WORKERS * (WORKERS - 1) / 2);
	return 0;
}

SKEIN_EXPORT(handle) int handle(void) {
	int ids[WORKERS];
	for (int i = 0; i < WORKERS; i++)
		CHECK((ids[i] = skein_chain_fn(fill, &i, sizeof i)) > 0);
	for (int i = 0; i < WORKERS; i++)
		CHECK(skein_await(ids[i]) == 0);
	return look() || wrong() || skein_output_string("ok\n") < 0;
}
