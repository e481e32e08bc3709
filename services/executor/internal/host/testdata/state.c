#include "check.h"
#include <faasm/host_interface.h>
#include <sys/mman.h>

// The result of each part is that of main, which 0 goes on from.
static int mapped(void) {
    char buf[16];
    CHECK(__skein_get_state("m", 1, 0, 0) == NULL && __skein_last_error() == ENOENT);
    CHECK(__skein_get_state("m", 1, 8, 8) == NULL && __skein_last_error() == EINVAL);
    CHECK(__skein_get_state("m", 1, 65 << 20, 0) == NULL && __skein_last_error() == EFBIG);
    CHECK(__skein_get_state("m", 1, 64 << 20, 0) == NULL && __skein_last_error() == ENOMEM); // the guest's own limit
    CHECK(__skein_delete_state("m", 1) == 0);
    char *m = __skein_get_state("m", 1, 100000, 0);
    CHECK(m && m[0] == 0 && m[99999] == 0);
    CHECK(__skein_get_state("m", 1, 0, SKEIN_STATE_READ_ONLY_HINT) == m);
    memcpy(m + 70000, "mapped", 6);
    CHECK(__skein_read_state("m", 1, 70000, buf, 6) == 100000 && !memcmp(buf, "mapped", 6));
    CHECK(__skein_set_state_offset("m", 1, "M", 1, 70000) == 0 && m[70000] == 'M');
    CHECK(__skein_push_state("m", 1) == 0);
    CHECK(__skein_read_appended_state("m", 1, 69999, buf, 8) == 8 && !memcmp(buf, "\0Mapped\0", 8));
    CHECK(__skein_append_state("m", 1, "more", 4) == 100000);
    m[1] = 'x'; // not pushed
    CHECK(__skein_pull_state("m", 1) == 0 && m[1] == 'x');
    CHECK(__skein_state_size("m", 1) == 100004);
    char *longer = __skein_get_state("m", 1, 0, 0);
    CHECK(longer && !memcmp(longer + 100000, "more", 4) && longer[1] == 'x');
    char *part = __skein_get_state_offset("m", 1, 70001, 5, 0, SKEIN_STATE_PULL);
    CHECK(part && !memcmp(part, "apped", 5));
    CHECK(__skein_get_state_offset("m", 1, 100000, 5, 0, 0) == NULL && __skein_last_error() == EINVAL);
    CHECK(__skein_get_state_offset("m", 1, -1, 5, 0, 0) == NULL && __skein_last_error() == EINVAL);
    CHECK(__skein_get_state_offset("m", 1, INT64_MAX, 5, 0, 0) == NULL && __skein_last_error() == EINVAL);
    CHECK(__skein_get_state_offset("m", 1, 0, 5, INT64_MAX, 0) == NULL && __skein_last_error() == EFBIG);

    char *own = aligned_alloc(65536, 131072);
    CHECK(own && __skein_map_state("m", 1, 0, 100000, own, 0) == 0 && own[1] == 'x');
    own[2] = 'y';
    CHECK(m[2] == 'y' && longer[2] == 'y');
    CHECK(__skein_map_state("m", 1, 65536, 10, own + 65536, 0) == -EINVAL); // over a part of the other
    CHECK(__skein_map_state("m", 1, 0, 10, own + 1, 0) == -EINVAL);
    CHECK(__skein_map_state("m", 1, 1, 10, own, 0) == -EINVAL);
    CHECK(__skein_map_state("m", 1, 0, 0, own, 0) == -EINVAL);
    CHECK(__skein_map_state("m", 1, 0, 200000, own, 0) == -EINVAL);
    CHECK(__skein_map_state("absent", 6, 0, 10, own, 0) == -ENOENT);
    CHECK(__skein_map_state("m", 1, 0, 10, (void *)0xffff0000, 0) == -EINVAL);

    // What was written through a mapping goes with a push, also if something else is there since.
    char *place = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(place != MAP_FAILED && __skein_set_state("p", 1, place, 1 << 20) == 0 && __skein_set_state("q", 1, place, 1 << 20) == 0);
    CHECK(__skein_push_state("p", 1) == 0 && __skein_push_state("q", 1) == 0 && __skein_map_state("p", 1, 0, 1 << 20, place, 0) == 0);
    place[500000] = 'p';
    CHECK(__skein_map_state("q", 1, 0, 1 << 20, place, 0) == 0);
    place[600000] = 'q';
    CHECK(munmap(place, 1 << 20) == 0 && __skein_push_state("p", 1) == 0 && __skein_push_state("q", 1) == 0);
    CHECK(__skein_read_appended_state("p", 1, 500000, buf, 1) == 1 && buf[0] == 'p');
    CHECK(__skein_read_appended_state("q", 1, 600000, buf, 1) == 1 && buf[0] == 'q');

    char *local = __skein_get_state("local", 5, 10, SKEIN_STATE_LOCAL);
    CHECK(local && __skein_push_state("local", 5) == 0 && __skein_pull_state("local", 5) == 0);
    local[0] = 'l';
    CHECK(__skein_read_appended_state("local", 5, 0, buf, 8) == -ENOENT);
    CHECK(__skein_get_state("m", 1, 10, SKEIN_STATE_LOCAL) == NULL && __skein_last_error() == EINVAL);
    CHECK(__skein_delete_state("local", 5) == 0 && local[0] == 'l');
    CHECK(__skein_state_size("local", 5) == -ENOENT);
    return 0;
}

static int offsets(void) {
    char buf[16];
    CHECK(__skein_push_state_offset("o", 1, 0, 1) == -ENOENT);
    CHECK(__skein_set_state("o", 1, "abcdef", 6) == 0 && __skein_push_state("o", 1) == 0);
    CHECK(__skein_set_state_offset("o", 1, "A", 1, 0) == 0 && __skein_set_state_offset("o", 1, "F", 1, 5) == 0);
    CHECK(__skein_push_state_offset("o", 1, 4, 2) == 0);
    CHECK(__skein_read_appended_state("o", 1, 0, buf, 16) == 6 && !memcmp(buf, "abcdeF", 6));
    CHECK(__skein_pull_state_offset("o", 1, 0, 6) == 0);
    CHECK(__skein_read_state("o", 1, 0, buf, 16) == 6 && !memcmp(buf, "AbcdeF", 6));
    CHECK(__skein_push_state_offset("o", 1, 5, 2) == -EINVAL && __skein_push_state_offset("o", 1, -1, 2) == -EINVAL);
    CHECK(__skein_pull_state_offset("o", 1, 5, 2) == -EINVAL && __skein_pull_state_offset("o", 1, -1, 2) == -EINVAL);
    CHECK(__skein_pull_state_offset("o", 1, INT64_MAX, 2) == -EINVAL);
    return 0;
}

static int locks(void) {
    CHECK(__skein_unlock_state_read("l", 1) == -EPERM && __skein_unlock_state_write("l", 1) == -EPERM);
    CHECK(__skein_lock_state_read("l", 1) == 0 && __skein_lock_state_read("l", 1) == 0);
    CHECK(__skein_lock_state_write("l", 1) == -EDEADLK && __skein_unlock_state_write("l", 1) == -EPERM);
    CHECK(__skein_unlock_state_read("l", 1) == 0 && __skein_unlock_state_read("l", 1) == 0);
    CHECK(__skein_lock_state_write("l", 1) == 0);
    CHECK(__skein_lock_state_read("l", 1) == -EDEADLK && __skein_lock_state_write("l", 1) == -EDEADLK);
    CHECK(__skein_unlock_state_read("l", 1) == -EPERM && __skein_unlock_state_write("l", 1) == 0);
    CHECK(__skein_lock_state_write("", 0) == -EINVAL && __skein_lock_state_write(OUTSIDE, 100) == -EFAULT);

    CHECK(__skein_unlock_state_global_read("l", 1) == -EPERM && __skein_unlock_state_global_write("l", 1) == -EPERM);
    CHECK(__skein_lock_state_global_read("l", 1) == 0 && __skein_lock_state_global_write("l", 1) == -EDEADLK);
    CHECK(__skein_unlock_state_global_write("l", 1) == -EPERM && __skein_unlock_state_global_read("l", 1) == 0);
    CHECK(__skein_lock_state_global_write("l", 1) == 0);
    CHECK(__skein_set_state("l", 1, "locked", 6) == 0 && __skein_push_state("l", 1) == 0);
    CHECK(__skein_lock_state_global_read("l", 1) == -EDEADLK);
    CHECK(__skein_unlock_state_global_write("l", 1) == 0);
    CHECK(__skein_lock_state_write("l", 1) == 0 && __skein_lock_state_global_write("l", 1) == 0); // ends with the call
    return 0;
}

static int global(void) {
    char buf[64];
    CHECK(__skein_read_appended_state("a", 1, 0, buf, 16) == -ENOENT && __skein_read_appended_state("a", 1, 0, buf, 0) == -ENOENT);
    CHECK(__skein_clear_appended_state("a", 1) == 0 && __skein_state_size("a", 1) == -ENOENT);
    CHECK(__skein_append_state("a", 1, "one", 3) == 0 && __skein_append_state("a", 1, "two", 3) == 3);
    CHECK(__skein_read_appended_state("a", 1, 2, buf, 16) == 4 && !memcmp(buf, "etwo", 4));
    CHECK(__skein_read_appended_state("a", 1, 6, buf, 16) == 0 && __skein_read_appended_state("a", 1, -1, buf, 16) == -EINVAL);
    CHECK(__skein_clear_appended_state("a", 1) == 0 && __skein_state_size("a", 1) == 0);

    CHECK(__skein_compare_and_set_state("c", 1, "x", 1, "y", 1) == 0);
    CHECK(__skein_compare_and_set_state("c", 1, "", 0, "y", 1) == 1);
    CHECK(__skein_compare_and_set_state("c", 1, "", 0, "z", 1) == 0 && __skein_compare_and_set_state("c", 1, "x", 1, "z", 1) == 0);
    CHECK(__skein_compare_and_set_state("c", 1, "y", 1, "zz", 2) == 1 && __skein_state_size("c", 1) == 2);
    CHECK(__skein_compare_and_set_state("c", 1, OUTSIDE, 100, "zz", 2) == -EFAULT);
    CHECK(__skein_compare_and_set_state("c", 1, "zz", 2, OUTSIDE, 100) == -EFAULT);

    int64_t sum = 0;
    CHECK(__skein_add_state_i64("i", 1, -3, &sum) == 0 && sum == -3 && __skein_add_state_i64("i", 1, 5, &sum) == 0 && sum == 2);
    CHECK(__skein_add_state_i64("i", 1, 1, OUTSIDE) == -EFAULT && __skein_add_state_i64("i", 1, 0, &sum) == 0 && sum == 2);

    for (int i = 0; i < 5; i++) {
        char key[] = {'l', 'i', 's', 't', '0' + i};
        CHECK(__skein_append_state(key, 5, "", 0) == 0);
    }
    memset(buf, '?', sizeof buf);
    CHECK(__skein_list_state("list", 4, buf, 64) == 30 && !memcmp(buf, "list0\0list1\0list2\0list3\0list4\0?", 31));
    memset(buf, '?', sizeof buf);
    CHECK(__skein_list_state("list", 4, buf, 8) == 30 && !memcmp(buf, "list0\0li?", 9));
    CHECK(__skein_list_state("nothing", 7, buf, 8) == 0 && __skein_list_state("", 0, buf, 0) > 30);
    CHECK(__skein_list_state(OUTSIDE, 100, buf, 8) == -EFAULT && __skein_list_state("", 0, OUTSIDE, 100) == -EFAULT);
    CHECK(__skein_list_state(buf, 1025, buf, 8) == -EINVAL);
    return 0;
}

static int faasm(void) {
    unsigned char buf[16];
    memset(buf, '?', sizeof buf);
    __faasm_read_state_offset("fp", 10, 2, buf, 4); // absent: zeros
    CHECK(!memcmp(buf, "\0\0\0\0?", 5));
    unsigned char *p = __faasm_read_state_ptr("fp", 300000);
    CHECK(p && p[0] == 0 && __faasm_read_state_ptr("fp", 300000) == p && __faasm_read_state_ptr("fp", 0) == NULL);
    memcpy(p + 100, "pointer", 7);
    __faasm_flag_state_dirty("fp", 300000);
    __faasm_flag_state_offset_dirty("fp", 300000, 100, 7);
    __faasm_push_state_partial("fp");
    CHECK(__skein_read_appended_state("fp", 2, 100, buf, 7) == 7 && !memcmp(buf, "pointer", 7));
    unsigned char *q = __faasm_read_state_offset_ptr("fp", 300000, 101, 6);
    CHECK(q && !memcmp(q, "ointer", 6));
    __faasm_write_state_offset("fp", 300000, 299999, (const unsigned char *)"!", 1);
    CHECK(p[299999] == '!');
    __faasm_read_state_offset("fp", 300000, 299998, buf, 2);
    CHECK(!memcmp(buf, "\0!", 2));
    __faasm_write_state_offset("fw", 10, 8, (const unsigned char *)"ab", 2);
    CHECK(__skein_state_size("fw", 2) == 10);

    CHECK(__faasm_write_state_from_file("ff", "/dir/file") == 7);
    __faasm_read_state("ff", buf, 7);
    CHECK(!memcmp(buf, "content", 7));
    CHECK(__faasm_write_state_from_file("ff", "none") == 0 && __faasm_write_state_from_file("ff", "dir") == 0);
    CHECK(__faasm_write_state_from_file("ff", "../../etc/passwd") == 0);

    __faasm_write_state("v", (const unsigned char *)"aaaa", 4);
    __faasm_push_state("v");
    __faasm_write_state_offset("v", 4, 0, (const unsigned char *)"bbbb", 4);
    __faasm_write_state("mask", (const unsigned char *)"\1\0\0\1", 4);
    __faasm_push_state_partial_mask("v", "mask");
    CHECK(__skein_read_appended_state("v", 1, 0, buf, 4) == 4 && !memcmp(buf, "baab", 4));
    __faasm_push_state("v");
    CHECK(__skein_read_appended_state("v", 1, 0, buf, 4) == 4 && !memcmp(buf, "bbbb", 4));

    __faasm_append_state("list", (const unsigned char *)"one", 3);
    __faasm_append_state("list", (const unsigned char *)"three", 5);
    __faasm_read_appended_state("list", buf, 16, 2);
    CHECK(!memcmp(buf, "onethree", 8));
    __faasm_clear_appended_state("list");
    __faasm_append_state("list", (const unsigned char *)"x", 1);
    __faasm_read_appended_state("list", buf, 16, 1);
    CHECK(buf[0] == 'x');

    __faasm_lock_state_read("fl");
    __faasm_unlock_state_read("fl");
    __faasm_lock_state_write("fl");
    __faasm_unlock_state_write("fl");
    return 0;
}

int main(void) {
    char buf[16];
    CHECK(__skein_read_state("k", 1, 0, buf, 16) == -ENOENT);
    CHECK(__skein_state_size("k", 1) == -ENOENT);
    CHECK(__skein_push_state("k", 1) == -ENOENT);
    CHECK(__skein_pull_state("k", 1) == -ENOENT);
    CHECK(__skein_delete_state("k", 1) == -ENOENT);
    CHECK(__faasm_read_state("k", 0, 0) == 0);

    CHECK(__skein_set_state("k", 1, "value", 5) == 0);
    CHECK(__skein_set_state_offset("k", 1, "!!", 2, 7) == 0); // beyond the end: zeros between
    memset(buf, '?', 16);
    CHECK(__skein_read_state("k", 1, 0, buf, 16) == 9 && !memcmp(buf, "value\0\0!!???????", 16));
    CHECK(__skein_read_state("k", 1, 7, buf, 2) == 9 && !memcmp(buf, "!!", 2));
    CHECK(__skein_read_state("k", 1, 100, buf, 16) == 9);
    CHECK(__skein_state_size("k", 1) == 9);
    CHECK(__skein_push_state("k", 1) == 0);
    CHECK(__skein_pull_state("k", 1) == 0);
    CHECK(__skein_append_state("k", 1, "++", 2) == 9);
    CHECK(__skein_state_size("k", 1) == 9); // the replica is as it was until a pull
    CHECK(__skein_set_state_offset("k", 1, "V", 1, 0) == 0);
    CHECK(__skein_pull_state("k", 1) == 0);
    CHECK(__skein_read_state("k", 1, 0, buf, 16) == 11 && !memcmp(buf, "Value\0\0!!++", 11)); // V was not overwritten
    CHECK(__skein_push_state("k", 1) == 0);

    memset(buf, '?', 16);
    CHECK(__faasm_read_state("k", (unsigned char *)buf, 3) == 3 && !memcmp(buf, "Val?", 4));
    __faasm_write_state("f", (const unsigned char *)"faasm", 5);
    __faasm_push_state("f");
    __faasm_pull_state("f", 5);
    __faasm_pull_state("absent", 5);
    CHECK(__skein_state_size("f", 1) == 5);
    CHECK(__skein_delete_state("f", 1) == 0);
    CHECK(__skein_state_size("f", 1) == -ENOENT);

    CHECK(skein_set_state("d", "one", 3) == 0 && skein_push_state("d") == 0 && skein_set_state("d", "two", 3) == 0);
    CHECK(__skein_discard_state("d", 1) == 0 && skein_discard_state("absent") == 0);
    CHECK(__skein_read_state("d", 1, 0, buf, 3) == 3 && !memcmp(buf, "one", 3));
    CHECK(__skein_expire_state("d", 1, 60000) == 0 && skein_expire_state("d", 0) == 0);
    CHECK(skein_expire_state("absent", 1) == -ENOENT);
    CHECK(skein_expire_state("d", -1) == -EINVAL && skein_expire_state("d", INT64_MAX) == -EINVAL && skein_expire_state("d", INT64_MIN) == -EINVAL);

    CHECK(__skein_set_state("", 0, "v", 1) == -EINVAL);
    CHECK(__skein_set_state("a\0b", 3, "v", 1) == -EINVAL);
    CHECK(__skein_set_state(buf, 1025, "v", 1) == -EINVAL);
    CHECK(__skein_set_state(OUTSIDE, 100, "v", 1) == -EFAULT);
    CHECK(__skein_set_state("k", 1, OUTSIDE, 100) == -EFAULT);
    CHECK(__skein_set_state_offset("k", 1, "v", 1, -1) == -EINVAL);
    CHECK(__skein_set_state_offset("k", 1, "v", 1, 64 << 20) == -EFBIG);
    CHECK(__skein_set_state_offset("k", 1, "v", 1, INT64_MAX) == -EFBIG);
    CHECK(__skein_read_state("k", 1, -1, buf, 1) == -EINVAL);
    CHECK(__skein_read_state("k", 1, 0, OUTSIDE, 100) == -EFAULT);
    CHECK(__skein_append_state("k", 1, OUTSIDE, 100) == -EFAULT);

    return mapped() ?: offsets() ?: locks() ?: global() ?: faasm();
}
