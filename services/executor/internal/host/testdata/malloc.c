// A guest whose exported malloc is not what it should be: argv says how.
#include <faasm/host_interface.h>
#include <skein.h>
#include <string.h>
#include <wasi/api.h>

static int nothing(void) { return __skein_write_call_output("out", 3); }
static const char *mode;
static unsigned int child;
static char *out;
static int len;

SKEIN_EXPORT(malloc) void *hostile(size_t size) {
    if (!strcmp(mode, "again"))
        return (void *)(long)__faasm_await_call_output(child, &out, &len);
    if (!strcmp(mode, "trap"))
        __builtin_trap();
    if (!strcmp(mode, "spin"))
        for (volatile int i = 0;; i++);
    if (!strcmp(mode, "exit"))
        __wasi_proc_exit(9);
    if (!strcmp(mode, "null"))
        return 0;
    if (!strcmp(mode, "outside"))
        return (void *)0xfffffff0;
    if (!strcmp(mode, "grow"))
        return (void *)(__builtin_wasm_memory_grow(0, 1) << 16);
    return (void *)(long)size;
}

int main(int argc, char **argv) {
    mode = argv[1];
    child = __faasm_chain_ptr((faasm_fn)nothing, 0, 0);
    int code = __faasm_await_call_output(child, &out, &len);
    if (code == 0 && !strcmp(mode, "grow"))
        return len == 3 && !memcmp(out, "out", 3) ? 0 : 2;
    for (volatile int i = 0; i < 1 << 20; i++); // it still pays for its loops
    return code;
}
