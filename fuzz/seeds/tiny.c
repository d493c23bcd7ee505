/* A library of everything, in little: what the seeds of the fuzzer are made of. VERSION 2 answers otherwise, has
 * one more function and one more constant, and the same state. */
#ifndef VERSION
#define VERSION 1
#endif

extern int outside(const char *text);
extern int more(int x);
void *malloc(unsigned long size);

struct entry {
	const char *name;
	int (*function)(int);
};

struct object {
	struct object *next;
	long count;
	int (*function)(int);
};

static int twice(int x)
{
	return 2 * x + VERSION;
}

static int thrice(int x)
{
#if VERSION == 2
	x ^= 0x55;
#endif
	return 3 * x;
}

const struct entry entries[] = {{"twice", twice}, {"thrice", thrice}};

static long count = 7;
static struct object *all;
static char buffer[64];
#ifdef TLS
static __thread int mine = 3;
#endif

__attribute__((visibility("default"))) int (*chosen)(int) = twice;

int version(void)
{
	return VERSION;
}

struct object *make(void)
{
	struct object *o = malloc(sizeof(*o));

	o->next = all;
	o->count = ++count;
	o->function = count % 2 ? thrice : twice;
	all = o;
	return o;
}

int use(struct object *o, int x)
{
	buffer[x & 63] = (char)x;
	o->count += x;
	return o->function(x) + (int)o->count + chosen(x);
}

#if VERSION == 2
static __attribute__((noinline)) int added(int x)
{
	return x * 77 + outside("added");
}
#endif

int choose(int x)
{
	switch (x) {
	case 0:
		return outside("nothing");
	case 1:
		return more(x) + 1;
	case 2:
		return twice(x);
	case 3:
		return x * 5;
	case 4:
		return buffer[x];
#if VERSION == 2
	case 5:
		return added(x);
#endif
	default:
		return entries[x & 1].function(x);
	}
}

#ifdef TLS
int *own(void)
{
	return &mine;
}
#endif

#ifdef IFUNC
static int slow(int x)
{
	return x + VERSION;
}

static int fast(int x)
{
	return x + VERSION + 1;
}

static int (*resolve(void))(int)
{
	return VERSION == 1 ? slow : fast;
}

int quick(int x) __attribute__((ifunc("resolve")));
#endif

__attribute__((constructor)) static void begin(void)
{
	count++;
}

__attribute__((destructor)) static void end(void)
{
	outside("end");
}
