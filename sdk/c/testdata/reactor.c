// A reactor: handle runs once per call, and what it returns is the call's exit code. It uses all of sugar.h.
#include <skein.h>

#include <stdlib.h>
#include <wasi/libc-environ.h>

static int begun;

SKEIN_EXPORT(skein_init) int skein_init(void) { return begun++; }

SKEIN_EXPORT(skein_restored) void skein_restored(void) { __wasilibc_deinitialize_environ(); }

static int pointed(void) { return 0; }

static int chained(void) {
	int ids[2] = {skein_chain("name", "in", 2), skein_chain_fn(pointed, "in", 2)};
	int failed = skein_await_any(ids, 2, -1) < 0 || skein_await(ids[0]) < 0 || skein_cancel(ids[1]) < 0;
	char *out = skein_await_output(ids[1], NULL), *why = skein_call_error(ids[1]);
	failed |= !out || !why;
	free(out), free(why);
	return failed;
}

SKEIN_EXPORT(handle) int handle(void) {
	size_t len;
	char *value = skein_read_state("key", &len);
	if (!value || skein_state_size("key") < 0)
		return 1;
	int64_t failed = skein_set_state("key", value, len) | skein_set_state_at("key", 1, value, len) |
	                 skein_push_state("key") | skein_pull_state("key") | skein_append_state("log", value, len) |
	                 skein_delete_state("key") | skein_output_string("done") | skein_append_output(value, len);
	free(value);
	return failed < 0 || chained();
}
