// Kernels for BenchmarkInterruption: each a function of how much to do, which returns something of what it did.
#define KERNEL(name) __attribute__((export_name(#name))) unsigned name(unsigned n)

typedef unsigned char u8;
typedef unsigned u32;
typedef unsigned long long u64;

void *memset(void *d, int c, unsigned long n) { return __builtin_memset(d, c, n); }
void *memcpy(void *d, const void *s, unsigned long n) { return __builtin_memcpy(d, s, n); }

static u32 seed;
static u32 next(void) { return seed = seed * 1664525u + 1013904223u; }

KERNEL(tight) {
	u32 s = 1;
	for (u32 i = 0; i < n * 4000; i++) s = (s ^ i) * 2654435761u;
	return s;
}

static __attribute__((noinline)) u32 fibonacci(u32 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
KERNEL(fib) {
	u32 s = 0;
	for (u32 i = 0; i < n; i++) s += fibonacci(16 + (s & 1));
	return s;
}

static u8 flags[1 << 16];
KERNEL(sieve) {
	u32 primes = 0;
	for (u32 round = 0; round < n / 16 + 1; round++) {
		primes = 0;
		for (u32 i = 0; i < sizeof flags; i++) flags[i] = 1;
		for (u32 i = 2; i < sizeof flags; i++) {
			if (!flags[i]) continue;
			primes++;
			for (u32 j = i + i; j < sizeof flags; j += i) flags[j] = 0;
		}
	}
	return primes;
}

enum { N = 64 };
static double a[N][N], b[N][N], c[N][N];
KERNEL(matmul) {
	for (u32 i = 0; i < N * N; i++) a[0][i] = i % 7, b[0][i] = i % 5;
	for (u32 round = 0; round < n / 16 + 1; round++)
		for (u32 i = 0; i < N; i++)
			for (u32 j = 0; j < N; j++) {
				double s = 0;
				for (u32 k = 0; k < N; k++) s += a[i][k] * b[k][j];
				c[i][j] = s;
			}
	return (u32)c[N - 1][N - 1];
}

static u32 dist[N][N];
KERNEL(floyd) {
	for (u32 round = 0; round < n / 16 + 1; round++) {
		seed = 1;
		for (u32 i = 0; i < N * N; i++) dist[0][i] = next() >> 20;
		for (u32 k = 0; k < N; k++)
			for (u32 i = 0; i < N; i++)
				for (u32 j = 0; j < N; j++) {
					u32 d = dist[i][k] + dist[k][j];
					if (d < dist[i][j]) dist[i][j] = d;
				}
	}
	return dist[3][60];
}

static u32 items[1 << 14];
static void quicksort(u32 *v, int lo, int hi) {
	while (lo < hi) {
		u32 p = v[(lo + hi) / 2];
		int i = lo, j = hi;
		while (i <= j) {
			while (v[i] < p) i++;
			while (v[j] > p) j--;
			if (i <= j) {
				u32 t = v[i];
				v[i++] = v[j];
				v[j--] = t;
			}
		}
		quicksort(v, lo, j);
		lo = i;
	}
}
KERNEL(qsort) {
	for (u32 round = 0; round < n / 64 + 1; round++) {
		seed = round;
		for (u32 i = 0; i < 1 << 14; i++) items[i] = next();
		quicksort(items, 0, (1 << 14) - 1);
	}
	return items[100];
}

static u32 rotate(u32 x, int k) { return x >> k | x << (32 - k); }
KERNEL(sha) {
	u32 h[8] = {1, 2, 3, 4, 5, 6, 7, 8}, w[64];
	for (u32 block = 0; block < n * 8; block++) {
		for (u32 i = 0; i < 16; i++) w[i] = block * 31 + i;
		for (u32 i = 16; i < 64; i++)
			w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] + (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
		u32 s[8];
		for (u32 i = 0; i < 8; i++) s[i] = h[i];
		for (u32 i = 0; i < 64; i++) {
			u32 t = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + w[i] + 0x428a2f98;
			u32 m = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
			for (u32 k = 7; k > 0; k--) s[k] = s[k - 1];
			s[4] += t;
			s[0] = t + m;
		}
		for (u32 i = 0; i < 8; i++) h[i] += s[i];
	}
	return h[0];
}

KERNEL(nbody) {
	static double p[5][3], v[5][3];
	for (u32 i = 0; i < 5; i++)
		for (u32 k = 0; k < 3; k++) p[i][k] = i * 1.5 + k, v[i][k] = 0.01 * k;
	for (u32 step = 0; step < n * 40; step++) {
		for (u32 i = 0; i < 5; i++)
			for (u32 j = i + 1; j < 5; j++) {
				double d[3], s = 0.01;
				for (u32 k = 0; k < 3; k++) d[k] = p[i][k] - p[j][k], s += d[k] * d[k];
				double m = 0.001 / (s * __builtin_sqrt(s));
				for (u32 k = 0; k < 3; k++) v[i][k] -= d[k] * m, v[j][k] += d[k] * m;
			}
		for (u32 i = 0; i < 5; i++)
			for (u32 k = 0; k < 3; k++) p[i][k] += 0.001 * v[i][k];
	}
	return (u32)(p[0][0] * 1e6);
}

KERNEL(mandel) {
	u32 inside = 0;
	for (u32 round = 0; round < n / 16 + 1; round++)
		for (int y = 0; y < 48; y++)
			for (int x = 0; x < 48; x++) {
				double cr = x / 24.0 - 1.5, ci = y / 24.0 - 1.0, r = 0, i = 0;
				int k = 0;
				for (; k < 100 && r * r + i * i < 4; k++) {
					double t = r * r - i * i + cr;
					i = 2 * r * i + ci;
					r = t;
				}
				inside += k == 100;
			}
	return inside;
}

static char text[1 << 12], copy[1 << 12];
static __attribute__((noinline)) u32 length(const char *s) {
	u32 l = 0;
	while (s[l]) l++;
	return l;
}
static __attribute__((noinline)) int compare(const char *x, const char *y) {
	while (*x && *x == *y) x++, y++;
	return *x - *y;
}
KERNEL(strings) { // short loops in functions that are called often
	u32 s = 0;
	seed = 7;
	for (u32 i = 0; i < sizeof text; i++) text[i] = next() % 9 ? 'a' + next() % 3 : 0;
	text[sizeof text - 1] = 0;
	for (u32 i = 0; i < n * 400; i++) {
		const char *x = text + i % 4000, *y = text + i * 7 % 4000;
		s += length(x) + compare(x, y);
	}
	return s;
}

static __attribute__((noinline)) u32 three(u32 x) {
	for (u32 i = 0; i < 3; i++) x = x * 33 ^ (x >> 7) ^ i;
	return x;
}
KERNEL(short3) {
	u32 s = 1;
	for (u32 i = 0; i < n * 1000; i++) s += three(s);
	return s;
}

KERNEL(smallcpy) { // memory.copy of lengths that nobody knows beforehand
	u32 s = 0;
	for (u32 i = 0; i < n * 500; i++) {
		u32 l = 16 + i % 48;
		__builtin_memcpy(copy + i % 64, text + i % 128, l);
		s += copy[i % 64 + l - 1];
	}
	return s;
}

KERNEL(bigcpy) {
	static u8 from[1 << 20], to[1 << 20];
	for (u32 i = 0; i < n / 8 + 1; i++) {
		from[i] = i;
		__builtin_memcpy(to, from, sizeof to - i % 64);
		__builtin_memset(from, i, sizeof from / 2);
	}
	return to[12345];
}

static u32 add(u32 x) { return x + 3; }
static u32 mul(u32 x) { return x * 5; }
static u32 xor(u32 x) { return x ^ 0x55; }
static u32 (*volatile table[3])(u32) = {add, mul, xor};
KERNEL(icall) {
	u32 s = 1;
	for (u32 i = 0; i < n * 1000; i++) s = table[i % 3](s);
	return s;
}

KERNEL(interp) {
	static u8 code[1 << 12];
	seed = 3;
	for (u32 i = 0; i < sizeof code; i++) code[i] = next() >> 29;
	u32 acc = 1, r = 2, pc = 0;
	for (u32 i = 0; i < n * 1000; i++) {
		switch (code[pc++ & 4095]) {
		case 0: acc += r; break;
		case 1: r ^= acc; break;
		case 2: acc *= 3; break;
		case 3: r += 7; break;
		case 4: acc -= r >> 3; break;
		case 5: r = r << 1 | r >> 31; break;
		case 6: acc ^= acc >> 5; break;
		case 7: pc += acc & 3; break;
		}
	}
	return acc + r;
}

struct node { struct node *l, *r; };
static struct node nodes[1 << 13];
static u32 used;
static struct node *grow(int depth) {
	struct node *t = &nodes[used++];
	t->l = depth ? grow(depth - 1) : 0;
	t->r = depth ? grow(depth - 1) : 0;
	return t;
}
static u32 weigh(struct node *t) { return t ? 1 + weigh(t->l) + weigh(t->r) : 0; }
KERNEL(tree) {
	u32 s = 0;
	for (u32 i = 0; i < n / 8 + 1; i++) {
		used = 0;
		s += weigh(grow(11));
	}
	return s;
}
