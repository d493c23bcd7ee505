/* The floor of bench/frozen: what stopping and releasing the threads of a process costs, with nothing done
 * in between. `floor PID` seizes every thread, interrupts all, waits for all, detaches all, and prints the
 * nanoseconds from the first PTRACE_INTERRUPT to the last PTRACE_DETACH. `floor PID running` does so with the threads
 * that are not asleep (state R in /proc/PID/task/TID/stat), which is looked up before the time begins. */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

enum { THREADS_MAX = 4096 };

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static bool is_running(int pid, int tid)
{
	char path[64], line[256];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	FILE *f = fopen(path, "r");
	if (!f)
		return false;
	const char *name_end = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	fclose(f);
	return name_end && name_end[1] == ' ' && name_end[2] == 'R';
}

int main(int argc, char **argv)
{
	static pid_t tid[THREADS_MAX];
	char path[64];
	int n = 0;

	if (argc < 2 || argc > 3)
		return 2;
	int pid = atoi(argv[1]);
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *d = opendir(path);
	if (!d)
		return 2;
	for (struct dirent *e; n < THREADS_MAX && (e = readdir(d)) != NULL;)
		if (e->d_name[0] != '.' && (argc == 2 || is_running(pid, atoi(e->d_name))))
			tid[n++] = atoi(e->d_name);
	closedir(d);
	for (int i = 0; i < n; i++)
		if (ptrace(PTRACE_SEIZE, tid[i], 0, 0) != 0)
			return 1;
	int64_t start = now_ns();
	for (int i = 0; i < n; i++)
		ptrace(PTRACE_INTERRUPT, tid[i], 0, 0);
	for (int i = 0, status; i < n; i++)
		waitpid(tid[i], &status, __WALL);
	for (int i = 0; i < n; i++)
		ptrace(PTRACE_DETACH, tid[i], 0, 0);
	printf("%ld\n", (long)(now_ns() - start));
	return 0;
}
