// calls does what its input says, mostly by calling others: "deep 5", "tree 5", "fan 1000 echo", "loop 100 echo", "sleep 5".
// What it was called to count it puts out as a number; "leaf" and all else is a call that makes none.
#include <skein.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *what, *name;
static int number;

// decimal writes n, which is not negative, and gives the length. printf would be most of the module, and of a call's time.
static int decimal(char *text, int n) {
    int len = n < 10 ? 0 : decimal(text, n / 10);
    text[len] = (char)('0' + n % 10);
    return len + 1;
}

static int output_number(int n) {
    char text[16];
    return skein_output(text, (size_t)decimal(text, n)) < 0;
}

// same calls this function with a word of four letters and a number.
static int same(const char *word, int n) {
    char text[24] = {word[0], word[1], word[2], word[3], ' '};
    const char *self = getenv("SKEIN_FUNCTION");
    return __skein_chain_name(self, strlen(self), text, 5 + decimal(text + 5, n));
}

// child_number is what a child has put out, or -1.
static int child_number(int id) {
    char text[17] = {0};
    if (id < 0 || __skein_await_call(id) != 0 || __skein_await_call_output(id, text, 16) < 0)
        return -1;
    return atoi(text);
}

// Each call makes one more and counts those at and below it.
static int deep(void) {
    int below = number ? child_number(same("deep", number - 1)) : 0;
    return below < 0 || output_number(below + 1);
}

// Each call makes two more.
static int tree(void) {
    if (number == 0)
        return output_number(1);
    int a = same("tree", number - 1), b = same("tree", number - 1);
    int x = child_number(a), y = child_number(b);
    return x < 0 || y < 0 || output_number(x + y + 1);
}

// 64 bytes, which an echo gives back.
static const char payload[64] = "skein.0123456789skein.0123456789skein.0123456789skein.012345678";

static int call(void) { return __skein_chain_name(name, strlen(name), payload, sizeof payload); }

static int answered(int id) {
    char back[sizeof payload + 1];
    return id > 0 && __skein_await_call(id) == 0 && __skein_await_call_output(id, back, sizeof back) == sizeof payload &&
           !memcmp(back, payload, sizeof payload);
}

// Many at a time, awaited one after the other.
static int fan(void) {
    static int ids[1000];
    if (number > 1000)
        return 2;
    for (int i = 0; i < number; i++)
        ids[i] = call();
    for (int i = 0; i < number; i++)
        if (!answered(ids[i]))
            return 1;
    return output_number(number);
}

// One after the other.
static int loop(void) {
    for (int i = 0; i < number; i++)
        if (!answered(call()))
            return 1;
    return output_number(number);
}

SKEIN_EXPORT(handle) int handle(void) {
    char *in = skein_input(NULL);
    if (!in)
        return 1;
    const char *count;
    what = strtok(in, " "), count = strtok(NULL, " "), name = strtok(NULL, " ");
    number = count ? atoi(count) : 0;
    if (!what || number < 0)
        return 2;
    if (!strcmp(what, "deep")) return deep();
    if (!strcmp(what, "tree")) return tree();
    if (!strcmp(what, "fan") && name) return fan();
    if (!strcmp(what, "loop") && name) return loop();
    if (!strcmp(what, "sleep")) nanosleep(&(struct timespec){.tv_nsec = number * 1000000L}, NULL);
    return output_number(1);
}
