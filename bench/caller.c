/* Times calls of libcallee: `caller` prints nanoseconds per call, direct (through the PLT, bound at
 * start) and by function pointer, one line each. The result of each call is the argument of the next, so
 * calls cannot overlap. */
#include <stdio.h>
#include <time.h>

int callee(int x);
int (*callee_address(void))(int);

enum { CALLS = 40000000 };

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

int main(void)
{
	int (*volatile pointer)(int) = callee_address();
	int x = 0;

	double start = now_ns();
	for (int i = 0; i < CALLS; i++)
		x = callee(x);
	double direct = now_ns() - start;

	int (*fixed)(int) = pointer;
	start = now_ns();
	for (int i = 0; i < CALLS; i++) {
		__asm__ volatile("" : "+r"(fixed));
		x = fixed(x);
	}
	double by_pointer = now_ns() - start;

	printf("direct %.4f\npointer %.4f\n", direct / CALLS, by_pointer / CALLS);
	return x == 2 * CALLS ? 0 : 1;
}
