#include "check.h"
#include <faasm/host_interface.h>

// Input: "hello".
int main(void) {
    char buf[8] = "????????";
    CHECK(__skein_read_call_input(buf, 0) == 5 && buf[0] == '?');
    CHECK(__skein_read_call_input(buf, 2) == 5 && !memcmp(buf, "he??????", 8));
    CHECK(__skein_read_call_input(buf, 8) == 5 && !memcmp(buf, "hello???", 8));
    CHECK(__skein_read_call_input(OUTSIDE, 32) == -EFAULT);
    CHECK(__skein_read_call_input(OUTSIDE, 0xffffffff) == -EFAULT);

    memset(buf, '?', 8);
    CHECK(__faasm_read_input((unsigned char *)buf, 0) == 5);
    CHECK(__faasm_read_input((unsigned char *)buf, 3) == 3 && !memcmp(buf, "hel?????", 8));
    CHECK(__faasm_read_input(OUTSIDE, 100) == -EFAULT);

    CHECK(__skein_write_call_output("lost", 4) == 0);
    __faasm_write_output("a\0b", 3);
    CHECK(__skein_append_call_output("cd", 2) == 0);
    CHECK(__skein_write_call_output(OUTSIDE, 100) == -EFAULT);
    CHECK(__skein_append_call_output(OUTSIDE, 100) == -EFAULT);
    size_t large = 5 << 20;
    char *big = malloc(large);
    CHECK(big && __skein_write_call_output(big, large) == -EMSGSIZE);
    CHECK(__skein_append_call_output(big, large) == -EMSGSIZE);

    // A planned row answers ENOSYS, in the form of its result.
    CHECK(__skein_dlclose(0) == -ENOSYS);
    CHECK(__skein_last_error() == 0);
    CHECK(__skein_dlsym(0, "f", 1) == 0);
    CHECK(__skein_last_error() == ENOSYS);
    return 0;
}
