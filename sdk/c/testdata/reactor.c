// A reactor: handle runs once per call, and what it returns is the call's exit code. It uses all of sugar.h.
#include <skein.h>

#include <stdlib.h>
#include <wasi/libc-environ.h>

static int begun;

SKEIN_EXPORT(skein_init) int skein_init(void) { return begun++; }

SKEIN_EXPORT(skein_restored) void skein_restored(void) { __wasilibc_deinitialize_environ(); }

SKEIN_EXPORT(handle) int handle(void) {
	size_t len;
	char *value = skein_read_state("key", &len);
	if (!value || skein_state_size("key") < 0)
		return 1;
	int64_t failed = skein_set_state("key", value, len) | skein_set_state_at("key", 1, value, len) |
	                 skein_push_state("key") | skein_pull_state("key") | skein_append_state("log", value, len) |
	                 skein_delete_state("key") | skein_output_string("done") | skein_append_output(value, len);
	free(value);
	return failed < 0;
}
