// A reactor: handle runs once per call, and what it returns is the call's exit code. It uses all of sugar.h.
#include <skein.h>

#include <stdlib.h>

__attribute__((export_name("handle"))) int handle(void) {
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
