#include "check.h"
#include <faasm/host_interface.h>
#include <stdio.h>

#define U(p) ((const unsigned char *)(p))

static int pointed(void) {
    char in[8];
    int n = __skein_read_call_input(in, 8);
    return __skein_write_call_output(in, n) ? 99 : n;
}

static int seen; // what a child writes is in its own memory
static int number(int n) { return seen += n; }
static void quiet(int n) { seen = n; }
static long other(long long n) { return (long)n; }
static int trap(void) { __builtin_trap(); }
static int bye(void) { exit(7); }
static int (*volatile take)(int) = number; // or the optimiser knows better than to keep them in the table
static void (*volatile hush)(int) = quiet;
static long (*volatile odd)(long long) = other;

static int native(void) {
    char buf[8] = {0};
    int id = __skein_chain_name("self", 4, "x", 1);
    CHECK(id > 0 && __skein_await_call(id) == 42);
    CHECK(__skein_chain_name("nobody", 6, 0, 0) == -ENOENT);
    CHECK(__skein_chain_name("Not a name", 10, 0, 0) == -ENOENT);
    CHECK(__skein_chain_name(OUTSIDE, 99, 0, 0) == -EFAULT);
    CHECK(__skein_chain_name("self", 4, OUTSIDE, 99) == -EFAULT);

    id = __skein_chain_ptr(pointed, "a\0b", 3);
    CHECK(id > 0 && __skein_await_call(id) == 3);
    CHECK(__skein_await_call_output(id, buf, 0) == 3 && __skein_await_call_output(id, buf, 2) == 3 && !memcmp(buf, "a\0\0", 3));
    CHECK(__skein_await_call_output(id, OUTSIDE, 99) == -EFAULT);
    CHECK(__skein_await_any(&id, 1, -1) == 0 && __skein_await_any(&id, 0, -1) == -EINVAL);
    CHECK(__skein_await_any(OUTSIDE, 9, -1) == -EFAULT);
    CHECK(__skein_cancel_call(id) == 0 && __skein_cancel_call(99) == -ECHILD);
    CHECK(__skein_await_call(0) == -ECHILD && __skein_await_call(-1) == -ECHILD);
    CHECK(__skein_call_error(99, buf, 8) == -ECHILD && __skein_call_error(id, OUTSIDE, 99) == -EFAULT);

    CHECK(__skein_chain_ptr((skein_fn)(void *)take, "1", 1) == -EINVAL);
    CHECK(__skein_chain_ptr((skein_fn)(void *)odd, "1", 1) == -EINVAL);
    CHECK(__skein_chain_ptr((skein_fn)0, "1", 1) == -EINVAL);
    CHECK(__skein_chain_ptr((skein_fn)0x7fffffff, "1", 1) == -EINVAL);
    CHECK(__skein_chain_ptr((skein_fn)0xffffffff, "1", 1) == -EINVAL);

    id = __skein_chain_ptr(trap, 0, 0);
    CHECK(id > 0 && __skein_await_call(id) == -EIO && __skein_await_call_output(id, buf, 8) == -EIO);
    CHECK(__skein_call_error(id, buf, 8) > 8 && !memcmp(buf, "GUEST_TR", 8));
    id = __skein_chain_ptr(bye, 0, 0);
    CHECK(id > 0 && __skein_await_call(id) == 7);
    return 0;
}

static int faasm(void) {
    unsigned int id = __faasm_chain_name("self", U("x"), 1);
    CHECK(id > 0 && __faasm_await_call(id) == 42);
    CHECK(__faasm_chain_name("nobody", U(""), 0) == 0 && __faasm_chain_name(OUTSIDE, U(""), 0) == 0);
    CHECK(__faasm_await_call(0) == 1 && __faasm_await_call(99) == 1);

    id = __faasm_chain_ptr((faasm_fn)(void *)take, U("12"), 2);
    CHECK(id > 0 && __faasm_await_call(id) == 12);
    id = __faasm_chain_ptr((faasm_fn)(void *)take, U("12"), 2);
    CHECK(id > 0 && __faasm_await_call(id) == 12 && seen == 0);
    id = __faasm_chain_ptr((faasm_fn)(void *)take, U("-1\n"), 3);
    CHECK(id > 0 && __faasm_await_call(id) == 255);
    id = __faasm_chain_ptr((faasm_fn)(void *)take, U("twelve"), 6);
    CHECK(id > 0 && __faasm_await_call(id) == 1);
    id = __faasm_chain_ptr((faasm_fn)(void *)hush, U("3"), 1);
    CHECK(id > 0 && __faasm_await_call(id) == 0);
    CHECK(__faasm_chain_ptr((faasm_fn)(void *)odd, U("3"), 1) == 0);
    CHECK(__skein_chain_ptr((skein_fn)(void *)hush, "3", 1) == -EINVAL);

    id = __faasm_chain_ptr((faasm_fn)(void *)pointed, U("a\0b"), 3);
    char *out = 0;
    int len = -1;
    CHECK(__faasm_await_call_output(id, &out, &len) == 3 && out && len == 3 && !memcmp(out, "a\0b", 3));
    char *again = 0;
    CHECK(__faasm_await_call_output(id, &again, &len) == 3 && again && again != out);
    free(out), free(again);
    CHECK(__faasm_await_call_output(id, OUTSIDE, &len) == 1 && __faasm_await_call_output(id, &out, OUTSIDE) == 1);
    CHECK(__faasm_await_call_output(99, &out, &len) == 1);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 1)
        return 42; // a child by name
    int line = native();
    return line ? line : faasm();
}
