// The baseline of app.wordcount: the words of examples/mapreduce/c counted by one thread of native code. It serves one request a
// line, the path of a file, and answers the most frequent word, its count, and how many different words there are.
#define _GNU_SOURCE
#include "../../../examples/mapreduce/c/words.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void answer(int peer, const char *path) {
    static char piece[256 << 10];
    counter c = {0};
    int fd = open(path, O_RDONLY);
    if (fd < 0) die(path);
    for (ssize_t n; (n = read(fd, piece, sizeof piece)) != 0;)
        if (n < 0 || count(&c, piece, n)) die("count");
    if (flush(&c)) die("count");
    close(fd);
    sorted(&c.words);
    dprintf(peer, "%lu %.*s of %zu\n", c.words.all[0].count, (int)c.words.all[0].len, c.words.all[0].text, c.words.used);
    free(c.words.all);
}

int main(void) {
    int lis = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    if (lis < 0 || bind(lis, (void *)&at, len) || listen(lis, 1) || getsockname(lis, (void *)&at, &len)) die("listen");
    fprintf(stderr, "{\"msg\":\"listening\",\"address\":\"127.0.0.1:%d\"}\n", ntohs(at.sin_port));
    int fd = accept(lis, NULL, NULL);
    FILE *peer = fd < 0 ? NULL : fdopen(fd, "r");
    if (!peer) die("accept");
    char line[1024];
    while (fgets(line, sizeof line, peer)) {
        line[strcspn(line, "\n")] = 0;
        answer(fd, line);
    }
    return 0;
}
