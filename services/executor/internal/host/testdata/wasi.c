#include "check.h"
#include <wasi/api.h>

// Every function of preview 1 once, past wasi-libc: argv is {"wasi", "two"}, the environment holds KEY=value, stdin is
// "hello", /dir/file holds "content".
__attribute__((import_module("wasi_snapshot_preview1"), import_name("sock_accept")))
int32_t sock_accept(int32_t fd, int32_t flags, int32_t *result); // younger than Debian's wasi-libc

static int want(__wasi_errno_t got, __wasi_errno_t want) { return got == want; }

int main(void) {
    __wasi_size_t n, size;
    uint8_t bytes[256];
    uint8_t *ptrs[16];
    __wasi_timestamp_t t;
    CHECK(want(__wasi_args_sizes_get(&n, &size), 0) && n == 2 && size == 9);
    CHECK(want(__wasi_args_get(ptrs, bytes), 0) && !strcmp((char *)ptrs[1], "two"));
    CHECK(want(__wasi_environ_sizes_get(&n, &size), 0) && n == 1);
    CHECK(want(__wasi_environ_get(ptrs, bytes), 0) && !strcmp((char *)ptrs[0], "KEY=value"));
    CHECK(want(__wasi_clock_res_get(__WASI_CLOCKID_REALTIME, &t), 0) && t > 0);
    CHECK(want(__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 1, &t), 0));
    CHECK(want(__wasi_random_get(bytes, 16), 0));
    CHECK(want(__wasi_sched_yield(), 0));

    __wasi_iovec_t in = {bytes, 5};
    CHECK(want(__wasi_fd_read(0, &in, 1, &n), 0) && n == 5 && !memcmp(bytes, "hello", 5));
    __wasi_ciovec_t out = {(const uint8_t *)"log\n", 4};
    CHECK(want(__wasi_fd_write(1, &out, 1, &n), 0) && n == 4);
    __wasi_fdstat_t stat;
    CHECK(want(__wasi_fd_fdstat_get(1, &stat), 0));

    __wasi_prestat_t pre;
    CHECK(want(__wasi_fd_prestat_get(3, &pre), 0) && pre.u.dir.pr_name_len == 1);
    CHECK(want(__wasi_fd_prestat_dir_name(3, bytes, 1), 0) && bytes[0] == '/');
    __wasi_fd_t fd, dir, none;
    CHECK(want(__wasi_path_open(3, 0, "dir/file", 0, __WASI_RIGHTS_FD_READ | __WASI_RIGHTS_FD_SEEK, 0, 0, &fd), 0));
    CHECK(want(__wasi_path_open(3, 0, "dir", __WASI_OFLAGS_DIRECTORY, __WASI_RIGHTS_FD_READDIR, 0, 0, &dir), 0));
    CHECK(!want(__wasi_path_open(3, 0, "absent", 0, __WASI_RIGHTS_FD_READ, 0, 0, &none), 0));
    CHECK(!want(__wasi_path_open(3, 0, "../x", 0, __WASI_RIGHTS_FD_READ, 0, 0, &none), 0));
    __wasi_filesize_t at;
    in.buf_len = 3;
    CHECK(want(__wasi_fd_pread(fd, &in, 1, 4, &n), 0) && n == 3 && !memcmp(bytes, "ent", 3));
    CHECK(want(__wasi_fd_seek(fd, 3, __WASI_WHENCE_SET, &at), 0) && at == 3);
    CHECK(want(__wasi_fd_tell(fd, &at), 0) && at == 3);
    CHECK(want(__wasi_fd_read(fd, &in, 1, &n), 0) && n == 3 && !memcmp(bytes, "ten", 3));
    __wasi_filestat_t fs;
    CHECK(want(__wasi_fd_filestat_get(fd, &fs), 0) && fs.size == 7);
    CHECK(want(__wasi_path_filestat_get(3, 0, "dir/file", &fs), 0) && fs.size == 7 && fs.filetype == __WASI_FILETYPE_REGULAR_FILE);
    CHECK(want(__wasi_fd_readdir(dir, bytes, sizeof bytes, 0, &n), 0) && n > 0);
    CHECK(!want(__wasi_path_readlink(3, "dir/file", bytes, 10, &n), 0));

    __wasi_subscription_t sub = {.userdata = 7, .u = {.tag = __WASI_EVENTTYPE_CLOCK, .u = {.clock = {.id = __WASI_CLOCKID_MONOTONIC, .timeout = 1000000}}}};
    __wasi_event_t event;
    CHECK(want(__wasi_poll_oneoff(&sub, &event, 1, &n), 0) && n == 1 && event.userdata == 7);

    // What needs a file system that is written to, or a network: refused, not ignored.
    CHECK(!want(__wasi_fd_pwrite(fd, &out, 1, 0, &n), 0));
    CHECK(!want(__wasi_fd_write(fd, &out, 1, &n), 0));
    CHECK(!want(__wasi_fd_allocate(fd, 0, 100), 0));
    CHECK(!want(__wasi_fd_filestat_set_size(fd, 1), 0));
    CHECK(!want(__wasi_path_create_directory(3, "new"), 0));
    CHECK(!want(__wasi_path_unlink_file(3, "dir/file"), 0));
    CHECK(!want(__wasi_path_remove_directory(3, "dir"), 0));
    CHECK(!want(__wasi_path_rename(3, "dir/file", 3, "x"), 0));
    CHECK(!want(__wasi_path_link(3, 0, "dir/file", 3, "x"), 0));
    CHECK(!want(__wasi_path_symlink("x", 3, "y"), 0));
    CHECK(!want(__wasi_path_open(3, 0, "new", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_WRITE, 0, 0, &none), 0));
    __wasi_path_filestat_set_times(3, 0, "dir/file", 1, 1, __WASI_FSTFLAGS_MTIM);
    __wasi_fd_filestat_set_times(fd, 1, 1, __WASI_FSTFLAGS_MTIM);
    __wasi_fd_fdstat_set_flags(fd, 0);
    __wasi_fd_fdstat_set_rights(fd, 0, 0);
    __wasi_fd_advise(fd, 0, 0, 0);
    __wasi_fd_datasync(fd);
    __wasi_fd_sync(fd);
    __wasi_roflags_t ro;
    CHECK(sock_accept(fd, 0, &none) != 0);
    CHECK(!want(__wasi_sock_recv(fd, &in, 1, 0, &n, &ro), 0));
    CHECK(!want(__wasi_sock_send(fd, &out, 1, 0, &n), 0));
    CHECK(!want(__wasi_sock_shutdown(fd, 1), 0));

    CHECK(want(__wasi_fd_renumber(dir, fd), 0));
    CHECK(want(__wasi_fd_close(fd), 0));
    CHECK(want(__wasi_fd_close(dir), __WASI_ERRNO_BADF));
    CHECK(want(__wasi_fd_read(77, &in, 1, &n), __WASI_ERRNO_BADF));
    __wasi_proc_exit(0);
}
