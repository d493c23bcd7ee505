/* Times calls of the C library: for each line that it reads, prints nanoseconds per call of strlen(3) of 16 bytes, and
 * per malloc(3) of 64 bytes with its free(3), on one line. Not built in by the compiler (see bench/libc-cost). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALLS = 20000000 };

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

int main(void)
{
	const char *volatile text = "0123456789abcdef";
	size_t sum = 0;

	while (getchar() == '\n') {
		double start = now_ns();
		for (int i = 0; i < CALLS; i++)
			sum += strlen(text);
		double strlen_ns = now_ns() - start;

		start = now_ns();
		for (int i = 0; i < CALLS; i++)
			free(malloc(64));
		printf("%.4f %.4f\n", strlen_ns / CALLS, (now_ns() - start) / CALLS);
		fflush(stdout);
	}
	return sum % 16 != 0;
}
