/* The target of bench/frozen and bench/retire: how long was it frozen, as it sees it itself?
 *
 *     clock_target LIBRARY FILE THREADS asleep|running HEAP_MIB
 *
 * loads LIBRARY, fills HEAP_MIB of memory, and has one thread that reads the clock without pause and without any
 * system call. All other threads sleep, in turn in futex(2), poll(2), read(2) and nanosleep(2), or compute. Those that
 * compute leave the core of the clock alone and give way to all else on theirs (SCHED_IDLE): they are runnable, which
 * is what makes them stop late, without taking the time of the tools. What the clock sees it leaves in FILE, which it
 * shares with the benchmark (struct shared): the largest gap between two readings since the benchmark last set it to
 * 0. Ends when told so there, and with the benchmark. */
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
	STACK = 128 << 10,
	PAGE = 4096,
};

struct shared {
	_Atomic int64_t largest_ns;
	_Atomic int64_t readings;
	_Atomic int64_t end;
};

static int never[2];
static sem_t nobody;
static _Atomic int ready;

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts); /* in the vDSO: no system call */
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void *sleep_somewhere(void *arg)
{
	struct pollfd p = {.fd = never[0], .events = POLLIN};
	char c;

	atomic_fetch_add(&ready, 1);
	for (;;) {
		switch ((intptr_t)arg % 4) {
		case 0:
			sem_wait(&nobody);
			break;
		case 1:
			poll(&p, 1, -1);
			break;
		case 2:
			(void)!read(never[0], &c, 1);
			break;
		default:
			nanosleep(&(struct timespec){.tv_sec = 1000000}, NULL);
		}
	}
	return NULL;
}

static void *compute(void *arg)
{
	struct sched_param p = {0};
	cpu_set_t others;

	CPU_ZERO(&others);
	for (long i = 1; i < sysconf(_SC_NPROCESSORS_ONLN); i++)
		CPU_SET(i, &others);
	sched_setaffinity(0, sizeof(others), &others);
	sched_setscheduler(0, SCHED_IDLE, &p);
	atomic_fetch_add(&ready, 1);
	for (volatile uint64_t i = (uintptr_t)arg;;)
		i = i * 3 + 1;
	return NULL;
}

static void start_threads(int n, bool running)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	for (int i = 0; i < n; i++)
		if (pthread_create(&t, &attr, running ? compute : sleep_somewhere, (void *)(intptr_t)i))
			exit(1);
	while (atomic_load(&ready) < n)
		usleep(1000);
}

/* Memory with a small number in every word: no page is empty, and no word looks like an address. */
static void fill(size_t mib)
{
	size_t words = (mib << 20) / sizeof(uint64_t);
	uint64_t *heap = mmap(NULL, (mib << 20) + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (heap == MAP_FAILED)
		exit(1);
	for (size_t i = 0; i < words; i++)
		heap[i] = i % 1000 + 1;
}

int main(int argc, char **argv)
{
	if (argc != 6 || pipe(never) != 0 || sem_init(&nobody, 0, 0) != 0 || !dlopen(argv[1], RTLD_NOW)) {
		fprintf(stderr, "clock_target: %s\n", argc == 6 ? dlerror() : "usage");
		return 1;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int fd = open(argv[2], O_RDWR);
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED)
		return 1;
	close(fd);
	fill((size_t)atol(argv[5]));
	start_threads(atoi(argv[3]) - 1, strcmp(argv[4], "running") == 0);
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
