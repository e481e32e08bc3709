#include "check.h"
#include <wasi/api.h>

// Every function of preview 1, past wasi-libc: argv is {"wasi", "two"}, the environment holds KEY=value, stdin is "hello",
// /dir/file holds "content". What is refused is looked at with each row's own number.
#define RAW(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) int32_t raw_##name
RAW(sock_accept)(int32_t fd, int32_t flags, int32_t *conn); // younger than Debian's wasi-libc
RAW(path_open)(int32_t fd, int32_t dirflags, const void *path, size_t len, int32_t oflags, int64_t rights, int64_t inherit,
               int32_t fdflags, void *opened);
RAW(path_filestat_get)(int32_t fd, int32_t flags, const void *path, size_t len, void *stat);
RAW(fd_prestat_dir_name)(int32_t fd, void *path, size_t len);
RAW(fd_renumber)(int32_t fd, int32_t to);
RAW(clock_time_get)(int32_t id, int64_t precision, void *time);
RAW(poll_oneoff)(const void *in, void *out, size_t n, void *nevents);
RAW(proc_raise)(int32_t signal);
RAW(fd_advise)(int32_t fd, int64_t off, int64_t len, int32_t advice);

#define ENV(name) __attribute__((import_module("env"), import_name(#name))) int env_##name
ENV(dup)(int fd);
ENV(dup2)(int fd, int to);

#define IS(got, want) CHECK((got) == __WASI_ERRNO_##want)
#define RUN(part) do { int line = part(); if (line) return line; } while (0)
#define ROOT 3
#define LIMIT 1024 // descriptors
#define READ __WASI_RIGHTS_FD_READ
#define WRITE __WASI_RIGHTS_FD_WRITE
#define INSIDE_BUT_ONE ((void *)(__builtin_wasm_memory_size(0) * 65536 - 1))

static __wasi_size_t n, size;
static uint8_t bytes[256];
static __wasi_fd_t file, dir, none;
static __wasi_iovec_t in = {bytes, 5};
static const __wasi_ciovec_t out = {(const uint8_t *)"log\n", 4};

static __wasi_errno_t open_at(const char *path, __wasi_oflags_t oflags, __wasi_rights_t rights, __wasi_fd_t *fd) {
    return __wasi_path_open(ROOT, 1, path, oflags, rights, 0, 0, fd);
}

static int process(void) {
    uint8_t *ptrs[16];
    IS(__wasi_args_sizes_get(&n, &size), SUCCESS);
    CHECK(n == 2 && size == 9);
    IS(__wasi_args_get(ptrs, bytes), SUCCESS);
    CHECK(ptrs[0] == bytes && ptrs[1] == bytes + 5 && !memcmp(bytes, "wasi\0two", 9));
    IS(__wasi_args_get(OUTSIDE, bytes), FAULT);
    IS(__wasi_args_get(ptrs, OUTSIDE), FAULT);
    IS(__wasi_args_get(INSIDE_BUT_ONE, bytes), FAULT);
    IS(__wasi_args_sizes_get(OUTSIDE, &size), FAULT);
    IS(__wasi_args_sizes_get(&n, INSIDE_BUT_ONE), FAULT);
    IS(__wasi_environ_sizes_get(&n, &size), SUCCESS);
    CHECK(n == 1 && size == 10);
    IS(__wasi_environ_get(ptrs, bytes), SUCCESS);
    CHECK(ptrs[0] == bytes && !memcmp(bytes, "KEY=value", 10));
    IS(__wasi_environ_get(ptrs, OUTSIDE), FAULT);
    IS(__wasi_environ_sizes_get(OUTSIDE, OUTSIDE), FAULT);

    memset(bytes, 0, sizeof bytes);
    IS(__wasi_random_get(bytes, 32), SUCCESS);
    int zeros = 0;
    for (int i = 0; i < 32; i++) zeros += !bytes[i];
    CHECK(zeros < 8 && !bytes[32]);
    IS(__wasi_random_get(OUTSIDE, 100), FAULT);
    IS(__wasi_random_get(bytes, 0xffffffff), FAULT);
    IS(__wasi_random_get(OUTSIDE, 0), SUCCESS);
    IS(__wasi_sched_yield(), SUCCESS);
    IS(raw_proc_raise(16), SUCCESS);
    IS(raw_proc_raise(31), INVAL);
    return 0;
}

static int clocks(void) {
    __wasi_timestamp_t t, later;
    for (int id = 0; id < 2; id++) {
        IS(__wasi_clock_res_get(id, &t), SUCCESS);
        CHECK(t > 0 && t < 1000000);
        IS(__wasi_clock_time_get(id, 1, &t), SUCCESS);
        CHECK(t > 1600000000000000000); // the monotonic one too: a guest that is restored elsewhere must not see it go back
        IS(__wasi_clock_time_get(id, 1, &later), SUCCESS);
        CHECK(id == 0 || later >= t);
    }
    IS(__wasi_clock_time_get(2, 0, &t), NOTSUP);
    IS(__wasi_clock_res_get(3, &t), NOTSUP);
    IS(__wasi_clock_time_get(4, 0, &t), INVAL);
    IS(raw_clock_time_get(-1, 0, &t), INVAL);
    IS(__wasi_clock_time_get(0, 0, INSIDE_BUT_ONE), FAULT);
    IS(__wasi_clock_res_get(0, OUTSIDE), FAULT);
    return 0;
}

static int streams(void) {
    __wasi_filesize_t at;
    __wasi_fdstat_t stat;
    __wasi_filestat_t fs;
    IS(__wasi_fd_fdstat_get(0, &stat), SUCCESS);
    CHECK(stat.fs_filetype == __WASI_FILETYPE_UNKNOWN && (stat.fs_rights_base & (READ | WRITE)) == READ);
    IS(__wasi_fd_fdstat_get(1, &stat), SUCCESS);
    CHECK((stat.fs_rights_base & (READ | WRITE)) == WRITE && !isatty(1));
    IS(__wasi_fd_filestat_get(1, &fs), SUCCESS);
    CHECK(fs.size == 0 && fs.filetype == __WASI_FILETYPE_UNKNOWN);

    // Readings that fail take nothing.
    IS(__wasi_fd_read(0, OUTSIDE, 1, &n), FAULT);
    IS(__wasi_fd_read(0, &in, 1, OUTSIDE), FAULT);
    __wasi_iovec_t bad[3] = {{bytes, 2}, {OUTSIDE, 2}};
    IS(__wasi_fd_read(0, bad, 2, &n), FAULT);
    IS(__wasi_fd_read(0, &in, 1025, &n), INVAL);
    IS(__wasi_fd_read(0, &in, 0x20000000, &n), INVAL); // times 8 is 2^32
    IS(__wasi_fd_read(0, &in, 0xffffffff, &n), INVAL);
    IS(__wasi_fd_read(0, 0, 0, &n), SUCCESS);
    CHECK(n == 0);
    bad[1] = (__wasi_iovec_t){OUTSIDE, 0}; // nothing, wherever it is
    bad[2] = (__wasi_iovec_t){bytes + 2, 2};
    IS(__wasi_fd_read(0, bad, 3, &n), SUCCESS);
    CHECK(n == 4 && !memcmp(bytes, "hell", 4));
    // The pairs themselves are overwritten by what they ask for.
    __wasi_iovec_t self = {(uint8_t *)&self, sizeof self};
    IS(__wasi_fd_read(0, &self, 1, &n), SUCCESS);
    CHECK(n == 1 && *(char *)&self == 'o');
    IS(__wasi_fd_read(0, &in, 1, &n), SUCCESS);
    CHECK(n == 0);
    // More bytes than there is memory, by naming the same ones again and again.
    static __wasi_ciovec_t many[1024];
    for (int i = 0; i < 1024; i++) many[i] = (__wasi_ciovec_t){(uint8_t *)1024, 0x20000};
    IS(__wasi_fd_write(1, many, 1024, &n), INVAL);

    IS(__wasi_fd_write(1, &out, 1, &n), SUCCESS);
    CHECK(n == 4);
    IS(__wasi_fd_write(2, &out, 1, INSIDE_BUT_ONE), FAULT);
    IS(__wasi_fd_write(0, &out, 1, &n), BADF);
    IS(__wasi_fd_read(1, &in, 1, &n), BADF);
    IS(__wasi_fd_pread(0, &in, 1, 0, &n), SPIPE);
    IS(__wasi_fd_pwrite(1, &out, 1, 0, &n), SPIPE);
    IS(__wasi_fd_seek(0, 0, 0, &at), SPIPE);
    IS(__wasi_fd_tell(1, &at), SPIPE);
    IS(__wasi_fd_advise(1, 0, 0, 0), SPIPE);
    IS(__wasi_fd_allocate(1, 0, 1), SPIPE);
    IS(__wasi_fd_sync(1), INVAL);
    IS(__wasi_fd_datasync(1), INVAL);
    IS(__wasi_fd_readdir(0, bytes, sizeof bytes, 0, &n), NOTDIR);
    return 0;
}

static int paths(void) {
    __wasi_prestat_t pre;
    IS(__wasi_fd_prestat_get(ROOT, &pre), SUCCESS);
    CHECK(pre.tag == 0 && pre.u.dir.pr_name_len == 1);
    IS(__wasi_fd_prestat_get(0, &pre), BADF);
    IS(__wasi_fd_prestat_get(4, &pre), BADF);
    IS(__wasi_fd_prestat_get(ROOT, INSIDE_BUT_ONE), FAULT);
    IS(raw_fd_prestat_dir_name(ROOT, bytes, 1), SUCCESS);
    CHECK(bytes[0] == '/');
    IS(raw_fd_prestat_dir_name(ROOT, bytes, 0), NAMETOOLONG);
    IS(raw_fd_prestat_dir_name(ROOT, OUTSIDE, 1), FAULT);
    IS(raw_fd_prestat_dir_name(4, bytes, 1), BADF);

    IS(open_at("dir/file", 0, READ, &file), SUCCESS);
    IS(open_at("dir", __WASI_OFLAGS_DIRECTORY, READ, &dir), SUCCESS);
    IS(open_at("dir", __WASI_OFLAGS_DIRECTORY, READ | WRITE, &none), ISDIR);
    CHECK(file == 4 && dir == 5);
    IS(open_at("absent", 0, READ, &none), NOENT);
    IS(open_at("", 0, READ, &none), NOENT);
    IS(open_at("../x", 0, READ, &none), NOTCAPABLE);
    IS(open_at("dir/../../x", 0, READ, &none), NOTCAPABLE);
    IS(open_at("/dir/file", 0, READ, &none), NOTCAPABLE);
    IS(open_at("dir/file/", 0, READ, &none), NOTDIR);
    IS(open_at("dir/file/x", 0, READ, &none), NOTDIR);
    IS(open_at("dir/file", __WASI_OFLAGS_DIRECTORY, READ, &none), NOTDIR);
    IS(open_at("dir", 0, WRITE, &none), ISDIR);
    IS(open_at("dir/file", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, READ, &none), EXIST);
    IS(open_at("new/", __WASI_OFLAGS_CREAT, WRITE, &none), ISDIR);
    IS(open_at("absent/new", __WASI_OFLAGS_CREAT, WRITE, &none), NOENT);
    IS(open_at("new", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_DIRECTORY, READ, &none), INVAL);
    IS(raw_path_open(ROOT, 1, "dir\0file", 8, 0, READ, 0, 0, &none), INVAL);
    IS(raw_path_open(ROOT, 1, "\xff\xfe", 2, 0, READ, 0, 0, &none), ILSEQ);
    IS(raw_path_open(ROOT, 1, 0, 0x10000, 0, READ, 0, 0, &none), NAMETOOLONG);
    IS(raw_path_open(ROOT, 1, "dir", 0xffffffff, 0, READ, 0, 0, &none), FAULT);
    IS(raw_path_open(ROOT, 1, OUTSIDE, 4, 0, READ, 0, 0, &none), FAULT);
    IS(raw_path_open(ROOT, 1, "dir", 3, 0, READ, 0, 0, INSIDE_BUT_ONE), FAULT);
    IS(raw_path_open(ROOT, 2, "dir", 3, 0, READ, 0, 0, &none), INVAL);
    IS(raw_path_open(ROOT, 1, "dir", 3, 16, READ, 0, 0, &none), INVAL);
    IS(raw_path_open(ROOT, 1, "dir", 3, 0, READ, 0, 32, &none), INVAL);
    IS(raw_path_open(file, 1, "x", 1, 0, READ, 0, 0, &none), NOTDIR);
    IS(raw_path_open(0, 1, "x", 1, 0, READ, 0, 0, &none), NOTDIR);
    IS(raw_path_open(-1, 1, "dir", 3, 0, READ, 0, 0, &none), BADF);
    IS(raw_path_open(INT32_MIN, 1, "dir", 3, 0, READ, 0, 0, &none), BADF);

    __wasi_filestat_t fs;
    IS(__wasi_path_filestat_get(ROOT, 0, "dir/file", &fs), SUCCESS);
    CHECK(fs.size == 7 && fs.filetype == __WASI_FILETYPE_REGULAR_FILE && fs.nlink == 1 && fs.ino);
    __wasi_inode_t ino = fs.ino;
    IS(__wasi_path_filestat_get(dir, 1, "file", &fs), SUCCESS);
    CHECK(fs.ino == ino);
    IS(__wasi_path_filestat_get(dir, 1, "../dir", &fs), NOTCAPABLE);
    IS(__wasi_path_filestat_get(ROOT, 2, "dir", &fs), INVAL);
    IS(__wasi_path_filestat_get(ROOT, 0, "absent", &fs), NOENT);
    IS(raw_path_filestat_get(ROOT, 0, "dir", 3, INSIDE_BUT_ONE), FAULT);
    IS(__wasi_path_readlink(ROOT, "dir/file", bytes, 10, &n), INVAL);
    IS(__wasi_path_readlink(ROOT, "absent", bytes, 10, &n), NOENT);
    IS(__wasi_path_readlink(ROOT, "dir/file", OUTSIDE, 10, &n), FAULT);
    return 0;
}

static int files(void) {
    __wasi_filesize_t at;
    __wasi_filestat_t fs;
    __wasi_fdstat_t stat;
    IS(__wasi_fd_fdstat_get(file, &stat), SUCCESS);
    CHECK(stat.fs_filetype == __WASI_FILETYPE_REGULAR_FILE && stat.fs_flags == 0 && (stat.fs_rights_base & (READ | WRITE)) == READ);
    IS(__wasi_fd_fdstat_get(file, INSIDE_BUT_ONE), FAULT);
    IS(__wasi_fd_fdstat_set_flags(file, __WASI_FDFLAGS_NONBLOCK), SUCCESS);
    IS(__wasi_fd_fdstat_set_flags(file, 32), INVAL);
    IS(__wasi_fd_fdstat_get(file, &stat), SUCCESS);
    CHECK(stat.fs_flags == __WASI_FDFLAGS_NONBLOCK);
    IS(__wasi_fd_fdstat_set_rights(file, 0, 0), NOTSUP);
    in.buf_len = 3;
    IS(__wasi_fd_pread(file, &in, 1, 4, &n), SUCCESS);
    CHECK(n == 3 && !memcmp(bytes, "ent", 3));
    IS(__wasi_fd_pread(file, &in, 1, 1ull << 63, &n), INVAL);
    IS(__wasi_fd_pread(file, &in, 1, INT64_MAX, &n), SUCCESS);
    CHECK(n == 0);
    IS(__wasi_fd_seek(file, 3, __WASI_WHENCE_SET, &at), SUCCESS);
    CHECK(at == 3);
    IS(__wasi_fd_seek(file, -4, __WASI_WHENCE_CUR, &at), INVAL);
    IS(__wasi_fd_seek(file, 0, 3, &at), INVAL);
    IS(__wasi_fd_seek(file, 1, __WASI_WHENCE_SET, OUTSIDE), FAULT);
    IS(__wasi_fd_tell(file, &at), SUCCESS);
    CHECK(at == 3);
    __wasi_iovec_t two[2] = {{bytes, 2}, {bytes + 2, 100}};
    IS(__wasi_fd_read(file, two, 2, &n), SUCCESS);
    CHECK(n == 4 && !memcmp(bytes, "tent", 4));
    IS(__wasi_fd_filestat_get(file, &fs), SUCCESS);
    CHECK(fs.size == 7);
    IS(__wasi_fd_advise(file, 0, 7, __WASI_ADVICE_WILLNEED), SUCCESS);
    IS(raw_fd_advise(file, 0, 7, 6), INVAL);
    IS(raw_fd_advise(file, 0, -1, 0), INVAL);
    IS(__wasi_fd_sync(file), SUCCESS);
    IS(__wasi_fd_datasync(file), SUCCESS);

    // What would change something.
    IS(__wasi_fd_write(file, &out, 1, &n), BADF);
    IS(__wasi_fd_pwrite(file, &out, 1, 0, &n), BADF);
    IS(__wasi_fd_allocate(file, 0, 100), BADF);
    IS(__wasi_fd_allocate(file, 0, 0), INVAL);
    IS(__wasi_fd_filestat_set_size(file, 1), INVAL);
    IS(__wasi_fd_filestat_set_times(file, 1, 1, __WASI_FSTFLAGS_MTIM | __WASI_FSTFLAGS_MTIM_NOW), INVAL);
    IS(__wasi_path_create_directory(ROOT, "dir"), EXIST);
    IS(__wasi_path_remove_directory(ROOT, "dir"), NOTEMPTY);
    IS(__wasi_path_remove_directory(ROOT, "."), INVAL);
    IS(__wasi_path_remove_directory(ROOT, "dir/file"), NOTDIR);
    IS(__wasi_path_unlink_file(ROOT, "dir"), ISDIR);
    IS(__wasi_path_unlink_file(ROOT, "absent"), NOENT);
    IS(__wasi_path_rename(ROOT, "dir/file", 99, "x"), BADF);
    IS(__wasi_path_rename(ROOT, "dir/file", ROOT, "../x"), NOTCAPABLE);
    IS(__wasi_path_rename(ROOT, "dir", ROOT, "dir/x"), INVAL);
    IS(__wasi_path_rename(ROOT, "dir/file", ROOT, "dir"), NOTEMPTY);
    IS(__wasi_path_link(ROOT, 0, "dir/file", ROOT, "dir"), EXIST);
    IS(__wasi_path_link(ROOT, 0, "dir", ROOT, "x"), PERM);
    IS(__wasi_path_symlink("x", ROOT, "dir/file"), EXIST);
    IS(__wasi_path_filestat_set_times(ROOT, 0, "dir/file", 1, 1, 16), INVAL);

    __wasi_roflags_t ro;
    int32_t conn;
    IS(raw_sock_accept(file, 0, &conn), NOTSOCK);
    IS(raw_sock_accept(77, 0, &conn), BADF);
    IS(__wasi_sock_recv(0, &in, 1, 0, &n, &ro), NOTSOCK);
    IS(__wasi_sock_send(1, &out, 1, 0, &n), NOTSOCK);
    IS(__wasi_sock_shutdown(file, 1), NOTSOCK);
    return 0;
}

// What a call writes is its own.
static int writes(void) {
    __wasi_filesize_t at;
    __wasi_filestat_t fs;
    __wasi_fd_t fd, again;
    __wasi_ciovec_t two[2] = {{(const uint8_t *)"one ", 4}, {(const uint8_t *)"two", 3}};
    IS(__wasi_path_create_directory(ROOT, "d"), SUCCESS);
    IS(open_at("d/f", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, WRITE, &fd), SUCCESS);
    IS(__wasi_fd_write(fd, two, 2, &n), SUCCESS);
    CHECK(n == 7);
    IS(__wasi_fd_read(fd, &in, 1, &n), BADF);
    IS(__wasi_fd_pwrite(fd, two, 1, 1ull << 63, &n), INVAL);
    IS(__wasi_fd_pwrite(fd, two, 1, INT64_MAX, &n), FBIG);
    IS(__wasi_fd_pwrite(fd, two, 1, 4, &n), SUCCESS);
    IS(__wasi_fd_filestat_set_size(fd, 6), SUCCESS);
    IS(__wasi_fd_filestat_set_size(fd, 1ull << 63), INVAL);
    IS(__wasi_fd_filestat_set_size(fd, 1ull << 60), FBIG);
    IS(__wasi_fd_allocate(fd, 6, 3), SUCCESS);
    IS(__wasi_fd_allocate(fd, 0, 1ull << 39), DQUOT);
    IS(__wasi_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_APPEND), SUCCESS);
    IS(__wasi_fd_seek(fd, 0, __WASI_WHENCE_SET, &at), SUCCESS);
    IS(__wasi_fd_write(fd, two + 1, 1, &n), SUCCESS);
    IS(__wasi_fd_tell(fd, &at), SUCCESS);
    CHECK(at == 12);
    IS(__wasi_fd_filestat_set_times(fd, 5, 7, __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_MTIM), SUCCESS);
    IS(__wasi_path_link(ROOT, 0, "d/f", ROOT, "d/g"), SUCCESS);
    IS(__wasi_path_filestat_get(ROOT, 0, "d/g", &fs), SUCCESS);
    CHECK(fs.size == 12 && fs.nlink == 2 && fs.atim == 5 && fs.mtim == 7 && fs.ctim > 7);
    IS(__wasi_path_filestat_set_times(ROOT, 0, "d/g", 0, 0, __WASI_FSTFLAGS_MTIM_NOW), SUCCESS);
    IS(__wasi_fd_filestat_get(fd, &fs), SUCCESS);
    CHECK(fs.atim == 5 && fs.mtim > 7);
    IS(__wasi_path_unlink_file(ROOT, "d/f"), SUCCESS);
    IS(__wasi_path_symlink("/d/g", ROOT, "l"), SUCCESS);
    IS(__wasi_path_readlink(ROOT, "l", bytes, 3, &n), SUCCESS);
    CHECK(n == 3 && !memcmp(bytes, "/d/", 3));
    IS(raw_path_open(ROOT, 0, "l", 1, 0, READ, 0, 0, &again), LOOP);
    IS(open_at("l", 0, READ, &again), SUCCESS);
    in.buf_len = 20;
    IS(__wasi_fd_read(again, &in, 1, &n), SUCCESS);
    CHECK(n == 12 && !memcmp(bytes, "one on\0\0\0two", 12));
    IS(__wasi_path_rename(ROOT, "d/g", ROOT, "dir/file"), SUCCESS); // over a shared file
    IS(__wasi_path_remove_directory(ROOT, "d"), SUCCESS);
    IS(__wasi_path_filestat_get(ROOT, 0, "dir/file", &fs), SUCCESS);
    CHECK(fs.size == 12);
    IS(open_at("dir/file", __WASI_OFLAGS_TRUNC, READ, &none), SUCCESS);
    IS(__wasi_fd_filestat_get(fd, &fs), SUCCESS);
    CHECK(fs.size == 0 && fs.nlink == 1);
    IS(__wasi_path_unlink_file(ROOT, "dir/file"), SUCCESS); // hides the shared one
    IS(open_at("dir/file", 0, READ, &none), NOENT);
    IS(__wasi_fd_pread(file, &in, 1, 0, &n), SUCCESS); // who had that open has it still
    CHECK(n == 7 && !memcmp(bytes, "content", 7));
    IS(__wasi_path_symlink("../..", ROOT, "out"), SUCCESS);
    IS(open_at("out/x", 0, READ, &none), NOTCAPABLE);
    IS(open_at("etc/passwd", 0, READ, &none), SUCCESS);
    for (__wasi_fd_t i = 6; i < 10; i++) IS(__wasi_fd_close(i), SUCCESS);
    IS(open_at("dir/file", __WASI_OFLAGS_CREAT, WRITE, &fd), SUCCESS);
    IS(__wasi_fd_close(fd), SUCCESS);
    return 0;
}

static int dups(void) {
    __wasi_filesize_t at;
    CHECK(__skein_dup(dir) == 6 && __skein_dup2(file, 20) == 20 && __skein_fcntl(file, SKEIN_F_DUPFD, 10) == 10);
    CHECK(__skein_dup(99) == -__WASI_ERRNO_BADF && __skein_dup2(file, -1) == -__WASI_ERRNO_BADF && __skein_dup2(-1, 5) == -__WASI_ERRNO_BADF);
    CHECK(__skein_fcntl(file, SKEIN_F_DUPFD, -1) == -__WASI_ERRNO_INVAL && __skein_fcntl(file, 3, 0) == -__WASI_ERRNO_INVAL);
    CHECK(env_dup(file) == 7 && env_dup2(7, 21) == 21 && env_dup(99) == -1 && env_dup2(99, 5) == -1);
    IS(__wasi_fd_seek(20, 2, __WASI_WHENCE_SET, &at), SUCCESS);
    IS(__wasi_fd_tell(10, &at), SUCCESS);
    CHECK(at == 2);
    for (__wasi_fd_t i = 6; i < 22; i++)
        if (i == 6 || i == 7 || i == 10 || i >= 20) IS(__wasi_fd_close(i), SUCCESS);
    return 0;
}

static int directories(void) {
    __wasi_dirent_t d;
    __wasi_filesize_t at;
    IS(__wasi_fd_readdir(dir, bytes, sizeof bytes, 0, &n), SUCCESS);
    CHECK(n == 3 * sizeof d + 1 + 2 + 4);
    memcpy(&d, bytes + 2 * sizeof d + 3, sizeof d);
    CHECK(d.d_namlen == 4 && d.d_type == __WASI_FILETYPE_REGULAR_FILE && d.d_ino && !memcmp(bytes + 3 * sizeof d + 3, "file", 4));
    // From ".." on; then cut, so that the guest asks again with a larger buffer.
    IS(__wasi_fd_readdir(dir, bytes, sizeof bytes, 1, &n), SUCCESS);
    CHECK(n == 2 * sizeof d + 2 + 4);
    IS(__wasi_fd_readdir(dir, bytes, sizeof d + 2, 2, &n), SUCCESS);
    CHECK(n == sizeof d + 2);
    IS(__wasi_fd_readdir(dir, bytes, sizeof bytes, d.d_next, &n), SUCCESS);
    CHECK(n == 0);
    IS(__wasi_fd_readdir(dir, bytes, sizeof bytes, d.d_next + 1, &n), INVAL);
    IS(__wasi_fd_readdir(dir, bytes, sizeof bytes, UINT64_MAX, &n), INVAL);
    IS(__wasi_fd_readdir(dir, bytes, sizeof d - 1, 0, &n), INVAL);
    IS(__wasi_fd_readdir(dir, OUTSIDE, sizeof bytes, 0, &n), FAULT);
    IS(__wasi_fd_readdir(dir, bytes, sizeof bytes, 0, OUTSIDE), FAULT);
    IS(__wasi_fd_readdir(file, bytes, sizeof bytes, 0, &n), NOTDIR);
    IS(__wasi_fd_read(dir, &in, 1, &n), ISDIR);
    IS(__wasi_fd_pread(dir, &in, 1, 0, &n), ISDIR);
    IS(__wasi_fd_seek(dir, 0, 0, &at), ISDIR);
    IS(__wasi_fd_tell(dir, &at), ISDIR);
    return 0;
}

#define CLOCK(user, which, wait, how) \
    {.userdata = user, .u = {.tag = __WASI_EVENTTYPE_CLOCK, .u = {.clock = {.id = which, .timeout = wait, .flags = how}}}}
#define FD(user, kind, fd) {.userdata = user, .u = {.tag = __WASI_EVENTTYPE_FD_##kind, .u = {.fd_read = {fd}}}}

static int polls(void) {
    __wasi_timestamp_t before, after;
    __wasi_event_t e[8];
    const __wasi_clockid_t monotonic = __WASI_CLOCKID_MONOTONIC, realtime = __WASI_CLOCKID_REALTIME;
    IS(__wasi_clock_time_get(monotonic, 0, &before), SUCCESS);
    __wasi_subscription_t first[] = {CLOCK(7, monotonic, 3600000000000, 0), CLOCK(8, monotonic, 20000000, 0)};
    IS(__wasi_poll_oneoff(first, e, 2, &n), SUCCESS);
    IS(__wasi_clock_time_get(monotonic, 0, &after), SUCCESS);
    CHECK(n == 1 && e[0].userdata == 8 && e[0].error == 0 && e[0].type == __WASI_EVENTTYPE_CLOCK && after - before >= 20000000);

    // Absolute: one that has passed, and one that is to come on each clock.
    __wasi_subscription_t past = CLOCK(9, monotonic, 1, 1);
    IS(__wasi_poll_oneoff(&past, e, 1, &n), SUCCESS);
    CHECK(n == 1 && e[0].userdata == 9);
    for (int id = 0; id < 2; id++) {
        IS(__wasi_clock_time_get(id, 0, &before), SUCCESS);
        __wasi_subscription_t soon = CLOCK(10, id, before + 10000000, 1);
        IS(__wasi_poll_oneoff(&soon, e, 1, &n), SUCCESS);
        IS(__wasi_clock_time_get(id, 0, &after), SUCCESS);
        CHECK(n == 1 && e[0].userdata == 10 && after >= before + 10000000);
    }

    // Descriptors are ready at once, and what is wrong with one is told in its event.
    __wasi_subscription_t all[] = {
        CLOCK(1, monotonic, UINT64_MAX, 0), FD(2, READ, 0), FD(3, WRITE, 1), FD(4, READ, 1), FD(5, WRITE, file), FD(6, READ, 77),
        CLOCK(7, 9, 1, 0), CLOCK(8, realtime, 1, 2),
    };
    const int errors[] = {0, 0, __WASI_ERRNO_BADF, __WASI_ERRNO_BADF, __WASI_ERRNO_BADF, __WASI_ERRNO_INVAL, __WASI_ERRNO_INVAL};
    IS(__wasi_poll_oneoff(all, e, 8, &n), SUCCESS);
    CHECK(n == 7);
    for (int i = 0; i < 7; i++) CHECK(e[i].userdata == i + 2 && e[i].error == errors[i] && e[i].type == all[i + 1].u.tag);
    CHECK(e[1].fd_readwrite.nbytes > 0);
    __wasi_fd_seek(file, 2, __WASI_WHENCE_SET, &before);
    all[1].u.u.fd_read.file_descriptor = file;
    // The events may overwrite what was subscribed to.
    IS(__wasi_poll_oneoff(all, (void *)all, 2, &n), SUCCESS);
    memcpy(e, all, sizeof e[0]);
    CHECK(n == 1 && e[0].userdata == 2 && e[0].fd_readwrite.nbytes == 5);

    all[0].u.tag = 3;
    IS(__wasi_poll_oneoff(all, e, 1, &n), INVAL);
    IS(raw_poll_oneoff(all, e, 0, &n), INVAL);
    IS(raw_poll_oneoff(all, e, 1000000, &n), INVAL);
    IS(raw_poll_oneoff(all, e, 0xffffffff, &n), INVAL);
    IS(raw_poll_oneoff(OUTSIDE, e, 1, &n), FAULT);
    IS(raw_poll_oneoff(all, OUTSIDE, 1, &n), FAULT);
    IS(raw_poll_oneoff(all, e, 1, OUTSIDE), FAULT);
    return 0;
}

static int descriptors(void) {
    for (__wasi_fd_t want = 6; want < LIMIT; want++) {
        __wasi_fd_t fd;
        IS(open_at("dir/file", 0, READ, &fd), SUCCESS);
        CHECK(fd == want);
    }
    IS(open_at("dir/file", 0, READ, &none), MFILE);
    for (__wasi_fd_t fd = 6; fd < LIMIT; fd++) IS(__wasi_fd_close(fd), SUCCESS);
    const __wasi_fd_t bad[] = {6, LIMIT, -1, 0x80000000, 0x7fffffff};
    for (int i = 0; i < 5; i++) {
        IS(__wasi_fd_close(bad[i]), BADF);
        IS(__wasi_fd_read(bad[i], &in, 1, &n), BADF);
        IS(__wasi_fd_sync(bad[i]), BADF);
        IS(raw_fd_renumber(bad[i], file), BADF);
        if (i > 0) IS(raw_fd_renumber(file, bad[i]), BADF);
    }
    IS(raw_fd_renumber(dir, file), SUCCESS);
    IS(__wasi_fd_readdir(file, bytes, sizeof bytes, 0, &n), SUCCESS);
    IS(__wasi_fd_close(file), SUCCESS);
    IS(__wasi_fd_close(dir), BADF);
    IS(__wasi_fd_close(ROOT), SUCCESS);
    IS(__wasi_path_create_directory(ROOT, "x"), BADF);
    return 0;
}

int main(void) {
    RUN(process);
    RUN(clocks);
    RUN(streams);
    RUN(paths);
    RUN(files);
    RUN(writes);
    RUN(dups);
    RUN(directories);
    RUN(polls);
    RUN(descriptors);
    __wasi_proc_exit(0);
}
