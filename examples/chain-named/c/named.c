// named calls another function, echo, with bytes of every value, and takes its output.
#include <skein.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

SKEIN_EXPORT(handle) int handle(void) {
    unsigned char bytes[256];
    for (int i = 0; i < 256; i++)
        bytes[i] = (unsigned char)i;
    int child = skein_chain("echo", bytes, sizeof bytes);
    if (child < 0) {
        fprintf(stderr, "echo can't be called: %s\n", strerror(-child));
        return 1;
    }
    size_t len;
    int exit = skein_await(child);
    char *out = skein_await_output(child, &len);
    char text[64];
    snprintf(text, sizeof text, "echo exited with %d; %zu bytes came back, %s\n", exit, len,
             out && len == sizeof bytes && !memcmp(out, bytes, len) ? "the same" : "others");
    free(out);
    return skein_output_string(text) < 0;
}
