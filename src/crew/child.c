/* See child.h. */
#include "crew/child.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"

/* glibc has no function for a fork without a signal. What its fork() does besides is for other threads, of which there
 * are none, and for the TID that it keeps of this one: that is where set_tid_address(2) was told
 * (sysdeps/unix/sysv/linux/ arch-fork.h; prctl(2), PR_GET_TID_ADDRESS, with CONFIG_CHECKPOINT_RESTORE). */
static pid_t fork_with(unsigned long flags)
{
	int *tid = NULL;
	if (prctl(PR_GET_TID_ADDRESS, &tid) == 0 && tid)
		flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
	return (pid_t)syscall(SYS_clone, flags, NULL, NULL, tid, NULL);
}

pid_t child__fork(void)
{
	return fork_with(0);
}

/* It gets the signal of its maker (kernel/fork.c, copy_process), which is none. */
pid_t child__fork_sibling(void)
{
	return fork_with(CLONE_PARENT);
}

/* For who was killed. Longer takes who hangs in the kernel; and who was traced, say by a debugger, is shown to its
 * parent only when the tracer has waited for it or is gone (kernel/exit.c, wait_consider_task). */
enum { END_MS = 1000 };

/* The PID is its own for as long as nobody has waited for it, and waitid(2) fails afterwards (kernel/exit.c,
 * eligible_child). */
static bool is_child(pid_t pid)
{
	siginfo_t info;
	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0;
}

void child__wake(pid_t pid)
{
	siginfo_t info = {0};
	if (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOHANG | __WALL) == 0 && info.si_pid == pid)
		kill(pid, SIGCONT);
}

bool child__reap(pid_t pid)
{
	siginfo_t info = {0};
	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | __WALL) < 0 || info.si_pid == pid;
}

char *child__end(pid_t pid)
{
	siginfo_t info = {0};
	if (!is_child(pid))
		return xstrdup("ended");
	CLOSE_CLEANUP int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd end = {.fd = fd, .events = POLLIN};
	kill(pid, SIGKILL);
	(void)poll(&end, 1, END_MS);
	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | __WALL) < 0 || info.si_pid != pid)
		return xstrdup("was ended");
	return info.si_code == CLD_EXITED ? xasprintf("ended with exit code %d", info.si_status)
					  : xasprintf("was ended by signal %d", info.si_status);
}
