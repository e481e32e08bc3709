// A command: main runs once per call, and its exit code is the call's.
#include <skein.h>

#include <stdlib.h>

int main(void) {
	size_t len;
	char *in = skein_input(&len);
	if (!in)
		return 1;
	int rc = skein_output(in, len);
	free(in);
	return rc != 0;
}
