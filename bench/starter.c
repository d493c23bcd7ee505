/* Starts `argv[3]...` argv[1] times with LD_PRELOAD=argv[2] ("" for none), and prints the mean time from start
 * to end in microseconds. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec * 1e-3;
}

int main(int argc, char **argv)
{
	char preload[4096];

	if (argc < 4)
		return 2;
	snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", argv[2]);
	char *env[] = {"LD_BIND_NOW=", argv[2][0] ? preload : NULL, NULL};
	int n = atoi(argv[1]);
	double start = now_us();
	for (int i = 0; i < n; i++) {
		int status;
		pid_t pid;
		if (posix_spawn(&pid, argv[3], NULL, NULL, argv + 3, env) || waitpid(pid, &status, 0) != pid || status)
			return 1;
	}
	printf("%.1f\n", (now_us() - start) / n);
	return 0;
}
