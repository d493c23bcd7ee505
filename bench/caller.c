/* Times calls of libcallee: for each line that it reads, `caller` prints nanoseconds per call, direct (through the
 * PLT, bound at start) and by function pointer, on one line. The result of each call is the argument of the next, so
 * calls cannot overlap. */
#include <stdio.h>
#include <stdlib.h>
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

static void measure(int (*volatile *pointer)(int))
{
	int x = 0;

	double start = now_ns();
	for (int i = 0; i < CALLS; i++)
		x = callee(x);
	double direct = now_ns() - start;

	int (*fixed)(int) = *pointer;
	start = now_ns();
	for (int i = 0; i < CALLS; i++) {
		__asm__ volatile("" : "+r"(fixed));
		x = fixed(x);
	}
	double by_pointer = now_ns() - start;

	if (x != 2 * CALLS)
		abort();
	printf("%.4f %.4f\n", direct / CALLS, by_pointer / CALLS);
	fflush(stdout);
}

int main(void)
{
	int (*volatile pointer)(int) = callee_address();

	while (getchar() == '\n')
		measure(&pointer);
	return 0;
}
