// Who a baseline works for: one program of the benchmark's, which sends lines and reads answers.
#pragma once
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what) {
    perror(what);
    exit(1);
}

// peer_accept says where it listens, in the words of our services, and waits for the peer.
static FILE *peer_accept(int *fd) {
    int lis = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    if (lis < 0 || bind(lis, (void *)&at, len) || listen(lis, 1) || getsockname(lis, (void *)&at, &len)) die("listen");
    fprintf(stderr, "{\"msg\":\"listening\",\"address\":\"127.0.0.1:%d\"}\n", ntohs(at.sin_port));
    *fd = accept(lis, NULL, NULL);
    FILE *peer = *fd < 0 ? NULL : fdopen(*fd, "r");
    if (!peer) die("accept");
    return peer;
}
