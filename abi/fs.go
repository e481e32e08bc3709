package abi

// DupFD is fcntl's F_DUPFD.
const DupFD = 0

const noteS3 = "arrives with object access for Faasm's guests"

var roomFS = Room{
	Name:   "fs",
	Doc:    "What POSIX programs ask of files and WASI lacks, and Faasm's object store. Everything else about files is in room wasi.",
	Consts: []Const{{"F_DUPFD", DupFD, "The cmd of fcntl that makes another descriptor."}},
	Funcs: []Func{
		{
			Module: Native, Mission: "dup", Support: Built,
			Decl: "int dup(int fd)",
			Doc:  "Returns the lowest free descriptor for fd's open file description: offset and flags are shared. EBADF if fd is not open, EMFILE if none is free.",
		},
		{
			Module: Native, Mission: "dup", Support: Built,
			Decl: "int dup2(int fd, int to)",
			Doc:  "Makes to a descriptor of fd's open file description, closing what to was, and returns to. EBADF if fd is not open or to is out of range.",
		},
		{
			Module: Native, Mission: "dup", Support: Built,
			Decl: "int fcntl(int fd, int cmd, int arg)",
			Doc:  "With cmd F_DUPFD returns the lowest free descriptor that is at least arg for fd's open file description. EINVAL for any other cmd, as WASI has the rest, and for an arg out of range.",
		},
		{
			Module: Env, Support: Built,
			Decl: "int dup(int fd)",
			Doc:  "As the native dup, with -1 on failure as POSIX has it.",
		},
		{
			Module: Env, Support: Built,
			Decl: "int dup2(int fd, int to)",
			Doc:  "As the native dup2, with -1 on failure as POSIX has it.",
		},
		{
			Module: Env, Note: noteS3,
			Decl: "int __faasm_s3_get_num_buckets(void)",
			Doc:  "Returns how many buckets the caller's user has.",
		},
		{
			Module: Env, Note: noteS3,
			Decl: "void __faasm_s3_list_buckets(void *bufs, int *lens)",
			Doc:  "Stores the name of each bucket in memory from the guest's exported malloc, its address in the array bufs and its length in lens; both have room for get_num_buckets entries.",
		},
		{
			Module: Env, Note: noteS3,
			Decl: "int __faasm_s3_get_num_keys(const char *bucket)",
			Doc:  "Returns how many keys the bucket has; 0 if there is no such bucket.",
		},
		{
			Module: Env, Note: noteS3,
			Decl: "int __faasm_s3_get_num_keys_with_prefix(const char *bucket, const char *prefix)",
			Doc:  "Returns how many keys of the bucket begin with prefix.",
		},
		{
			Module: Env, Note: noteS3,
			Decl: "void __faasm_s3_list_keys(const char *bucket, void *bufs, int *lens)",
			Doc:  "Stores the bucket's keys as list_buckets does its names; the arrays have room for get_num_keys entries.",
		},
		{
			Module: Env, Note: noteS3,
			Decl: "void __faasm_s3_list_keys_with_prefix(const char *bucket, const char *prefix, void *bufs, int *lens)",
			Doc:  "Stores those of the bucket's keys that begin with prefix, as list_keys does.",
		},
		{
			Module: Env, Note: noteS3,
			Decl: "int __faasm_s3_add_key_bytes(const char *bucket, const char *key, void *data, int len, int overwrite)",
			Doc:  "Stores the len bytes at data under key and returns 0; 1 if the key exists and overwrite is 0, or on any other failure.",
		},
		{
			Module: Env, Note: noteS3,
			Decl: "int __faasm_s3_get_key_bytes(const char *bucket, const char *key, void *data, int *len, int tolerate_missing)",
			Doc:  "Stores the object in memory from the guest's exported malloc, its address at data and its size at len, and returns 0. An absent key is a size of 0 if tolerate_missing is not 0; otherwise, and on any other failure, the result is 1.",
		},
	},
}
