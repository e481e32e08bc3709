package abi

// Flags of get_state, get_state_offset and map_state.
const (
	StateReadOnlyHint = 1 << iota // the guest promises not to write through the mapping
	StatePull                     // refresh the replica from the global tier first
	StateLocal                    // the value never leaves this executor
)

var roomState = Room{
	Name: "state",
	Doc: "Values shared by a user's functions. A value lives in the global tier; an executor works on its replica, which all its " +
		"instances share. A key is 1 to 1024 bytes without a NUL (else EINVAL) and resolves under the caller's user. A range outside memory is " +
		"EFAULT, a store that can't be reached within the deadline EIO, a write beyond the user's quota EDQUOT.",
	Consts: []Const{
		{"STATE_READ_ONLY_HINT", StateReadOnlyHint, "The guest promises not to write through the mapping."},
		{"STATE_PULL", StatePull, "Refresh the replica from the global tier first."},
		{"STATE_LOCAL", StateLocal, "The value never leaves this executor."},
	},
	Funcs: []Func{
		{
			Module: Native, Mission: "byte* get_state(key, flags)", Support: Built,
			Decl: "void *get_state(const char *key, size_t key_len, size_t size, int flags)",
			Doc:  "Maps the executor's replica of the value into this memory and returns its address: every instance here that maps it sees the same bytes. size 0 takes the value's own size (ENOENT if absent); otherwise the first size bytes are mapped, and a value that is absent or shorter is created or grows with zero bytes. A second time in a call gives the same address. Returns 0 and sets last_error on failure: ENOMEM if memory can't grow, EINVAL if STATE_LOCAL is asked for a value that is shared, ENOTSUP where the executor's system can't map. Not for guests whose allocator alone may grow memory, such as Go's: they have map_state. A guest that doesn't export its malloc must have called it before: wasi-libc's takes all memory that it finds at its first use.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int map_state(const char *key, size_t key_len, int64_t off, size_t len, void *addr, int flags)",
			Doc:  "Maps len bytes of the replica from off over memory that the guest allocated at addr, for guests that own their heap, and returns 0. What was there is lost up to the next multiple of 4 KiB, and the guest must keep the region until its call ends. EINVAL unless addr and off are multiples of the 64 KiB page, the range lies in memory and in the value, and no other mapping overlaps it in part, ENOENT if the value is absent, ENOTSUP where the executor's system can't map.",
		},
		{
			Module: Native, Mission: "byte* get_state_offset(key, off, flags)", Support: Built,
			Decl: "void *get_state_offset(const char *key, size_t key_len, int64_t off, size_t len, int64_t size, int flags)",
			Doc:  "As get_state for the len bytes from off of a value of at least size bytes (0: as it is): only the chunks that cover the range are pulled. Returns the address of the byte at off, or 0 with last_error; EINVAL if the range passes the value's end.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int read_state(const char *key, size_t key_len, int64_t off, void *buf, size_t cap)",
			Doc:  "Copies at most cap bytes of the executor's replica from off to buf and returns the value's full size in bytes, so that cap 0 asks the size. Pulls the chunks of 256 KiB first that this executor doesn't have. ENOENT if the value is absent, EINVAL if off is negative; an off past the end copies nothing.",
		},
		{
			Module: Native, Support: Built, Mission: "void set_state(key, val)",
			Decl: "int set_state(const char *key, size_t key_len, const void *val, size_t val_len)",
			Doc:  "Makes the val_len bytes at val the value in the replica, creating or resizing it, marks it dirty and returns 0. Other executors see it after push_state. EFBIG if the value would pass the limit of 64 MiB, ENOMEM if the executor has no memory for it.",
		},
		{
			Module: Native, Support: Built, Mission: "void set_state_offset(key, val, len, off)",
			Decl: "int set_state_offset(const char *key, size_t key_len, const void *val, size_t val_len, int64_t off)",
			Doc:  "Writes the val_len bytes at val into the replica from off, marks exactly them dirty and returns 0. A value that is absent or ends earlier grows, with zero bytes in a gap. EINVAL if off is negative, EFBIG if the value would pass the limit.",
		},
		{
			Module: Native, Support: Built, Mission: "void push/pull_state(key)",
			Decl: "int push_state(const char *key, size_t key_len)",
			Doc:  "Sends the bytes that this executor has changed, by rows or through mappings, to the global tier and returns 0 once they are there; nothing changed is a success. ENOENT if this executor has no replica, ESTALE if the call has lost its cluster-wide lock of the value.",
		},
		{
			Module: Native, Support: Built, Mission: "void push/pull_state(key)",
			Decl: "int pull_state(const char *key, size_t key_len)",
			Doc:  "Refreshes the replica with what changed elsewhere and returns 0. Bytes written here and not yet pushed are never overwritten. ENOENT if the value is absent.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int discard_state(const char *key, size_t key_len)",
			Doc:  "Drops what this executor has changed of the value and not pushed, whoever changed it, and returns 0, also if there is nothing: the replica is again as the global tier has it. For who takes a cluster-wide lock after a holder that failed: what that one left here unpushed would otherwise stay on top of what is pulled. EINVAL for a value of STATE_LOCAL.",
		},
		{
			Module: Native, Mission: "void push/pull_state_offset(key, off)", Support: Built,
			Decl: "int push_state_offset(const char *key, size_t key_len, int64_t off, size_t len)",
			Doc:  "As push_state for what was changed in the len bytes from off. EINVAL if off is negative or the range passes the value's end.",
		},
		{
			Module: Native, Mission: "void push/pull_state_offset(key, off)", Support: Built,
			Decl: "int pull_state_offset(const char *key, size_t key_len, int64_t off, size_t len)",
			Doc:  "As pull_state for the len bytes from off. EINVAL if off is negative or the range passes the value's end.",
		},
		{
			Module: Native, Support: Built, Mission: "void append_state(key, val)",
			Decl: "int64_t append_state(const char *key, size_t key_len, const void *val, size_t val_len)",
			Doc:  "Appends the val_len bytes at val to the value in the global tier in one atomic step, creating it if absent, and returns the offset at which they landed. A pull shows them. EFBIG if the value would pass the limit (nothing is appended).",
		},
		{
			Module: Native, Support: Built,
			Decl: "int64_t read_appended_state(const char *key, size_t key_len, int64_t off, void *buf, size_t cap)",
			Doc:  "Copies at most cap bytes from off of the value in the global tier to buf, past the replica, and returns how many; 0 at the end. ENOENT if the value is absent, EINVAL if off is negative.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int clear_appended_state(const char *key, size_t key_len)",
			Doc:  "Makes the value in the global tier empty, atomically with respect to append_state, and returns 0. An absent value stays absent.",
		},
		{
			Module: Native, Mission: "void lock_state_read/write(key)", Support: Built,
			Decl: "int lock_state_read(const char *key, size_t key_len)",
			Doc:  "Waits for and takes a read lock of the executor's replica, shared with other readers, and returns 0. Released when the call ends, however it ends. EDEADLK if this call holds the write lock, ETIMEDOUT at the call's deadline.",
		},
		{
			Module: Native, Mission: "void lock_state_read/write(key)", Support: Built,
			Decl: "int lock_state_write(const char *key, size_t key_len)",
			Doc:  "Waits for and takes the write lock of the executor's replica and returns 0. Released when the call ends, however it ends. EDEADLK if this call holds any lock of it, ETIMEDOUT at the call's deadline.",
		},
		{
			Module: Native, Mission: "void lock_state_read/write(key)", Support: Built,
			Decl: "int unlock_state_read(const char *key, size_t key_len)",
			Doc:  "Releases this call's read lock of the replica and returns 0. EPERM if it holds none.",
		},
		{
			Module: Native, Mission: "void lock_state_read/write(key)", Support: Built,
			Decl: "int unlock_state_write(const char *key, size_t key_len)",
			Doc:  "Releases this call's write lock of the replica and returns 0. EPERM if it doesn't hold it.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int lock_state_global_read(const char *key, size_t key_len)",
			Doc:  "Waits for and takes a read lock of the value in the whole cluster and returns 0. It is a lease that the executor renews while the call runs. EDEADLK if this call holds the write lock, ETIMEDOUT at the call's deadline.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int lock_state_global_write(const char *key, size_t key_len)",
			Doc:  "Waits for and takes the write lock of the value in the whole cluster and returns 0. It is a lease with a fencing token that the store checks in each write, so a holder that lost it can't write. EDEADLK if this call holds any lock of it, ETIMEDOUT at the call's deadline.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int unlock_state_global_read(const char *key, size_t key_len)",
			Doc:  "Releases this call's cluster-wide read lock and returns 0. EPERM if it holds none, ESTALE if the lease had been lost.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int unlock_state_global_write(const char *key, size_t key_len)",
			Doc:  "Releases this call's cluster-wide write lock and returns 0. EPERM if it doesn't hold it, ESTALE if the lease had been lost.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int64_t state_size(const char *key, size_t key_len)",
			Doc:  "Returns the value's size in bytes: the replica's if this executor has one, else the global tier's. ENOENT if the value is absent.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int delete_state(const char *key, size_t key_len)",
			Doc:  "Removes the value from the global tier and from this executor and returns 0. ENOENT if the value is absent in both. Replicas on other executors notice at their next pull.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int expire_state(const char *key, size_t key_len, int64_t ttl_ms)",
			Doc:  "Has the value in the global tier end, with its elements, ttl_ms milliseconds from now by the store's clock, and returns 0; 0 lets it live for ever. Pushes, appends and other changes leave that time as it is, deleting the value ends it. Replicas notice at their next pull. ENOENT if the global tier has no such value (push it first), EINVAL if ttl_ms is negative or beyond 100 years.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int compare_and_set_state(const char *key, size_t key_len, const void *old, size_t old_len, const void *val, size_t val_len)",
			Doc:  "Makes val the value in the global tier if the value equals old, in one atomic step, and returns 1; returns 0 if it differs. An absent value equals an old of 0 bytes. The replica stays as it is until a pull. EFBIG if val is larger than a message (4 MiB less 64 KiB).",
		},
		{
			Module: Native, Support: Built,
			Decl: "int add_state_i64(const char *key, size_t key_len, int64_t delta, int64_t *sum)",
			Doc:  "Adds delta to the first 8 bytes of the value in the global tier, a little-endian 64-bit integer that begins as 0 and wraps, in one atomic step, stores the sum at sum and returns 0. The replica stays as it is until a pull.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int list_state(const char *prefix, size_t prefix_len, void *buf, size_t cap)",
			Doc:  "Copies at most cap bytes of the user's keys that begin with prefix to buf, in byte order and each followed by a NUL, and returns the list's full size in bytes.",
		},
		{
			Module: Env, Support: Built,
			Decl: "long __faasm_read_state(const char *key, unsigned char *buf, long len)",
			Doc:  "With len 0 returns the value's size, 0 if it is absent. Otherwise copies at most len bytes of the replica to buf, pulling it first if this executor has none, and returns the value's size.",
		},
		{
			Module: Env, Support: Built,
			Decl: "unsigned char *__faasm_read_state_ptr(const char *key, long total)",
			Doc:  "Maps the value, of total bytes, as get_state does and returns its address; 0 if it can't.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_read_state_offset(const char *key, long total, long off, unsigned char *buf, long len)",
			Doc:  "Copies len bytes from off of a value of total bytes to buf, pulling only the chunks that cover them. What the value doesn't have is zero.",
		},
		{
			Module: Env, Support: Built,
			Decl: "unsigned char *__faasm_read_state_offset_ptr(const char *key, long total, long off, long len)",
			Doc:  "Maps len bytes from off of a value of total bytes as get_state_offset does and returns the address of the byte at off; 0 if it can't.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_write_state(const char *key, const unsigned char *data, long len)",
			Doc:  "Makes the len bytes at data the value in the replica, as set_state does. It doesn't push.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_write_state_offset(const char *key, long total, long off, const unsigned char *data, long len)",
			Doc:  "Writes the len bytes at data into the replica of a value of total bytes from off, as set_state_offset does.",
		},
		{
			Module: Env, Support: Built,
			Decl: "unsigned int __faasm_write_state_from_file(const char *key, const char *path)",
			Doc:  "Makes the content of the file at path the value in the replica and returns its length in bytes; 0 if the file can't be read.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_push_state(const char *key)",
			Doc:  "Sends what this executor has changed of the value to the global tier, as push_state does.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_push_state_partial(const char *key)",
			Doc:  "Sends only the dirty runs of bytes of the value to the global tier.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_push_state_partial_mask(const char *key, const char *mask_key)",
			Doc:  "Sends those bytes of the value whose counterpart in the value mask_key, of the same size, is not zero, and only them, changed or not.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_pull_state(const char *key, long len)",
			Doc:  "Refreshes the replica of a value of len bytes as pull_state does; an absent value is not an error.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_append_state(const char *key, const unsigned char *data, long len)",
			Doc:  "Appends one element of len bytes to the key's list, which is kept in the global tier apart from its value.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_read_appended_state(const char *key, unsigned char *buf, long len, long n)",
			Doc:  "Copies the first n elements of the key's list, one after the other, to the len bytes at buf. Fewer elements, or more bytes than len, fail the call.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_clear_appended_state(const char *key)",
			Doc:  "Empties the key's list.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_lock_state_read(const char *key)",
			Doc:  "Takes a read lock of the replica, as lock_state_read does.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_unlock_state_read(const char *key)",
			Doc:  "Releases a read lock of the replica, as unlock_state_read does.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_lock_state_write(const char *key)",
			Doc:  "Takes the write lock of the replica, as lock_state_write does.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_unlock_state_write(const char *key)",
			Doc:  "Releases the write lock of the replica, as unlock_state_write does.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_flag_state_dirty(const char *key, long total)",
			Doc:  "Marks the whole value, of total bytes, as changed through its mapping, so that a push sends it.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_flag_state_offset_dirty(const char *key, long total, long off, long len)",
			Doc:  "Marks len bytes from off of a value of total bytes as changed through its mapping, so that a push sends them.",
		},
	},
}
