// A command that exports its constructors. Called, it puts out where in its table the functions are that can be called.
#include <skein.h>

static int made;

__attribute__((constructor)) static void construct(void) { made = 5; }

static int plain(void) { return made++; }
static int number(int n) { return made++ + n; }
static void quiet(int n) { made += n; }
static int spin(void) { for (volatile int i = 0;; i++); }
static int two(int a, int b) { return a + b; }
static int deep(int n) {
	volatile char frame[64];
	frame[0] = (char)n;
	return n ? deep(n - 1) + frame[0] - (char)n : 0;
}

int main(void) {
	int table[] = {(int)plain, (int)number, (int)quiet, (int)spin, (int)deep, (int)two};
	return __skein_write_call_output(table, sizeof table);
}
