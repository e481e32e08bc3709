#include <skein.h>

// Writes to a value in place and ends without a push.
int main(void) {
    char *v = skein_get_state("v", 1 << 20, 0);
    if (!v)
        return 1;
    v[500000] = 'v';
    return 0;
}
