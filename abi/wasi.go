package abi

import "slices"

const (
	noteNetwork = "no network is granted, so nothing is a socket: ENOTSOCK"
)

var (
	wasiBuilt   = Func{Module: WASI, Mission: "WASI", Support: Built}
	wasiNetwork = Func{Module: WASI, Mission: "WASI", Support: Partial, Note: noteNetwork}
)

var roomWASI = Room{
	Name: "wasi",
	Doc: "WASI preview 1, all of it: what C, Go, Rust and other standard libraries are built on. Results are 0 or an errno, " +
		"positive; values come back through pointers. A pointer outside memory is EFAULT, a descriptor that is not open EBADF, " +
		"and so is reading from one that is not for reading. A call has 1,024 descriptors (executor flag --open-files), numbered from 0. Paths have at most 4,096 bytes and their " +
		"components 255 (ENAMETOOLONG), are UTF-8 (EILSEQ), hold no NUL (EINVAL), and are relative to a directory that they " +
		"can't leave (ENOTCAPABLE); at most 40 symbolic links are followed (ELOOP), and an absolute one starts at the root. What " +
		"is written is the call's own and ends with it; there is an end to it: EDQUOT for the call's part, ENOSPC for the " +
		"executor's, EFBIG beyond 1 TiB. Buffers come as at most 1,024 pairs (address, length) with no more bytes than memory (EINVAL).",
	Funcs: slices.Concat(wasiProcess, wasiFD, wasiPath, wasiSock),
}

var wasiProcess = each(
	wasiBuilt,
	[2]string{"int args_get(uint8_t **argv, uint8_t *argv_buf)", "Stores the arguments, NUL-terminated, at argv_buf and their addresses at argv; args_sizes_get tells how much room both need. The first is the function's name."},
	[2]string{"int args_sizes_get(size_t *argc, size_t *argv_buf_size)", "Stores the number of arguments and the bytes they need."},
	[2]string{"int environ_get(uint8_t **environ, uint8_t *environ_buf)", "Stores the environment's NAME=VALUE strings, NUL-terminated, at environ_buf and their addresses at environ."},
	[2]string{"int environ_sizes_get(size_t *environ_count, size_t *environ_buf_size)", "Stores the number of environment strings and the bytes they need."},
	[2]string{"int clock_res_get(uint32_t id, uint64_t *resolution)", "Stores the resolution of clock id in nanoseconds. EINVAL for an unknown clock, ENOTSUP for one of CPU time."},
	[2]string{"int clock_time_get(uint32_t id, uint64_t precision, uint64_t *time)", "Stores the time of clock id in nanoseconds: 0 is the time since 1970, 1 a clock that never goes back, also not in a guest that is restored on another executor. precision is the tolerable lag and is ignored. EINVAL for an unknown clock, ENOTSUP for one of CPU time."},
	[2]string{"int poll_oneoff(const void *in, void *out, size_t n, size_t *nevents)", "Waits until one of the n subscriptions at in (48 bytes each) has happened, stores the events (32 bytes each) at out and their number at nevents. Files and streams are always ready. Also how a guest sleeps. EINVAL if n is 0 or more than 4,096, or for a subscription of unknown kind; what is wrong with a clock or a descriptor is told in its event."},
	[2]string{"void proc_exit(uint32_t code)", "Ends the call with the exit code, of which the low eight bits count; doesn't return."},
	[2]string{"int sched_yield(void)", "Lets other calls run and returns 0."},
	[2]string{"int random_get(void *buf, size_t len)", "Fills len bytes with random bytes fit for keys."},
	[2]string{"int proc_raise(uint32_t signal)", "Does what the signal does to a process that does not handle it: ends the call with the exit code 128 + signal, or nothing for CHLD, CONT, URG and WINCH. EINVAL for an unknown signal."},
)

var wasiFD = slices.Concat(each(
	wasiBuilt,
	[2]string{"int fd_close(int fd)", "Closes fd. Any may be closed."},
	[2]string{"int fd_fdstat_get(int fd, void *stat)", "Stores fd's type, flags and rights, 24 bytes. Rights only tell whether it is for reading or for writing, and whether it can seek; the streams 0, 1 and 2 are of type 0, as pipes are."},
	[2]string{"int fd_filestat_get(int fd, void *stat)", "Stores the file's type, size, links and times, 64 bytes. Of a directory no links are counted: it has 1."},
	[2]string{"int fd_pread(int fd, const void *iovs, size_t iovs_len, uint64_t off, size_t *nread)", "Reads from off into the buffers of the iovs_len pairs (address, length) at iovs, leaving fd's offset alone, and stores how many bytes were read; 0 at the end. ESPIPE if fd can't seek, EISDIR for a directory."},
	[2]string{"int fd_prestat_get(int fd, void *stat)", "Stores what fd was opened for the guest as: tag 0 for a directory, and the length of its name; 8 bytes. EBADF if fd was not opened for the guest; 3 is, as /."},
	[2]string{"int fd_prestat_dir_name(int fd, uint8_t *path, size_t len)", "Stores the name of the directory that was opened for the guest as fd, without a NUL. ENAMETOOLONG if len is too small."},
	[2]string{"int fd_read(int fd, const void *iovs, size_t iovs_len, size_t *nread)", "Reads from fd's offset into the buffers of the iovs_len pairs (address, length) at iovs and stores how many bytes were read; 0 at the end. Descriptor 0 is the call's input. EISDIR for a directory."},
	[2]string{"int fd_readdir(int fd, void *buf, size_t len, uint64_t cookie, size_t *used)", "Stores entries of the directory, . and .. included, from cookie on, as many bytes as fit, in the order of their names, and their size at used; used less than len means that there are no more. What is there all the time comes once, whatever is made and removed meanwhile. Cookie 0 reads the directory anew; others are those of entries. ENOTDIR if fd is not a directory, EINVAL for another cookie or a len below 24."},
	[2]string{"int fd_seek(int fd, int64_t off, int whence, uint64_t *newoff)", "Moves fd's offset to off from the start (whence 0), the current offset (1) or the end (2) and stores it. ESPIPE if fd can't seek, EISDIR for a directory, EINVAL if it would become negative, EOVERFLOW if it would pass 2^63."},
	[2]string{"int fd_renumber(int fd, int to)", "Makes to the descriptor of fd's open file, closing what to was; fd is closed. EBADF if fd is not open or to is out of range."},
	[2]string{"int fd_sync(int fd)", "Waits until the file's data and metadata are stored. EINVAL for a stream."},
	[2]string{"int fd_datasync(int fd)", "Waits until the file's data are stored. EINVAL for a stream."},
	[2]string{"int fd_tell(int fd, uint64_t *off)", "Stores fd's offset. ESPIPE if fd can't seek, EISDIR for a directory."},
), []Func{{
	Module: WASI, Mission: "WASI", Support: Built,
	Decl: "int fd_write(int fd, const void *iovs, size_t iovs_len, size_t *nwritten)",
	Doc:  "Writes the buffers of the iovs_len pairs (address, length) at iovs and stores how many bytes were written, which are fewer if there was no room for all. Descriptors 1 and 2 are the call's log.",
}, {
	Module: WASI, Mission: "WASI", Support: Partial, Note: "the advice is checked and then ignored, for good",
	Decl: "int fd_advise(int fd, uint64_t off, uint64_t len, int advice)",
	Doc:  "Says how the guest is going to use len bytes from off. EINVAL for an unknown advice.",
}, {
	Module: WASI, Mission: "WASI", Support: Partial, Note: "the rights of preview 1 are not kept, for good: ENOTSUP",
	Decl: "int fd_fdstat_set_rights(int fd, uint64_t rights, uint64_t inheriting)",
	Doc:  "Takes rights away from fd.",
}, {
	Module: WASI, Mission: "WASI", Support: Partial, Note: "append is heeded; the others are kept and change nothing, as no descriptor blocks",
	Decl: "int fd_fdstat_set_flags(int fd, int flags)",
	Doc:  "Sets append, non-blocking and synchronous mode of fd. EINVAL for an unknown flag.",
}}, each(
	wasiBuilt,
	[2]string{"int fd_allocate(int fd, uint64_t off, uint64_t len)", "Makes the file reach to off+len, and fails if there is no room for that now; the room is taken when it is written. EBADF if fd is not for writing."},
	[2]string{"int fd_filestat_set_size(int fd, uint64_t size)", "Cuts the file to size bytes, or grows it with zero bytes. EINVAL if fd is not for writing."},
	[2]string{"int fd_filestat_set_times(int fd, uint64_t atim, uint64_t mtim, int flags)", "Sets the file's times, in nanoseconds since 1970; flags choose which, and whether to now."},
	[2]string{"int fd_pwrite(int fd, const void *iovs, size_t iovs_len, uint64_t off, size_t *nwritten)", "Writes the buffers of the iovs_len pairs (address, length) at off, leaving fd's offset alone, and stores how many bytes were written; to the end if fd appends, as on Linux."},
))

var wasiPath = slices.Concat([]Func{{
	Module: WASI, Mission: "WASI", Support: Built,
	Decl: "int path_open(int fd, int dirflags, const char *path, size_t path_len, int oflags, uint64_t rights, uint64_t inheriting, int fdflags, int *opened)",
	Doc:  "Opens the file at path, relative to the directory fd, and stores the lowest descriptor that was free. Of the rights only those of reading and writing count, and say what the guest means to; without either it reads. Flag 1 of dirflags follows a symbolic link at the end (else ELOOP). ENOENT if there is none, ENOTDIR if a component is not a directory, EISDIR if a directory is to be written, EMFILE if no descriptor is free.",
}}, each(
	wasiBuilt,
	[2]string{"int path_filestat_get(int fd, int flags, const char *path, size_t path_len, void *stat)", "Stores the type, size, links and times of the file at path, 64 bytes; flag 1 follows a symbolic link. ENOENT if there is none."},
	[2]string{"int path_readlink(int fd, const char *path, size_t path_len, uint8_t *buf, size_t len, size_t *used)", "Stores at most len bytes of the symbolic link's content and how many. EINVAL if path is not a symbolic link."},
), each(
	wasiBuilt,
	[2]string{"int path_create_directory(int fd, const char *path, size_t path_len)", "Makes a directory. EEXIST if there is something at path, EDQUOT if the call has as many files as it may."},
	[2]string{"int path_filestat_set_times(int fd, int flags, const char *path, size_t path_len, uint64_t atim, uint64_t mtim, int fstflags)", "Sets the times of the file at path, in nanoseconds since 1970; fstflags choose which, and whether to now."},
	[2]string{"int path_link(int old_fd, int old_flags, const char *old_path, size_t old_path_len, int new_fd, const char *new_path, size_t new_path_len)", "Makes new_path another name of the file at old_path; flag 1 follows a symbolic link there. EEXIST if there is something at new_path, EPERM for a directory."},
	[2]string{"int path_remove_directory(int fd, const char *path, size_t path_len)", "Removes an empty directory. ENOTEMPTY if it is not empty."},
	[2]string{"int path_rename(int fd, const char *old_path, size_t old_path_len, int new_fd, const char *new_path, size_t new_path_len)", "Moves what is at old_path to new_path, replacing a file or an empty directory there. EINVAL for a directory into itself, EISDIR and ENOTDIR if a file would replace a directory or the reverse."},
	[2]string{"int path_symlink(const char *old_path, size_t old_path_len, int fd, const char *new_path, size_t new_path_len)", "Makes new_path a symbolic link with the content old_path. EEXIST if there is something at new_path."},
	[2]string{"int path_unlink_file(int fd, const char *path, size_t path_len)", "Removes the name of a file. EISDIR if it is a directory."},
))

var wasiSock = each(
	wasiNetwork,
	[2]string{"int sock_accept(int fd, int flags, int *conn)", "Takes a connection from the listening socket fd and stores its descriptor."},
	[2]string{"int sock_recv(int fd, const void *iovs, size_t iovs_len, int flags, size_t *nread, uint16_t *roflags)", "Receives into the buffers of the iovs_len pairs (address, length) and stores how many bytes, and flags of the message."},
	[2]string{"int sock_send(int fd, const void *iovs, size_t iovs_len, int flags, size_t *nwritten)", "Sends the buffers of the iovs_len pairs (address, length) and stores how many bytes were sent."},
	[2]string{"int sock_shutdown(int fd, int how)", "Closes the receiving side (1), the sending side (2) or both (3) of a connection."},
)
