/* Reads the database of packages and asks for a file (machine/package.h): prints `first MS`, with the reading, and
 * `next MS`, for another. */
#include <stdio.h>
#include <time.h>

#include "machine/package.h"

static double ask(struct packages *p, const char *path)
{
	struct timespec a, b;
	const struct package *k;
	clock_gettime(CLOCK_MONOTONIC, &a);
	err__free(packages__owner(p, path, &k));
	clock_gettime(CLOCK_MONOTONIC, &b);
	return (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) * 1e-6;
}

int main(void)
{
	struct packages *p = packages__new(NULL);
	printf("first %.4f\n", ask(p, "/usr/lib/x86_64-linux-gnu/libc.so.6"));
	printf("next %.4f\n", ask(p, "/usr/bin/bash"));
	packages__free(p);
	return 0;
}
