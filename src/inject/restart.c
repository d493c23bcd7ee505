/* Which system calls a stop may interrupt (see restart.h).
 *
 * The lists follow signal(7) and the kernel's sources; each call is exercised in tests/law3.
 */
#include "inject/restart.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "inject/proc.h"

/* Does the thread see the same files under the same numbers as /proc/PID and a pidfd, which speak for the
 * first thread? */
static bool shares_files(const struct process *p, const struct thread_view *v)
{
	return v->tid == p->pid || syscall(SYS_kcmp, (long)v->tid, (long)p->pid, (long)KCMP_FILES, 0L, 0L) == 0;
}

/* A terminal hands over what is typed piece by piece into the reader's buffer when it is to give several bytes
 * at once (termios(3), MIN > 1; drivers/tty/n_tty.c, n_tty_read). Other line disciplines are not known. */
static bool terminal_gives_nothing_yet(int fd)
{
	struct termios t;
	int discipline = -1;
	return ioctl(fd, TIOCGETD, &discipline) == 0 && discipline == N_TTY && tcgetattr(fd, &t) == 0 &&
	       (t.c_lflag & ICANON || t.c_cc[VMIN] <= 1);
}

/* Likewise a stream socket whose reader waits for more than one byte (net/core/sock.c, sock_rcvlowat). */
static bool socket_gives_nothing_yet(int fd)
{
	int low_water = 0;
	socklen_t len = sizeof(low_water);
	return getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low_water, &len) == 0 && low_water <= 1;
}

/* Asks the open file itself, of which we get a descriptor for a moment. */
static bool asked(const struct process *p, uint64_t fd, bool (*gives_nothing_yet)(int fd))
{
	CLOSE_CLEANUP int own = (int)syscall(SYS_pidfd_getfd, p->pidfd, (int)fd, 0);
	return own >= 0 && gives_nothing_yet(own);
}

/* Files with a name: named pipes and terminals. The type is taken from what the kernel knows (statx(2),
 * AT_STATX_DONT_SYNC), so that a file system is not asked: that might never answer. One that sleeps on anything
 * else waits for somebody else's file system (FUSE), whose answer to an interruption is its own, or for a device
 * of which nothing is known. */
static bool named_stream(const struct process *p, const char *path, uint64_t fd)
{
	enum { TTY = 4, TTY_AUX = 5, PTS_FIRST = 136, PTS_LAST = 143 }; /* include/uapi/linux/major.h */
	struct statx st;
	if (statx(p->dirfd, path, AT_STATX_DONT_SYNC, STATX_TYPE, &st) < 0)
		return false;
	if (S_ISFIFO(st.stx_mode))
		return true;
	uint32_t major = st.stx_rdev_major;
	bool terminal = major == TTY || major == TTY_AUX || (major >= PTS_FIRST && major <= PTS_LAST);
	return S_ISCHR(st.stx_mode) && terminal && asked(p, fd, terminal_gives_nothing_yet);
}

/* Has a read of `fd` that sleeps read nothing yet? `several`: into several buffers. Files that the kernel reads buffer
 * by buffer may have filled the first ones then (fs/read_write.c, do_loop_readv_writev). */
static bool has_read_nothing(const struct process *p, const struct thread_view *v, uint64_t fd, bool several)
{
	static const char *const one_by_one[] = {"anon_inode:[eventfd]",     "anon_inode:[timerfd]",
						 "anon_inode:[signalfd]",    "anon_inode:inotify",
						 "anon_inode:[userfaultfd]", "anon_inode:[fanotify]"};
	char path[40];
	char to[64];
	snprintf(path, sizeof(path), "fd/%d", (int)fd);
	ssize_t n = shares_files(p, v) ? readlinkat(p->dirfd, path, to, sizeof(to) - 1) : -1;
	if (n <= 0)
		return false;
	to[n] = '\0';
	if (to[0] == '/')
		return named_stream(p, path, fd);
	if (strncmp(to, "socket:", 7) == 0)
		return asked(p, fd, socket_gives_nothing_yet);
	bool known = strncmp(to, "pipe:", 5) == 0;
	for (size_t i = 0; !several && i < sizeof(one_by_one) / sizeof(*one_by_one); i++)
		known = known || strcmp(to, one_by_one[i]) == 0;
	return known;
}

static bool has_received_nothing(const struct process *p, const struct thread_view *v, uint64_t flags)
{
	return !(flags & MSG_WAITALL) && shares_files(p, v) && asked(p, v->arg[0], socket_gives_nothing_yet);
}

/* Would a waiter that is made to wait again do so? Not when the word has another value by now: it would return
 * EAGAIN. So it is with one of several whose turn has not come, and one that was moved to another word
 * (FUTEX_CMP_REQUEUE). */
static bool would_wait(const struct process *p, uint64_t word, uint64_t val)
{
	uint32_t now = 0;
	ERR_CLEANUP struct err *e = process__read(p, taddr(word), &now, sizeof(now));
	return !e && now == (uint32_t)val;
}

static enum restart_class futex_class(const struct process *p, const uint64_t arg[6])
{
	switch (arg[1] & FUTEX_CMD_MASK) {
	case FUTEX_WAIT: /* with a timeout, which is relative: kernel/futex/waitwake.c, futex_wait */
		if (!would_wait(p, arg[0], arg[2]))
			return RESTART_NEVER;
		return arg[3] ? RESTART_BLOCK : RESTART_EXACT;
	case FUTEX_WAIT_BITSET: /* the timeout is absolute: to start anew is to continue */
		return would_wait(p, arg[0], arg[2]) ? RESTART_EXACT : RESTART_NEVER;
	case FUTEX_LOCK_PI: /* likewise, -ERESTARTNOINTR */
	case FUTEX_LOCK_PI2:
		return RESTART_EXACT;
	default:
		return RESTART_NEVER;
	}
}

#ifdef SYS_futex_waitv
static enum restart_class futex_waitv_class(const struct process *p, const uint64_t arg[6])
{
	struct futex_waitv v[FUTEX_WAITV_MAX];
	if (arg[1] > FUTEX_WAITV_MAX)
		return RESTART_NEVER;
	ERR_CLEANUP struct err *e = process__read(p, taddr(arg[0]), v, arg[1] * sizeof(*v));
	for (size_t i = 0; !e && i < arg[1]; i++)
		if (!would_wait(p, v[i].uaddr, v[i].val))
			return RESTART_NEVER;
	return e ? RESTART_NEVER : RESTART_EXACT; /* absolute timeout */
}
#endif

static enum restart_class exact_if(bool yes)
{
	return yes ? RESTART_EXACT : RESTART_NEVER;
}

enum restart_class restart__class(const struct process *p, const struct thread_view *v)
{
	const uint64_t *arg = v->arg;
	switch (v->nr) {
	case SYS_read:
	case SYS_readv:
		return exact_if(has_read_nothing(p, v, arg[0], v->nr == SYS_readv));
	case SYS_recvfrom:
		return exact_if(has_received_nothing(p, v, arg[3]));
	case SYS_recvmsg:
		return exact_if(has_received_nothing(p, v, arg[2]));
	case SYS_recvmmsg: /* sleeps between messages unless told otherwise */
		return exact_if(arg[3] & MSG_WAITFORONE && has_received_nothing(p, v, arg[3]));
	case SYS_io_getevents: /* fs/aio.c, read_events: may have handed over some of several */
#ifdef SYS_io_pgetevents
	case SYS_io_pgetevents:
#endif
		return exact_if((int64_t)arg[1] <= 1);
	case SYS_io_uring_enter: /* having submitted it would return that number, and not wait */
		return exact_if(arg[1] == 0 && !(arg[3] & IORING_ENTER_SQ_WAIT));
#ifdef SYS_futex_waitv
	case SYS_futex_waitv:
		return futex_waitv_class(p, arg);
#endif
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
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
	case SYS_select:
	case SYS_pause:
#endif
		return RESTART_EXACT;
	case SYS_fcntl:
		return arg[1] == F_SETLKW || arg[1] == F_OFD_SETLKW ? RESTART_EXACT : RESTART_NEVER;
	case SYS_futex:
		return futex_class(p, arg);
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
