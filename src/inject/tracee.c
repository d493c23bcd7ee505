/* ptrace(2), all of it (see tracee.h). */
#include "inject/tracee.h"

#include <elf.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/ptrace.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "inject/clock.h"
#include "inject/proc.h"
#include "inject/restart.h"

/* The kernel's own header and call: glibc's <sys/ptrace.h> lags behind, and the two do not mix. */
static long call(long request, pid_t tid, uintptr_t addr, uintptr_t data)
{
	fault__request(request, false);
	long r = syscall(SYS_ptrace, request, (long)tid, addr, data);
	fault__request(request, true);
	return r;
}

static struct err *failed(const struct tracee *t, const char *what)
{
	int e = errno;
	/* ESRCH: killed while stopped (ptrace(2)) */
	if (e == ESRCH)
		return process__err(t->p, t->tid, ERR_GONE, 0, NULL, "it ended while it was stopped");
	return process__err(t->p, t->tid, ERR_SYSTEM, e, NULL, "%s failed", what);
}

struct err *tracee__seize(const struct process *p, pid_t tid, struct tracee *out)
{
	*out = (struct tracee){.p = p, .tid = tid, .state = TRACEE_RUNNING};
	if (call(PTRACE_SEIZE, tid, 0, 0) == 0) {
		struct err *e = process__alive(p); /* or was it another process's thread, with the same number? */
		if (e)
			(void)tracee__release(out, clock_deadline(100));
		return e;
	}
	int e = errno;
	if (e == ESRCH)
		return process__err(p, tid, ERR_GONE, 0, NULL, "it ended");
	struct thread_view v;
	TRY(process__look(p, tid, &v));
	if (v.state == THREAD_DEAD)
		return process__err(p, tid, ERR_GONE, 0, NULL, "it ended");
	pid_t tracer = 0;
	TRY(process__tracer(p, &tracer));
	if (tracer == getpid())
		return process__err(p, tid, ERR_RETRY, 0, NULL, "it has not come to a stop since it was last asked to");
	if (tracer)
		return process__err(p, tid, ERR_BUSY, 0, "let the other tracer finish",
				    "it is traced by process %d (a debugger?)", tracer);
	return process__err(p, tid, ERR_PERMISSION, e, "run as root", "it may not be traced");
}

void tracee__interrupt(struct tracee *t)
{
	/* fails only for a thread that is gone, which the wait will tell */
	(void)call(PTRACE_INTERRUPT, t->tid, 0, 0);
}

static struct err *read_regs(struct tracee *t)
{
	struct iovec io = {&t->regs.user, sizeof(t->regs.user)};
	if (call(PTRACE_GETREGSET, t->tid, NT_PRSTATUS, (uintptr_t)&io) == 0)
		return NULL;
	return failed(t, "PTRACE_GETREGSET");
}

struct err *tracee__set_regs(struct tracee *t, const struct arch_regs *r)
{
	struct arch_regs copy = *r;
	struct iovec io = {&copy.user, sizeof(copy.user)};
	if (call(PTRACE_SETREGSET, t->tid, NT_PRSTATUS, (uintptr_t)&io) < 0)
		return failed(t, "PTRACE_SETREGSET");
	t->regs = copy;
	return NULL;
}

/* Which of the two system-call stops it is; the kernel knows better than a count of them. */
static enum tracee_state syscall_stop(const struct tracee *t)
{
	struct ptrace_syscall_info info = {0};
	long n = call(PTRACE_GET_SYSCALL_INFO, t->tid, sizeof(info), (uintptr_t)&info);
	if (n > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY)
		return TRACEE_ENTRY;
	if (n > 0 && info.op == PTRACE_SYSCALL_INFO_EXIT)
		return TRACEE_EXIT;
	return TRACEE_OTHER;
}

static enum tracee_state classify(struct tracee *t, int status)
{
	int event = status >> 16;
	int sig = WSTOPSIG(status);
	t->signal = 0;
	if (event == PTRACE_EVENT_STOP)
		return sig == SIGTRAP ? TRACEE_TRAPPED : TRACEE_GROUP;
	if (event == PTRACE_EVENT_CLONE)
		return TRACEE_CLONED;
	if (event)
		return TRACEE_OTHER;
	if (sig == (SIGTRAP | 0x80)) /* PTRACE_O_TRACESYSGOOD */
		return syscall_stop(t);
	t->signal = sig;
	return TRACEE_SIGNALLED;
}

/* Takes in what waitpid(2) said. */
static struct err *stopped(struct tracee *t, int status)
{
	if (!WIFSTOPPED(status)) {
		t->state = TRACEE_GONE;
		return NULL;
	}
	t->state = classify(t, status);
	struct err *e = read_regs(t);
	bool in_signal_code = t->state == TRACEE_TRAPPED || t->state == TRACEE_SIGNALLED || t->state == TRACEE_GROUP;
	if (!e && in_signal_code && restart__mend(&t->regs))
		e = tracee__set_regs(t, &t->regs);
	if (e && err__kind(e) == ERR_GONE) {
		/* killed between its stop and now; its end is still to be reaped */
		err__free(e);
		t->state = TRACEE_RUNNING;
		return NULL;
	}
	return e;
}

/* A leader that exits before its threads turns into a zombie about which nothing is reported until
 * they are gone as well (kernel/exit.c, delay_group_leader). */
static bool is_zombie(const struct tracee *t)
{
	struct thread_view v;
	ERR_CLEANUP struct err *e = process__look(t->p, t->tid, &v);
	return !e && v.state == THREAD_DEAD;
}

struct err *tracee__poll(struct tracee *t)
{
	int status = 0;
	pid_t r = waitpid(t->tid, &status, __WALL | WNOHANG);
	if (r == t->tid)
		return stopped(t, status);
	if (r < 0 && errno == ECHILD)
		t->state = TRACEE_GONE;
	else if (r < 0 && errno != EINTR)
		return process__err(t->p, t->tid, ERR_SYSTEM, errno, NULL, "waitpid failed");
	return NULL;
}

enum { SPIN_NS = 150000, END_MS = 1000 };

/* Most stops come within microseconds, while the target is held up: to sleep and be woken would cost more than to
 * look again. The yield lets a target that shares our processor go first. */
static struct err *spin(struct tracee *t, uint64_t deadline)
{
	uint64_t end = clock_ns() + SPIN_NS;
	if (end > deadline)
		end = deadline;
	do {
		TRY(tracee__poll(t));
		if (t->state != TRACEE_RUNNING)
			return NULL;
		sched_yield();
	} while (clock_ns() < end);
	return NULL;
}

void tracee__listen(sigset_t *before)
{
	sigset_t chld;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &chld, before);
}

void tracee__sleep(uint64_t ns)
{
	const struct timespec nap = {0, (long)ns};
	sigset_t chld;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	(void)sigtimedwait(&chld, NULL, &nap);
}

void tracee__unlisten(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* Should the signal go elsewhere, the next look comes within a millisecond. */
struct err *tracee__wait(struct tracee *t, uint64_t deadline)
{
	TRY(spin(t, deadline));
	if (t->state != TRACEE_RUNNING)
		return NULL;
	sigset_t before;
	tracee__listen(&before);
	struct err *e = NULL;
	for (unsigned turn = 1;; turn++) {
		e = tracee__poll(t);
		if (e || t->state != TRACEE_RUNNING)
			break;
		uint64_t now = clock_ns();
		if (now >= deadline || turn % 16 == 0) {
			if (is_zombie(t)) {
				/* its end may have come between the look before and this one */
				e = tracee__poll(t);
				if (!e && t->state == TRACEE_RUNNING)
					t->state = TRACEE_GONE;
				break;
			}
			if (now >= deadline)
				break;
		}
		uint64_t left = deadline - now;
		tracee__sleep(left < 1000000 ? left : 1000000);
	}
	tracee__unlisten(&before);
	return e;
}

static void go(struct tracee *t, long request)
{
	/* fails only when it was killed, which the next wait will tell */
	(void)call(request, t->tid, 0, (uintptr_t)t->signal);
	t->signal = 0;
	t->state = TRACEE_RUNNING;
}

void tracee__cont(struct tracee *t)
{
	go(t, PTRACE_CONT);
}

void tracee__cont_to_syscall(struct tracee *t)
{
	go(t, PTRACE_SYSCALL);
}

void tracee__detach(struct tracee *t)
{
	if (t->state == TRACEE_GONE)
		return;
	if (call(PTRACE_DETACH, t->tid, 0, (uintptr_t)t->signal) < 0) {
		/* killed: until it is reaped, its process does not end */
		t->state = TRACEE_RUNNING;
		err__free(tracee__wait(t, clock_deadline(END_MS)));
	}
	t->signal = 0;
	t->state = TRACEE_GONE;
}

bool tracee__release(struct tracee *t, uint64_t deadline)
{
	if (t->state == TRACEE_RUNNING) {
		tracee__interrupt(t);
		ERR_CLEANUP struct err *e = tracee__wait(t, deadline);
		if (e || t->state == TRACEE_RUNNING)
			return false;
	}
	tracee__detach(t);
	return true;
}

struct err *tracee__sigmask(struct tracee *t, uint64_t *out)
{
	if (call(PTRACE_GETSIGMASK, t->tid, sizeof(*out), (uintptr_t)out) == 0)
		return NULL;
	return failed(t, "PTRACE_GETSIGMASK");
}

struct err *tracee__set_sigmask(struct tracee *t, uint64_t mask)
{
	if (call(PTRACE_SETSIGMASK, t->tid, sizeof(mask), (uintptr_t)&mask) == 0)
		return NULL;
	return failed(t, "PTRACE_SETSIGMASK");
}

struct err *tracee__xstate(struct tracee *t, uint8_t **out, size_t *len)
{
	size_t cap = 65536;
	uint8_t *buf = xcalloc(1, cap);
	struct iovec io = {buf, cap};
	if (call(PTRACE_GETREGSET, t->tid, (uintptr_t)arch_xstate_note, (uintptr_t)&io) < 0) {
		struct err *e = failed(t, "PTRACE_GETREGSET of the extended state");
		free(buf);
		return e;
	}
	*out = buf;
	*len = io.iov_len;
	return NULL;
}

struct err *tracee__follow(struct tracee *t)
{
	if (call(PTRACE_SETOPTIONS, t->tid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE) == 0)
		return NULL;
	return failed(t, "PTRACE_SETOPTIONS");
}

struct err *tracee__cloned(struct tracee *t, struct tracee *out)
{
	unsigned long tid = 0;
	if (call(PTRACE_GETEVENTMSG, t->tid, 0, (uintptr_t)&tid) < 0)
		return failed(t, "PTRACE_GETEVENTMSG");
	*out = (struct tracee){.p = t->p, .tid = (pid_t)tid, .state = TRACEE_RUNNING};
	return NULL;
}

/* struct rseq and struct rseq_cs of linux/rseq.h, by offset: the header's own types have grown. */
struct err *tracee__in_rseq(struct tracee *t, bool *out)
{
	struct ptrace_rseq_configuration c = {0};
	*out = false;
	if (call(PTRACE_GET_RSEQ_CONFIGURATION, t->tid, sizeof(c), (uintptr_t)&c) < 0) {
		if (errno == EIO || errno == EINVAL)
			return NULL; /* a kernel without rseq(2) */
		return failed(t, "PTRACE_GET_RSEQ_CONFIGURATION");
	}
	if (!c.rseq_abi_pointer)
		return NULL;
	struct {
		uint32_t version, flags;
		uint64_t start_ip, post_commit_offset, abort_ip;
	} cs;
	uint64_t cs_at = 0;
	TRY(process__read(t->p, taddr(c.rseq_abi_pointer + 8), &cs_at, sizeof(cs_at)));
	if (!cs_at)
		return NULL;
	TRY(process__read(t->p, taddr(cs_at), &cs, sizeof(cs)));
	*out = arch_regs__pc(&t->regs).v - cs.start_ip < cs.post_commit_offset;
	return NULL;
}

bool tracee__dispatches_syscalls(struct tracee *t)
{
	/* struct ptrace_sud_config, Linux 6.4; before that it cannot be asked */
	struct {
		uint64_t mode, selector, offset, len;
	} c = {0};
	const int get_syscall_user_dispatch_config = 0x4211;
	return call(get_syscall_user_dispatch_config, t->tid, sizeof(c), (uintptr_t)&c) == 0 && c.mode != 0;
}

struct err *tracee__seccomp_filter(struct tracee *t, unsigned index, void **out, size_t *n)
{
	*out = NULL;
	*n = 0;
	long len = call(PTRACE_SECCOMP_GET_FILTER, t->tid, index, 0);
	if (len < 0 && errno == ENOENT)
		return NULL;
	if (len > 0) {
		*out = xcalloc((size_t)len, sizeof(struct sock_filter));
		if (call(PTRACE_SECCOMP_GET_FILTER, t->tid, index, (uintptr_t)*out) == len) {
			*n = (size_t)len;
			return NULL;
		}
		free(*out);
		*out = NULL;
	}
	int e = errno;
	if (e == ESRCH)
		return failed(t, "PTRACE_SECCOMP_GET_FILTER");
	return process__err(t->p, t->tid, ERR_REFUSED, e, "run as root (CAP_SYS_ADMIN)",
			    "its seccomp filter cannot be read");
}
