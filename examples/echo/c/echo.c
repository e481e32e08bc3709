// echo is a reactor: it starts once, is frozen, and each call begins there.
#include <skein.h>
#include <stdlib.h>

__attribute__((export_name("handle"))) int handle(void) {
    size_t len;
    char *in = skein_input(&len);
    int failed = !in || skein_output(in, len) < 0;
    free(in);
    return failed;
}
