/* The target of bench/frozen: how long was it frozen, as it sees it itself?
 *
 *     clock_target N LIBRARY
 *
 * loads LIBRARY, has N-1 threads asleep in read(2), and one that reads the clock without pause and keeps
 * the largest gap between two readings. For each line on standard input it prints the largest gap since the last
 * line, in nanoseconds. The thread that reads lines is one of the sleepers; with N = 1 the only thread reads
 * the clock, and looks for input in between with poll(2), every 2^16 readings: such a gap is its own work
 * and is not counted. */
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void *sleep_in_read(void *arg)
{
	char c;

	while (read(*(int *)arg, &c, 1) < 0)
		;
	return NULL;
}

int main(int argc, char **argv)
{
	int never[2];
	int64_t largest = 0, last;

	if (argc != 3 || pipe(never) != 0 || !dlopen(argv[2], RTLD_NOW)) {
		fprintf(stderr, "clock_target: %s\n", argc == 3 ? dlerror() : "usage");
		return 1;
	}
	for (int i = 1; i < atoi(argv[1]); i++) {
		pthread_t t;
		pthread_create(&t, NULL, sleep_in_read, &never[0]);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	last = now_ns();
	for (unsigned readings = 1;; readings++) {
		int64_t now = now_ns();
		if (now - last > largest)
			largest = now - last;
		last = now;
		if (readings % 65536)
			continue;
		struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
		if (poll(&p, 1, 0) == 1) {
			char line[64];
			if (read(STDIN_FILENO, line, sizeof(line)) <= 0)
				return 0;
			printf("%ld\n", (long)largest);
			largest = 0;
		}
		last = now_ns();
	}
}
