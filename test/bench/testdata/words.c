// The baseline of app.wordcount: the words of examples/mapreduce/c counted by one thread of native code. It serves one request a
// line, the path of a file, and answers the most frequent word, its count, and how many different words there are.
#define _GNU_SOURCE
#include "../../../examples/mapreduce/c/words.h"
#include "peer.h"

#include <fcntl.h>

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
    int fd;
    FILE *peer = peer_accept(&fd);
    char line[1024];
    while (fgets(line, sizeof line, peer)) {
        line[strcspn(line, "\n")] = 0;
        answer(fd, line);
    }
    return 0;
}
