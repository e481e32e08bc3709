#include "check.h"
#include <faasm/host_interface.h>

int main(void) {
    char buf[16];
    CHECK(__skein_read_state("k", 1, 0, buf, 16) == -ENOENT);
    CHECK(__skein_state_size("k", 1) == -ENOENT);
    CHECK(__skein_push_state("k", 1) == -ENOENT);
    CHECK(__skein_pull_state("k", 1) == -ENOENT);
    CHECK(__skein_delete_state("k", 1) == -ENOENT);
    CHECK(__faasm_read_state("k", 0, 0) == 0);

    CHECK(__skein_set_state("k", 1, "value", 5) == 0);
    CHECK(__skein_set_state_offset("k", 1, "!!", 2, 7) == 0); // beyond the end: zeros between
    memset(buf, '?', 16);
    CHECK(__skein_read_state("k", 1, 0, buf, 16) == 9 && !memcmp(buf, "value\0\0!!???????", 16));
    CHECK(__skein_read_state("k", 1, 7, buf, 2) == 9 && !memcmp(buf, "!!", 2));
    CHECK(__skein_read_state("k", 1, 100, buf, 16) == 9);
    CHECK(__skein_state_size("k", 1) == 9);
    CHECK(__skein_push_state("k", 1) == 0);
    CHECK(__skein_pull_state("k", 1) == 0);
    CHECK(__skein_append_state("k", 1, "++", 2) == 9);
    CHECK(__skein_state_size("k", 1) == 9); // the replica is as it was until a pull
    CHECK(__skein_set_state_offset("k", 1, "V", 1, 0) == 0);
    CHECK(__skein_pull_state("k", 1) == 0);
    CHECK(__skein_read_state("k", 1, 0, buf, 16) == 11 && !memcmp(buf, "Value\0\0!!++", 11)); // V was not overwritten
    CHECK(__skein_push_state("k", 1) == 0);

    memset(buf, '?', 16);
    CHECK(__faasm_read_state("k", (unsigned char *)buf, 3) == 3 && !memcmp(buf, "Val?", 4));
    __faasm_write_state("f", (const unsigned char *)"faasm", 5);
    __faasm_push_state("f");
    __faasm_pull_state("f", 5);
    __faasm_pull_state("absent", 5);
    CHECK(__skein_state_size("f", 1) == 5);
    CHECK(__skein_delete_state("f", 1) == 0);
    CHECK(__skein_state_size("f", 1) == -ENOENT);

    CHECK(__skein_set_state("", 0, "v", 1) == -EINVAL);
    CHECK(__skein_set_state("a\0b", 3, "v", 1) == -EINVAL);
    CHECK(__skein_set_state(buf, 1025, "v", 1) == -EINVAL);
    CHECK(__skein_set_state(OUTSIDE, 100, "v", 1) == -EFAULT);
    CHECK(__skein_set_state("k", 1, OUTSIDE, 100) == -EFAULT);
    CHECK(__skein_set_state_offset("k", 1, "v", 1, -1) == -EINVAL);
    CHECK(__skein_set_state_offset("k", 1, "v", 1, 64 << 20) == -EFBIG);
    CHECK(__skein_set_state_offset("k", 1, "v", 1, INT64_MAX) == -EFBIG);
    CHECK(__skein_read_state("k", 1, -1, buf, 1) == -EINVAL);
    CHECK(__skein_read_state("k", 1, 0, OUTSIDE, 100) == -EFAULT);
    CHECK(__skein_append_state("k", 1, OUTSIDE, 100) == -EFAULT);
    return 0;
}
