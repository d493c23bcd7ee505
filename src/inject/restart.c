/* Which system calls a stop may interrupt (see restart.h).
 *
 * The lists follow signal(7) and the kernel's sources; each call is exercised in tests/inject.
 */
#include "inject/restart.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A read that sleeps has read nothing yet if it waits for a pipe, a socket, a terminal or the like. One that
 * sleeps interruptibly on a file waits for somebody else's file system (FUSE), whose answer to an
 * interruption is its own. The link is read and the type taken from what the kernel knows (statx(2),
 * AT_STATX_DONT_SYNC), so that the file system is not asked: that might never answer. */
static bool reads_a_stream(const struct process *p, uint64_t fd)
{
	char path[40];
	char to[64];
	struct statx st;
	snprintf(path, sizeof(path), "fd/%d", (int)fd);
	ssize_t n = readlinkat(process__dirfd(p), path, to, sizeof(to) - 1);
	if (n <= 0)
		return false;
	to[n] = '\0';
	if (to[0] != '/' || strncmp(to, "/dev/", 5) == 0)
		return true;
	/* a named pipe */
	return statx(process__dirfd(p), path, AT_STATX_DONT_SYNC, STATX_TYPE, &st) == 0 && S_ISFIFO(st.stx_mode);
}

static enum restart_class futex_class(const uint64_t arg[6])
{
	switch (arg[1] & FUTEX_CMD_MASK) {
	case FUTEX_WAIT: /* with a timeout, which is relative: kernel/futex/waitwake.c, futex_wait */
		return arg[3] ? RESTART_BLOCK : RESTART_EXACT;
	case FUTEX_WAIT_BITSET: /* the timeout is absolute: to start anew is to continue */
	case FUTEX_LOCK_PI:     /* likewise, -ERESTARTNOINTR */
	case FUTEX_LOCK_PI2:
		return RESTART_EXACT;
	default:
		return RESTART_NEVER;
	}
}

enum restart_class restart__class(const struct process *p, int64_t nr, const uint64_t arg[6])
{
	switch (nr) {
	case SYS_read:
	case SYS_readv:
		return reads_a_stream(p, arg[0]) ? RESTART_EXACT : RESTART_NEVER;
	case SYS_recvfrom:
		return arg[3] & MSG_WAITALL ? RESTART_NEVER : RESTART_EXACT;
	case SYS_recvmsg:
		return arg[2] & MSG_WAITALL ? RESTART_NEVER : RESTART_EXACT;
	case SYS_recvmmsg: /* sleeps between messages unless told otherwise */
		return arg[3] & MSG_WAITFORONE && !(arg[3] & MSG_WAITALL) ? RESTART_EXACT : RESTART_NEVER;
	case SYS_accept:
	case SYS_accept4:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_pselect6:
	case SYS_ppoll:
	case SYS_rt_sigsuspend:
	case SYS_rt_sigtimedwait:
	case SYS_wait4:
	case SYS_waitid:
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_msgrcv:
	case SYS_msgsnd:
	case SYS_mq_timedreceive: /* absolute timeouts */
	case SYS_mq_timedsend:
	case SYS_flock:
	case SYS_io_getevents:
	case SYS_io_uring_enter:
#ifdef SYS_io_pgetevents
	case SYS_io_pgetevents:
#endif
#ifdef SYS_futex_waitv
	case SYS_futex_waitv: /* absolute timeout */
#endif
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
	case SYS_select:
	case SYS_pause:
#endif
		return RESTART_EXACT;
	case SYS_fcntl:
		return arg[1] == F_SETLKW || arg[1] == F_OFD_SETLKW ? RESTART_EXACT : RESTART_NEVER;
	case SYS_futex:
		return futex_class(arg);
#ifdef SYS_poll
	case SYS_poll: /* fs/select.c, sys_poll: a restart block in any case */
		return (int)arg[2] < 0 ? RESTART_EXACT : RESTART_BLOCK;
#endif
	case SYS_clock_nanosleep:
		return arg[1] & TIMER_ABSTIME ? RESTART_EXACT : RESTART_BLOCK;
	case SYS_nanosleep:
	case SYS_restart_syscall:
		return RESTART_BLOCK;
	default:
		return RESTART_NEVER;
	}
}

/* Calls that have done nothing when they return -EINTR. Not close(2), which has closed. */
static bool nothing_done(int64_t nr)
{
	switch (nr) {
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_pselect6: /* when the remaining time cannot be written back */
	case SYS_ppoll:
	case SYS_read: /* a socket with SO_RCVTIMEO, as in the next */
	case SYS_readv:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_recvmmsg:
	case SYS_accept:
	case SYS_accept4:
	case SYS_write: /* a socket with SO_SNDTIMEO, as in the next */
	case SYS_writev:
	case SYS_sendto:
	case SYS_sendmsg:
	case SYS_sendmmsg:
	case SYS_connect: /* made again it waits on for the same connection */
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_rt_sigtimedwait:
	case SYS_io_getevents:
	case SYS_io_uring_enter:
#ifdef SYS_io_pgetevents
	case SYS_io_pgetevents:
#endif
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
	case SYS_select:
#endif
		return true;
	default:
		return false;
	}
}

/* Calls with a restart block that are the same when made anew: the time to wait is endless, or is a point
 * in time. Left to the kernel they would be continued by restart_syscall(2), and be unfit for
 * borrowing until they end. */
static bool same_when_made_anew(const struct arch_regs *r)
{
	switch (arch_regs__syscall(r)) {
#ifdef SYS_poll
	case SYS_poll:
		return (int)arch_regs__arg(r, 2) < 0;
#endif
	case SYS_futex:
		return (arch_regs__arg(r, 1) & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
	default:
		return false;
	}
}

bool restart__mend(struct arch_regs *r)
{
	int64_t nr = arch_regs__syscall(r);
	int64_t result = arch_regs__result(r);
	if (nr < 0)
		return false;
	if ((result == -EINTR && nothing_done(nr)) ||
	    (result == -KERNEL_ERESTART_RESTARTBLOCK && same_when_made_anew(r))) {
		arch_regs__set_result(r, -KERNEL_ERESTARTNOHAND);
		return true;
	}
	return false;
}

bool restart__borrowable(const struct arch_regs *r)
{
	return arch_regs__syscall(r) < 0 || arch_regs__result(r) != -KERNEL_ERESTART_RESTARTBLOCK;
}
