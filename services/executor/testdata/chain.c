// A reactor whose input says what to do, and that calls itself by name or by pointer.
#include "../internal/host/testdata/check.h"
#include <stdio.h>

static char in[64];
static int word, number;

static void read_input(void) {
    int n = __skein_read_call_input(in, sizeof in - 1);
    in[n < 63 ? n : 63] = 0;
    char *space = strchr(in, ' ');
    number = space ? atoi(space + 1) : 0;
}

static int start(const char *what, int n) {
    char text[64];
    snprintf(text, sizeof text, "%s %d", what, n);
    return __skein_chain_name(getenv("SKEIN_FUNCTION"), strlen(getenv("SKEIN_FUNCTION")), text, strlen(text));
}

static int output_number(int n) {
    char text[16];
    return skein_output(text, snprintf(text, sizeof text, "%d", n)) < 0;
}

static int child_number(int id) {
    char text[17] = {0};
    int code = id < 0 ? -id : __skein_await_call(id);
    if (code)
        return code < 0 ? code : -code;
    int n = __skein_await_call_output(id, text, 16);
    return n < 0 ? n : atoi(text);
}

// Each call makes one more, and answers how many are below it.
static int deep(void) {
    if (number == 0)
        return output_number(0);
    int below = child_number(start("deep", number - 1));
    return below < 0 ? -below : output_number(below + 1);
}

// Each call makes two more, and answers how many calls there are at and below it.
static int tree(void) {
    if (number == 0)
        return output_number(1);
    int a = start("tree", number - 1), b = start("tree", number - 1);
    int x = child_number(a), y = child_number(b);
    if (x < 0 || y < 0)
        return x < 0 ? -x : -y;
    return output_number(x + y + 1);
}

static int worker(void) {
    read_input();
    return atoi(in);
}

static int takes_one(int n) { return n; }
static int (*volatile wrong)(int) = takes_one;

// Many by pointer. The sum of the exit codes is the answer.
static int fan(void) {
    static int ids[1000];
    int sum = 0;
    for (int i = 0; i < number; i++) {
        char text[16];
        ids[i] = __skein_chain_ptr(worker, text, snprintf(text, sizeof text, "%d", i % 7));
        CHECK(ids[i] > 0);
    }
    if (number == 1000)
        CHECK(__skein_chain_ptr(worker, "1", 1) == -EAGAIN);
    for (int i = 0; i < number; i++) {
        int code = __skein_await_call(ids[i]);
        CHECK(code == i % 7);
        sum += code;
    }
    return output_number(sum);
}

// One after the other.
static int loop(void) {
    for (int i = 0; i < number; i++) {
        int id = __skein_chain_ptr(worker, "0", 1);
        CHECK(id > 0 && __skein_await_call(id) == 0);
    }
    return 0;
}

static int checks(void) {
    char buf[8];
    CHECK(__skein_chain_name("nobody", 6, "", 0) == -ENOENT);
    CHECK(__skein_chain_name("nobody", 6, "", 0) == -ENOENT);
    CHECK(__skein_chain_name("No Name", 7, "", 0) == -ENOENT);
    CHECK(__skein_chain_name("", 0, "", 0) == -ENOENT);
    CHECK(__skein_chain_name(OUTSIDE, 100, "", 0) == -EFAULT);
    CHECK(__skein_chain_name("echo", 4, OUTSIDE, 100) == -EFAULT);
    CHECK(__skein_chain_name("echo", 4, "", 0xffffffff) == -EFAULT);
    void *big = malloc(5 << 20);
    CHECK(big && __skein_chain_name("echo", 4, big, 5 << 20) == -EMSGSIZE);
    CHECK(__skein_chain_ptr((skein_fn)wrong, "", 0) == -EINVAL);
    CHECK(__skein_chain_ptr((skein_fn)0, "", 0) == -EINVAL);
    CHECK(__skein_chain_ptr((skein_fn)0xffffffff, "", 0) == -EINVAL);
    for (int id = -1; id < 5; id++) {
        CHECK(__skein_await_call(id) == -ECHILD);
        CHECK(__skein_await_call_output(id, buf, 8) == -ECHILD);
        CHECK(__skein_cancel_call(id) == -ECHILD);
        CHECK(__skein_call_error(id, buf, 8) == -ECHILD);
        CHECK(__skein_await_any(&id, 1, 0) == -ECHILD);
    }
    int echo = __skein_chain_name("echo", 4, "a\0b", 3);
    CHECK(echo > 0);
    CHECK(__skein_await_call(echo) == 0);
    CHECK(__skein_await_call_output(echo, buf, 0) == 3);
    CHECK(__skein_await_call_output(echo, buf, 8) == 3 && !memcmp(buf, "a\0b", 3));
    CHECK(__skein_await_call_output(echo, buf, 8) == 3);
    CHECK(__skein_await_call_output(echo, OUTSIDE, 100) == -EFAULT);
    CHECK(__skein_await_any(&echo, 1, -1) == 0);
    CHECK(__skein_cancel_call(echo) == 0 && __skein_await_call(echo) == 0);
    CHECK(__skein_call_error(echo, buf, 8) == 0);

    int nine = start("exit", 9), trap = start("trap", 0), spin = start("spin", 0);
    CHECK(nine > 0 && trap > 0 && spin > 0);
    CHECK(__skein_await_call(nine) == 9);
    CHECK(__skein_call_error(nine, buf, 8) > 10 && !memcmp(buf, "GUEST_EX", 8));
    CHECK(__skein_await_call(trap) == -EIO);
    CHECK(__skein_await_call_output(trap, buf, 8) == -EIO);
    CHECK(__skein_call_error(trap, buf, 8) > 10 && !memcmp(buf, "GUEST_TR", 8));
    int three[3] = {spin, trap, nine};
    CHECK(__skein_call_error(spin, buf, 8) == -EAGAIN);
    CHECK(__skein_await_any(three, 1, 0) == -EAGAIN);
    CHECK(__skein_await_any(three, 1, 20) == -EAGAIN);
    CHECK(__skein_await_any(three, 3, -1) == 1);
    CHECK(__skein_await_any(three, 0, -1) == -EINVAL);
    int foreign[2] = {nine, 99};
    CHECK(__skein_await_any(foreign, 2, -1) == -ECHILD);
    CHECK(__skein_await_call(0x7fffffff) == -ECHILD && __skein_await_call((int)0x80000000) == -ECHILD);
    CHECK(__skein_await_any(three, 1001, -1) == -EINVAL);
    CHECK(__skein_await_any(OUTSIDE, 100, -1) == -EFAULT);
    CHECK(__skein_cancel_call(spin) == 0);
    CHECK(__skein_await_call(spin) == -ECANCELED);
    CHECK(__skein_cancel_call(spin) == 0);
    int pointed = __skein_chain_ptr(worker, "5", 1);
    CHECK(pointed > 0 && __skein_await_call(pointed) == 5);
    return 0;
}

// A call that computes for ever, beside one that ends.
static int hedge(void) {
    int two[2] = {start("exit", 0), start("spin", 0)};
    CHECK(__skein_await_any(two, 2, -1) == 0);
    CHECK(__skein_await_any(two + 1, 1, 5) == -EAGAIN);
    CHECK(__skein_cancel_call(two[1]) == 0);
    CHECK(__skein_await_call(two[1]) == -ECANCELED);
    return 0;
}

static int nap(void) {
    puts("napping");
    fflush(stdout);
    usleep(number * 1000);
    puts("rested");
    return output_number(number);
}

// 1,000 bytes out, twice; 1,010 in.
static int state(void) {
    static char buf[2000];
    CHECK(__skein_set_state("k", 1, buf, 1000) == 0);
    CHECK(__skein_read_state("k", 1, 0, buf, 2000) == 1000);
    CHECK(__skein_push_state("k", 1) == 0);
    CHECK(__skein_push_state("k", 1) == 0);
    CHECK(__skein_append_state("k", 1, buf, 10) == 1000);
    CHECK(__skein_pull_state("k", 1) == 0);
    CHECK(__skein_set_state_offset("k", 1, buf, 990, 5) == 0);
    CHECK(__skein_push_state("k", 1) == 0);
    return 0;
}

// One that waits for a lock doesn't keep its slot from the one that has it; and a lock ends with its call.
static int wants_lock(void) {
    if (__skein_lock_state_write("lock", 4))
        return 1;
    return output_number(__skein_state_size("lock", 4));
}

static int locker(void) {
    CHECK(__skein_lock_state_write("lock", 4) == 0);
    int a = start("want", 0), b = start("want", 0);
    CHECK(child_number(start("tree", 0)) == 1);
    CHECK(skein_set_state("lock", "value", 5) == 0 && __skein_unlock_state_write("lock", 4) == 0);
    CHECK(child_number(a) == 5 && child_number(b) == 5);
    return 0;
}

// A lock that the call's child waits for, for ever.
static int deadlock(void) {
    CHECK(__skein_lock_state_read("lock", 4) == 0);
    return -__skein_await_call(start("want", 0));
}

// Each call counts in state that all of them map.
static int count(void) {
    int *n = skein_get_state("count", sizeof *n, 0);
    CHECK(n && __skein_lock_state_write("count", 5) == 0);
    for (int i = 0; i < 1000; i++)
        *(volatile int *)n += 1;
    return __skein_push_state("count", 5);
}

static int counts(void) {
    int ids[32];
    CHECK(skein_set_state("count", (int[1]){0}, 4) == 0);
    for (int i = 0; i < 32; i++)
        ids[i] = start("count", 0);
    for (int i = 0; i < 32; i++)
        CHECK(__skein_await_call(ids[i]) == 0);
    int n = 0;
    CHECK(__skein_read_appended_state("count", 5, 0, &n, 4) == 4); // their pushes are seen once they have ended
    return output_number(n);
}

SKEIN_EXPORT(handle) int handle(void) {
    read_input();
    if (!strncmp(in, "want", 4)) return wants_lock();
    if (!strncmp(in, "lock", 4)) return locker();
    if (!strncmp(in, "dead", 4)) return deadlock();
    if (!strncmp(in, "counts", 6)) return counts();
    if (!strncmp(in, "count", 5)) return count();
    if (!strncmp(in, "deep", 4)) return deep();
    if (!strncmp(in, "tree", 4)) return tree();
    if (!strncmp(in, "fan", 3)) return fan();
    if (!strncmp(in, "loop", 4)) return loop();
    if (!strncmp(in, "exit", 4)) return number;
    if (!strncmp(in, "trap", 4)) __builtin_trap();
    if (!strncmp(in, "spin", 4)) for (volatile int i = 0;; i++);
    if (!strncmp(in, "hold", 4)) return -__skein_await_call(start("spin", 0)); // until its end
    if (!strncmp(in, "leave", 5)) return start("spin", 0) < 0;
    if (!strncmp(in, "checks", 6)) return checks();
    if (!strncmp(in, "state", 5)) return state();
    if (!strncmp(in, "hedge", 5)) return hedge();
    if (!strncmp(in, "nap", 3)) return nap();
    if (!strncmp(in, "later", 5)) return nap() ? 1 : output_number(child_number(start("deep", 1)));
    return 255;
}
