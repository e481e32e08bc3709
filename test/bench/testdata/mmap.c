// mmap maps a shared file as often as its input says, "N PATH", reads a byte of every megabyte, and puts out their sum.
#include <skein.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

SKEIN_EXPORT(handle) int handle(void) {
	char in[256] = {0}, path[200];
	int n = 0;
	__skein_read_call_input(in, sizeof in - 1);
	if (sscanf(in, "%d %199s", &n, path) != 2)
		return 1;
	long long sum = 0;
	for (int i = 0; i < n; i++) {
		struct stat st;
		int fd = open(path, O_RDONLY);
		if (fd < 0 || fstat(fd, &st) < 0)
			return 2;
		unsigned char *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED || close(fd) != 0)
			return 3;
		for (off_t at = 0; at < st.st_size; at += 1 << 20)
			sum += p[at];
		if (munmap(p, (size_t)st.st_size) != 0)
			return 4;
	}
	return skein_output(in, (size_t)snprintf(in, sizeof in, "%lld", sum)) < 0;
}
