/* The target of bench/frozen: how long was it frozen, as it sees it itself?
 *
 *     clock_target N LIBRARY FILE
 *
 * loads LIBRARY, has N-1 threads asleep in read(2), and one that reads the clock without pause and without any
 * system call. What it sees it leaves in FILE, which it shares with the benchmark (struct shared): the
 * largest gap between two readings since the benchmark last set it to 0. Ends when told so there. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct shared {
	_Atomic int64_t largest_ns;
	_Atomic int64_t readings;
	_Atomic int64_t end;
};

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts); /* in the vDSO: no system call */
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

	if (argc != 4 || pipe(never) != 0 || !dlopen(argv[2], RTLD_NOW)) {
		fprintf(stderr, "clock_target: %s\n", argc == 4 ? dlerror() : "usage");
		return 1;
	}
	int fd = open(argv[3], O_RDWR);
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED)
		return 1;
	close(fd);
	for (int i = 1; i < atoi(argv[1]); i++) {
		pthread_t t;
		pthread_create(&t, NULL, sleep_in_read, &never[0]);
	}
	puts("ready");
	fflush(stdout);
	int64_t last = now_ns(), readings = 0;
	while (!atomic_load_explicit(&s->end, memory_order_relaxed)) {
		int64_t now = now_ns();
		if (now - last > atomic_load_explicit(&s->largest_ns, memory_order_relaxed))
			atomic_store_explicit(&s->largest_ns, now - last, memory_order_relaxed);
		last = now;
		atomic_store_explicit(&s->readings, ++readings, memory_order_relaxed);
	}
	return 0;
}
