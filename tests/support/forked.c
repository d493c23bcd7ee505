/* See forked.h. */
#include "support/forked.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

void map_code_of(int fd)
{
	if (fd < 0 || mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		_exit(1);
	close(fd);
}

void map_code(const char *path)
{
	map_code_of(open(path, O_RDONLY | O_CLOEXEC));
}

pid_t forked__start(void (*what)(const char *arg), const char *arg)
{
	int ready[2];
	char c;
	cr_assert_eq(pipe2(ready, O_CLOEXEC), 0);
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		what(arg);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	cr_assert_eq(read(ready[0], &c, 1), 1, "the process could not do it");
	close(ready[0]);
	return pid;
}

void forked__end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

bool forked__kill_at(pid_t tracee, unsigned k, bool (*counts)(pid_t tracee))
{
	int status;
	long signal = 0;
	for (unsigned n = 0; n < k;) {
		ptrace(PTRACE_SYSCALL, tracee, 0, signal);
		cr_assert_eq(waitpid(tracee, &status, 0), tracee);
		if (WIFEXITED(status)) {
			cr_assert_eq(WEXITSTATUS(status), 0, "the tool fails at step %u: %d", k, WEXITSTATUS(status));
			return false;
		}
		cr_assert(WIFSTOPPED(status), "the tool is killed");
		int sig = WSTOPSIG(status);
		signal = sig == (SIGTRAP | 0x80) ? 0 : sig;
		if (signal == 0 && counts(tracee))
			n++;
	}
	kill(tracee, SIGKILL);
	while (waitpid(tracee, &status, 0) == tracee && WIFSTOPPED(status))
		;
	return true;
}
