/* A thread under ptrace(2). tracee.c is the only file of the product that calls it.
 *
 * Always PTRACE_SEIZE, never PTRACE_ATTACH: no signal is sent. Of what ptrace offers, only that is
 * used which leaves the thread running and correct when the tool is killed at any instant (law 1,
 * docs/design.md): no debug register, no single step, no breakpoint, no PTRACE_O_SUSPEND_SECCOMP,
 * no PTRACE_O_EXITKILL. ptrace binds to the thread of the tool that seizes; all calls for one
 * tracee come from that thread.
 */
#ifndef LLU_INJECT_TRACEE_H
#define LLU_INJECT_TRACEE_H

#include <signal.h>

#include "inject/arch.h"
#include "inject/process.h"

enum tracee_state {
	TRACEE_RUNNING,
	TRACEE_TRAPPED,   /* stopped by tracee__interrupt(), in the kernel's signal code */
	TRACEE_SIGNALLED, /* stopped in the signal code, about to receive a signal */
	TRACEE_GROUP,     /* in a group-stop (job control), in the signal code */
	TRACEE_ENTRY,     /* at the entry of a system call */
	TRACEE_EXIT,      /* at its exit */
	TRACEE_CLONED,    /* in a clone(2) that has made a thread */
	TRACEE_OTHER,     /* stopped for a reason that nobody asked for */
	TRACEE_GONE,      /* ended; reaped */
};

struct tracee {
	const struct process *p;
	pid_t tid;
	enum tracee_state state;
	int signal;            /* TRACEE_SIGNALLED: what it is about to receive */
	struct arch_regs regs; /* as of the last stop, mended (restart.h) */
};

/* Errors: ERR_GONE (no such thread, or it is a zombie), ERR_BUSY (traced by another), ERR_PERMISSION. */
MUST_CHECK struct err *tracee__seize(const struct process *p, pid_t tid, struct tracee *out);
/* Asks a running tracee to stop. The answer comes with tracee__wait(). */
void tracee__interrupt(struct tracee *t);
/* Waits until `deadline` (clock.h) for a stop or the end of a running tracee and says what came in
 * t->state; TRACEE_RUNNING if nothing did. At a stop the registers are read, and a system call that
 * the stop made fail is mended. Errors: ERR_SYSTEM. */
MUST_CHECK struct err *tracee__wait(struct tracee *t, uint64_t deadline);
/* The same without waiting. */
MUST_CHECK struct err *tracee__poll(struct tracee *t);

/* For who polls several: from tracee__listen() to tracee__unlisten() no stop is missed between a look and the sleep
 * that follows. A stop announces itself by SIGCHLD (ptrace(2)), which is held back meanwhile. */
void tracee__listen(sigset_t *before);
/* Until something stopped since the last sleep, or `ns` are over (less than a second). */
void tracee__sleep(uint64_t ns);
void tracee__unlisten(const sigset_t *before);
/* Lets a stopped tracee go on, with the signal it was about to receive. */
void tracee__cont(struct tracee *t);
/* The same, up to the next entry or exit of a system call. */
void tracee__cont_to_syscall(struct tracee *t);
/* Lets a stopped tracee go for good, with its signal; a group-stop goes on (kernel/ptrace.c,
 * __ptrace_unlink). */
void tracee__detach(struct tracee *t);
/* For a tracee in any state: gets it stopped if need be (waiting until `deadline`) and detaches it.
 * False if it did not stop; then it is let go when the tool ends. */
bool tracee__release(struct tracee *t, uint64_t deadline);

/* All of these are for stopped tracees; errors: ERR_GONE, ERR_SYSTEM. */
MUST_CHECK struct err *tracee__set_regs(struct tracee *t, const struct arch_regs *r);
MUST_CHECK struct err *tracee__sigmask(struct tracee *t, uint64_t *out);
MUST_CHECK struct err *tracee__set_sigmask(struct tracee *t, uint64_t mask);
/* Reads the extended state; the caller frees *out. */
MUST_CHECK struct err *tracee__xstate(struct tracee *t, uint8_t **out, size_t *len);
/* Reports entries and exits of system calls as such, and attaches the threads it clones. */
MUST_CHECK struct err *tracee__follow(struct tracee *t);
/* After TRACEE_CLONED: the new thread, already attached; it is about to stop for the first time. */
MUST_CHECK struct err *tracee__cloned(struct tracee *t, struct tracee *out);
/* Is the thread inside a restartable sequence (rseq(2))? */
MUST_CHECK struct err *tracee__in_rseq(struct tracee *t, bool *out);
/* Does it dispatch its own system calls (prctl(2), PR_SET_SYSCALL_USER_DISPATCH)? */
bool tracee__dispatches_syscalls(struct tracee *t);
/* One seccomp filter, the last installed first: its instructions (struct sock_filter; caller frees *out), n 0
 * behind the last. Errors: ERR_REFUSED when it cannot be read. */
MUST_CHECK struct err *tracee__seccomp_filter(struct tracee *t, unsigned index, void **out, size_t *n);

#endif
