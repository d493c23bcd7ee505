/* Borrowing a thread (see borrow.h and, for the memory used, hand.h). What is said of the clone goes for calls of the
 * thread's own as well; then pads are instructions of the C library's, and the frame lies in pages of its stack that it
 * never touched.
 *
 * Which thread: one that runs, else one asleep in a call that can be made again from its registers
 * (restart.h). A thread whose call only the kernel can continue (a restart block) is never borrowed
 * in it; when there are no others, all of those are watched until the first one leaves its call.
 *
 * What happens to it. At each step the tool may be killed; then the thread goes on as the right-hand column says,
 * and ends where it was, because the frame is complete before the first register is changed:
 *
 *     stopped in the kernel's signal code        goes on
 *     frame and the hand's stack are written     goes on; the scratch memory means nothing to it
 *     registers: clone(2) at the system call pad clones; the child exits by itself; `ret` leads to the
 *                                                sigreturn pad, which restores registers and signal mask
 *     signals blocked                            the same
 *     clone: entry, event, exit                  the same
 *     entry of rt_sigreturn                      the same
 *     stopped in the signal code again, home     it is home, with cooked registers
 *     raw registers, if they differ              goes on
 *     detached
 *
 * The way home is the thread's own rt_sigreturn(2) in every case, so that signals are let in again at
 * the very moment it is home. The raw registers at the end make the kernel decide what becomes of an interrupted
 * call when a signal has come meanwhile: made again or EINTR.
 */
#include "inject/borrow.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/fault.h"
#include "base/vec.h"
#include "inject/clock.h"
#include "inject/pages.h"
#include "inject/place.h"
#include "inject/proc.h"
#include "inject/restart.h"
#include "inject/seccomp.h"
#include "inject/thread_stack.h"

enum {
	STOP_MS = 20,   /* for a thread to stop */
	STEP_MS = 2000, /* for a step of the surgery, of which none can block */
	ROUND_MS = 10,  /* between looks for a better candidate, the first time */
	ROUND_MAX_MS = 100,
	POLL_MS = 20, /* should a stop not be heard of */
	HAND_STACK = 4096,
	RED_ZONE = 128,      /* psABI 3.2.2 */
	STACK_PAGES = 16384, /* of a stack, from its lowest on, that are looked at */
	FRAME_PAGES = ARCH_SIGFRAME_MAX / LLU_PAGE + 1,
	BELOW_PAGES = 16,    /* room for the frame of a signal that comes when the tool was killed */
	TEXT_MAX = 64 << 20, /* of a C library */
};

/* What a thread is borrowed for: to make the hand, or calls of its own. */
struct errand {
	const struct hand_place *place; /* NULL: calls */
	struct tracee *hand;
	struct arch_batch_entry *calls;
	size_t n;
	const struct borrow_plain *plain; /* may be NULL */
	taddr_t syscall_at, sigreturn_at; /* the instructions */
};

taddr_t borrow__hand_stack(const struct hand_place *place)
{
	return taddr_add(place->scratch, HAND_STACK - 64);
}

/* --- one thread --- */

/* Why a stopped thread may not be borrowed; NULL if it may. ERR_RETRY: at another moment perhaps. */
static struct err *eligible(struct tracee *t, const struct errand *x)
{
	char path[40];
	char status[8192];
	bool in_rseq = false;
	if (x->place && place__has(x->place, arch_regs__pc(&t->regs), arch_regs__sp(&t->regs)))
		return process__err(t->p, t->tid, ERR_RETRY, 0, NULL,
				    "it is in the hands of an llvupdate that was killed");
	if (!restart__borrowable(&t->regs))
		return process__err(t->p, t->tid, ERR_RETRY, 0, NULL, "it waits in a system call with a timeout");
	TRY(tracee__in_rseq(t, &in_rseq));
	if (in_rseq)
		return process__err(t->p, t->tid, ERR_RETRY, 0, NULL, "it is in a restartable sequence");
	if (tracee__dispatches_syscalls(t))
		return process__err(t->p, t->tid, ERR_REFUSED, 0, NULL, "it dispatches system calls itself");
	snprintf(path, sizeof(path), "task/%d/status", t->tid);
	if (proc_read(t->p->dirfd, path, status, sizeof(status)) < 0)
		return process__err(t->p, t->tid, ERR_GONE, 0, NULL, "its status cannot be read");
	if (arch_shadow_stack__on(status))
		return process__err(t->p, t->tid, ERR_REFUSED, 0, NULL, "it uses a shadow stack");
	return seccomp__check(t->p, t->tid, hand_syscalls);
}

/* How many of the lowest pages of `m` must not have been touched for a frame to be put there; 0 if `m` is not the stack
 * that the C library made for the thread, with a guard (nptl/allocatestack.c), or the kernel for the first one, which
 * grows by itself. Below one that the program made itself there may be anything, and another thread's is that one's. */
static size_t pages_wanted(const struct mapping *m, const struct tracee *t)
{
	const int rw = PROT_READ | PROT_WRITE;
	struct trange stack;
	uint64_t guard;
	if ((m->prot & rw) != rw || m->shared)
		return 0;
	if (strcmp(m->path, "[stack]") == 0)
		return t->tid == process__pid(t->p) ? FRAME_PAGES : 0;
	bool own = thread_stack__of(t->p, arch_regs__thread_pointer(&t->regs), &stack, &guard) && guard &&
		   stack.start.v == m->range.start.v;
	return own ? FRAME_PAGES + BELOW_PAGES : 0;
}

/* Where on its own stack there is room for the frame: in pages below all that were ever touched. What is right below
 * its stack pointer may be somebody's, when that is in an array: of a frame, or in thread-local memory. The first
 * thread's stack has grown just to where it was touched: there `plain` is asked when no page is left. */
static struct err *room_on_stack(struct tracee *t, const struct borrow_plain *plain, taddr_t *at)
{
	struct mappings maps;
	TRY(process__maps(t->p, &maps));
	taddr_t sp = arch_regs__sp(&t->regs), start = taddr(0);
	const struct mapping *m = mappings__at(&maps, sp);
	size_t wanted = m ? pages_wanted(m, t) : 0;
	if (wanted)
		start = m->range.start;
	mappings__free(&maps);
	uint8_t pages[STACK_PAGES];
	size_t n = wanted ? (sp.v - start.v) / LLU_PAGE : 0, untouched = 0;
	n = n < STACK_PAGES ? n : STACK_PAGES;
	if (n)
		TRY(process__pages(t->p, start, n, pages));
	while (untouched < n && !(pages[untouched] & (PAGE_THERE | PAGE_SWAPPED)))
		untouched++;
	uint64_t below = RED_ZONE + ARCH_SIGFRAME_MAX + 64;
	if (wanted && untouched >= wanted)
		sp = taddr(start.v + untouched * LLU_PAGE);
	else if (!wanted || t->tid != process__pid(t->p) || sp.v - start.v < below || !plain ||
		 !plain->is_plain(plain->arg, t->p, &t->regs))
		return process__err(t->p, t->tid, ERR_RETRY, 0, NULL,
				    "it has no room on its stack, or is on one that is not its own");
	*at = taddr(align_down(sp.v - RED_ZONE - ARCH_SIGFRAME_MAX, 64));
	return NULL;
}

/* Writes what the thread finds on its way home, to *at; on its own stack *there is what was there before. */
static struct err *write_frame(struct tracee *t, const struct errand *x, const struct arch_regs *cooked, uint8_t *there,
			       taddr_t *at, taddr_t *sp)
{
	uint64_t mask = 0;
	FREE_CLEANUP uint8_t *xstate = NULL;
	size_t len = 0;
	TRY(tracee__sigmask(t, &mask));
	TRY(tracee__xstate(t, &xstate, &len));
	FREE_CLEANUP uint8_t *frame = xcalloc(1, ARCH_SIGFRAME_MAX);
	if (x->place)
		*at = taddr_add(x->place->scratch, x->place->scratch_len - ARCH_SIGFRAME_MAX);
	else
		TRY(room_on_stack(t, x->plain, at));
	const char *why =
	    arch_sigframe__write(frame, ARCH_SIGFRAME_MAX, *at, cooked, mask, xstate, len, x->sigreturn_at, sp);
	if (why)
		return process__err(t->p, t->tid, ERR_REFUSED, 0, NULL, "%s", why);
	if (there)
		TRY(process__read(t->p, *at, there, ARCH_SIGFRAME_MAX));
	return process__write(t->p, *at, frame, ARCH_SIGFRAME_MAX);
}

/* Runs to the next stop that matters: of the system-call kind, or the end. Stops by job control
 * do not: the thread is let on, and stands still where the rest does once it is detached. */
static struct err *step(struct tracee *t)
{
	uint64_t deadline = clock_deadline(STEP_MS);
	do {
		tracee__cont_to_syscall(t);
		TRY(tracee__wait(t, deadline));
	} while (t->state == TRACEE_TRAPPED || t->state == TRACEE_GROUP || t->state == TRACEE_SIGNALLED ||
		 t->state == TRACEE_OTHER);
	if (t->state == TRACEE_GONE)
		return process__err(t->p, t->tid, ERR_GONE, 0, NULL, "it ended while it was borrowed");
	if (t->state == TRACEE_RUNNING)
		return process__err(t->p, t->tid, ERR_SURGERY, 0, NULL,
				    "it did not come back from a system call in time");
	return NULL;
}

/* Has the thread make the call that its registers are set for; *result is its result. */
static struct err *run_call(struct tracee *t, struct tracee *hand, int64_t *result)
{
	for (;;) {
		TRY(step(t));
		if (t->state == TRACEE_CLONED && hand)
			TRY(tracee__cloned(t, hand));
		if (t->state != TRACEE_EXIT)
			continue;
		*result = arch_regs__result(&t->regs);
		/* -ERESTARTNOINTR: a stop by job control came; the kernel makes the call again */
		if (*result > -KERNEL_ERESTARTSYS || *result < -KERNEL_ERESTART_RESTARTBLOCK)
			return NULL;
	}
}

/* From the exit of the clone to where it was. */
static struct err *go_home(struct tracee *t, const struct arch_regs *raw, const struct arch_regs *cooked)
{
	TRY(step(t));
	if (t->state != TRACEE_ENTRY || arch_regs__syscall(&t->regs) != SYS_rt_sigreturn)
		return process__err(t->p, t->tid, ERR_SURGERY, 0, NULL,
				    "it did not take the way home that was laid for it");
	tracee__interrupt(t);
	tracee__cont(t);
	TRY(tracee__wait(t, clock_deadline(STEP_MS)));
	if (t->state == TRACEE_GONE)
		return process__err(t->p, t->tid, ERR_GONE, 0, NULL, "it ended while it was borrowed");
	bool in_signal_code = t->state == TRACEE_TRAPPED || t->state == TRACEE_GROUP;
	if (in_signal_code && !arch_regs__equal(raw, cooked) && arch_regs__equal(&t->regs, cooked))
		TRY(tracee__set_regs(t, raw));
	return NULL;
}

/* The first call of an errand, as registers and memory. */
static struct err *prepare_call(struct tracee *t, const struct errand *x, struct arch_batch_entry *first)
{
	TRY(tracee__follow(t));
	if (!x->place) {
		*first = x->calls[0];
		return NULL;
	}
	taddr_t stack = borrow__hand_stack(x->place);
	uint64_t exit_pad = x->place->pads.v + ARCH_PAD_EXIT;
	first->nr = SYS_clone;
	arch_clone__args(first->arg, HAND_CLONE_FLAGS, stack);
	if (fault__call(SYS_clone, &first->result))
		first->arg[0] = CLONE_THREAD; /* which the kernel refuses */
	x->hand->tid = 0;
	return process__write(t->p, stack, &exit_pad, sizeof(exit_pad));
}

/* The calls behind the first, as long as none fails. */
static struct err *run_others(struct tracee *t, const struct errand *x, struct arch_regs *away, taddr_t sp)
{
	for (size_t i = 1; i < x->n && x->calls[i - 1].result >= 0; i++) {
		struct arch_batch_entry *c = &x->calls[i];
		if (fault__call(c->nr, &c->result))
			continue;
		arch_regs__make_call(away, x->syscall_at, sp, c->nr, c->arg);
		TRY(tracee__set_regs(t, away));
		TRY(run_call(t, NULL, &c->result));
	}
	return NULL;
}

/* What became of the clone. */
static struct err *check_hand(const struct tracee *t, const struct errand *x, int64_t result)
{
	if (result < 0)
		return process__err(t->p, 0, ERR_SYSTEM, (int)-result,
				    "raise the limit of processes (pids.max, RLIMIT_NPROC)",
				    "no thread could be made in it");
	if (!x->hand->tid) /* its number differs from the result in another PID namespace */
		return process__err(t->p, 0, ERR_SURGERY, 0, NULL, "the thread made in it is not under control");
	return NULL;
}

/* Borrows a stopped thread that is eligible(). It is detached in any case; *home says whether it is known
 * to be where it was. */
static struct err *borrow(struct tracee *t, const struct errand *x, bool *home)
{
	const struct arch_regs raw = t->regs;
	struct arch_regs cooked = raw;
	FREE_CLEANUP uint8_t *there = x->place ? NULL : xmalloc(ARCH_SIGFRAME_MAX);
	taddr_t at = {0};
	struct arch_regs away = raw;
	struct arch_batch_entry first = {0};
	taddr_t sp = {0};
	int64_t result = 0;

	arch_regs__cook(&cooked);
	struct err *e = write_frame(t, x, &cooked, there, &at, &sp);
	if (!e)
		e = prepare_call(t, x, &first);
	arch_regs__make_call(&away, x->syscall_at, sp, first.nr, first.arg);
	if (!e)
		e = tracee__set_regs(t, &away);
	if (e) {
		tracee__detach(t); /* nothing has changed for it */
		return e;
	}
	*home = false;
	e = tracee__set_sigmask(t, ~0ull);
	if (!e)
		e = run_call(t, x->hand, &result);
	if (!e && !x->place) {
		x->calls[0].result = result;
		e = run_others(t, x, &away, sp);
	}
	if (!e)
		e = go_home(t, &raw, &cooked);
	*home = e == NULL;
	if (!e && there)
		e = process__write(t->p, at, there, ARCH_SIGFRAME_MAX);
	/* After an error too: what it has is the way home. */
	(void)tracee__release(t, clock_deadline(STEP_MS));
	if (!e && x->place)
		e = check_hand(t, x, result);
	if (e && x->hand && x->hand->tid)
		(void)tracee__release(x->hand, clock_deadline(STEP_MS));
	return e;
}

/* --- choosing --- */

struct search {
	const struct process *p;
	const struct errand *errand;
	uint64_t deadline;
	struct err *why; /* the last reason why a thread could not be borrowed */
	bool refused;    /* some thread can never be borrowed */
	bool home;       /* no thread is away, or may be */
	uint64_t since;  /* when the last thread was stopped, for the trace */
	VEC(struct tracee) watched;
};

static void remember(struct search *s, struct err *why)
{
	/* a refusal says more than "not now" */
	if (s->why && s->refused && err__kind(why) != ERR_REFUSED) {
		err__free(why);
		return;
	}
	s->refused = s->refused || err__kind(why) == ERR_REFUSED;
	err__free(s->why);
	s->why = why;
}

/* Errors that end the search at once. */
static bool fatal(const struct err *e)
{
	enum err_kind k = err__kind(e);
	return k != ERR_RETRY && k != ERR_REFUSED && k != ERR_GONE;
}

static void trace_borrowed(const struct search *s, pid_t tid, const struct err *e)
{
	struct trace_event x = {.pid = s->p->pid,
				.tid = tid,
				.name = "borrowed",
				.start = s->since,
				.end = trace__now(),
				.args = {{.key = "for", .text = s->errand->place ? "the hand" : "calls of its own"}}};
	if (e)
		x.args[1] = (struct trace_arg){.key = "why", .text = err__text(e)};
	trace__add(s->p->trace, &x);
}

/* Borrows the stopped `t` if it is eligible: *done. Otherwise it is still stopped, and the reason
 * remembered. */
static struct err *try_stopped(struct search *s, struct tracee *t, bool *done)
{
	struct err *e = eligible(t, s->errand);
	if (e && fatal(e))
		return e;
	if (e) {
		remember(s, e);
		return NULL;
	}
	e = borrow(t, s->errand, &s->home);
	*done = e == NULL;
	trace_borrowed(s, t->tid, e);
	if (e && err__kind(e) == ERR_RETRY && s->home) { /* nothing was done to it */
		remember(s, e);
		return NULL;
	}
	if (e && err__kind(e) == ERR_GONE && !(s->errand->hand && s->errand->hand->tid)) {
		ERR_CLEANUP struct err *end = process__alive(s->p);
		if (!end) { /* only that thread is gone */
			remember(s, e);
			return NULL;
		}
	}
	return e;
}

/* Stops `tid`. *t is stopped afterwards, or TRACEE_GONE when there is nothing to be done with it. */
static struct err *catch (struct search *s, pid_t tid, struct tracee *t)
{
	struct err *e = tracee__seize(s->p, tid, t);
	if (e && err__kind(e) == ERR_GONE) {
		t->state = TRACEE_GONE;
		remember(s, e);
		return NULL;
	}
	TRY(e);
	s->since = trace__now();
	tracee__interrupt(t);
	e = tracee__wait(t, clock_deadline(STOP_MS));
	if (!e && t->state == TRACEE_TRAPPED)
		return NULL;
	if (!e && t->state == TRACEE_GROUP)
		e = process__err(s->p, tid, ERR_RETRY, 0, "continue it", "it is stopped by job control");
	else if (!e && t->state == TRACEE_RUNNING)
		remember(s, process__err(s->p, tid, ERR_RETRY, 0, NULL, "it cannot be stopped"));
	else if (!e)
		remember(s, process__err(s->p, tid, ERR_RETRY, 0, NULL, "it was about to receive a signal, or to end"));
	if (!tracee__release(t, clock_deadline(STEP_MS)) && !e)
		e = process__err(s->p, tid, ERR_RETRY, 0, "end llvupdate if the thread stays stopped",
				 "it could be neither stopped nor let go");
	t->state = TRACEE_GONE;
	return e;
}

static struct err *try_thread(struct search *s, pid_t tid, bool *done)
{
	struct tracee t;
	TRY(catch (s, tid, &t));
	if (t.state == TRACEE_GONE)
		return NULL;
	struct err *e = try_stopped(s, &t, done);
	tracee__detach(&t); /* unless that has happened */
	return e;
}

static bool is_watched(const struct search *s, pid_t tid)
{
	for (size_t i = 0; i < s->watched.n; i++)
		if (s->watched.items[i].tid == tid)
			return true;
	return false;
}

/* 0: runs; 1: asleep in a call that can be made again; 2: in one that the kernel alone can continue;
 * 3: not to be touched. */
static int rank(const struct search *s, const struct thread_view *v)
{
	if (v->io_worker || is_watched(s, v->tid))
		return 3;
	if (v->state == THREAD_RUNNING)
		return 0;
	if (v->state != THREAD_SLEEPING || !v->at_rest || v->nr < 0)
		return 3;
	switch (restart__class(s->p, v)) {
	case RESTART_EXACT:
		return 1;
	case RESTART_BLOCK:
		return 2;
	default:
		return 3;
	}
}

/* A thread in a call with a restart block is sent back into it, and is to stop when it leaves it. */
static struct err *watch(struct search *s, pid_t tid, bool *done)
{
	struct tracee t;
	TRY(catch (s, tid, &t));
	if (t.state == TRACEE_GONE)
		return NULL;
	/* it may have left the call already; if not, this notes why it is not borrowed */
	struct err *e = try_stopped(s, &t, done);
	if (*done || t.state == TRACEE_GONE)
		return e;
	if (!e)
		e = tracee__follow(&t);
	if (e) {
		tracee__detach(&t);
		return e;
	}
	tracee__cont_to_syscall(&t);
	vec__push(&s->watched, t);
	return NULL;
}

static struct err *poll_watched(struct search *s, bool *done)
{
	for (size_t i = 0; i < s->watched.n && !*done; i++) {
		struct tracee *t = &s->watched.items[i];
		if (t->state == TRACEE_GONE)
			continue;
		s->since = trace__now();
		TRY(tracee__poll(t));
		if (t->state == TRACEE_RUNNING || t->state == TRACEE_GONE)
			continue;
		int64_t result = arch_regs__result(&t->regs);
		bool ended = result > -KERNEL_ERESTARTSYS || result < -KERNEL_ERESTART_RESTARTBLOCK;
		if (t->state == TRACEE_EXIT && ended)
			TRY(try_stopped(s, t, done));
		if (t->state != TRACEE_GONE)
			tracee__cont_to_syscall(t);
	}
	return NULL;
}

static struct err *unwatch(struct search *s)
{
	struct err *e = NULL;
	for (size_t i = 0; i < s->watched.n; i++) {
		struct tracee *t = &s->watched.items[i];
		if (!tracee__release(t, clock_deadline(STEP_MS)) && !e)
			e = process__err(s->p, t->tid, ERR_RETRY, 0, "end llvupdate if the thread stays stopped",
					 "it could not be let go");
	}
	vec__free(&s->watched);
	return e;
}

/* One pass over all threads. */
static struct err *one_round(struct search *s, bool *done)
{
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0;
	TRY(process__threads(s->p, &tids, &n));
	FREE_CLEANUP struct thread_view *views = xcalloc(n, sizeof(*views));
	for (size_t i = 0; i < n; i++) {
		TRY(process__look(s->p, tids[i], &views[i]));
		if (views[i].state != THREAD_STOPPED || is_watched(s, tids[i]))
			continue;
		if (views[i].traced)
			return process__err(s->p, tids[i], ERR_BUSY, 0, "let the other tracer finish",
					    "it is traced by another process (a debugger?)");
		return process__err(s->p, tids[i], ERR_RETRY, 0, "continue it", "it is stopped by job control");
	}
	for (int r = 0; r <= 2 && !*done; r++)
		for (size_t i = 0; i < n && !*done; i++)
			if (rank(s, &views[i]) == r)
				TRY(r == 2 ? watch(s, tids[i], done) : try_thread(s, tids[i], done));
	return NULL;
}

/* Until one of those that are watched has left its call, and did what is asked for, or it is time to look round. */
static struct err *wait_for_watched(struct search *s, uint64_t until, bool *done)
{
	sigset_t before;
	struct err *e = NULL;
	tracee__listen(&before);
	for (;;) {
		e = poll_watched(s, done);
		uint64_t now = clock_ns();
		if (e || *done || now >= until)
			break;
		tracee__sleep(until - now < POLL_MS * 1000000ULL ? until - now : POLL_MS * 1000000ULL);
	}
	tracee__unlisten(&before);
	return e;
}

static struct err *search(struct search *s)
{
	bool done = false;
	for (int round_ms = ROUND_MS;; round_ms = round_ms < ROUND_MAX_MS / 2 ? round_ms * 2 : ROUND_MAX_MS) {
		TRY(process__alive(s->p));
		TRY(one_round(s, &done));
		if (done)
			return NULL;
		if (s->refused && s->watched.n == 0)
			break;
		TRY(wait_for_watched(s, clock_deadline(round_ms), &done));
		if (done)
			return NULL;
		if (clock_ns() >= s->deadline)
			break;
	}
	struct err *why = s->why;
	s->why = NULL;
	if (!why)
		why = process__err(s->p, 0, ERR_RETRY, 0, NULL,
				   "all its threads wait in calls that cannot be interrupted");
	return why;
}

struct err *borrow__clone(const struct process *p, const struct hand_place *place, int timeout_ms, struct tracee *hand)
{
	const struct errand x = {.place = place,
				 .hand = hand,
				 .syscall_at = taddr_add(place->pads, ARCH_PAD_SYSCALL),
				 .sigreturn_at = taddr_add(place->pads, ARCH_PAD_SIGRETURN)};
	struct search s = {.p = p, .errand = &x, .deadline = clock_deadline(timeout_ms), .home = true};
	hand->tid = 0;
	TRY(place__claim(p, place, s.deadline));
	struct err *e = search(&s);
	struct err *e2 = unwatch(&s);
	err__free(s.why);
	if (e && s.home && !hand->tid)
		place__release(p, place);
	if (e2 && !e)
		(void)tracee__release(hand, clock_deadline(STEP_MS));
	if (e)
		err__free(e2);
	else
		e = e2;
	TRY(e);
	e = tracee__wait(hand, clock_deadline(STEP_MS));
	if (!e && hand->state == TRACEE_GONE)
		e = process__err(p, 0, ERR_GONE, 0, NULL, "the thread made in it ended (exit or exec)");
	if (!e && hand->state == TRACEE_RUNNING)
		e = process__err(p, 0, ERR_SURGERY, 0, NULL, "the thread made in it does not start");
	if (e)
		(void)tracee__release(hand, clock_deadline(STEP_MS));
	return e;
}

/* --- calls of its own --- */

/* By its file's name: one of ours that begins so may be on its way out. */
static bool is_libc(const struct mapping *m)
{
	const char *slash = strrchr(m->path, '/');
	return slash && strcmp(slash, "/libc.so.6") == 0;
}

/* Looks for the bytes in libc's code. */
static struct err *find_bytes(const struct process *p, const struct mappings *maps, const uint8_t *bytes, size_t n,
			      taddr_t *out)
{
	*out = taddr(0);
	for (size_t i = 0; i < maps->n && !out->v; i++) {
		const struct mapping *m = &maps->items[i];
		size_t len = m->range.end.v - m->range.start.v;
		if (!(m->prot & PROT_EXEC) || !m->inode || m->shared || !is_libc(m) || len > TEXT_MAX)
			continue;
		FREE_CLEANUP uint8_t *code = xmalloc(len);
		TRY(process__read(p, m->range.start, code, len));
		const uint8_t *found = memmem(code, len, bytes, n);
		if (found)
			*out = taddr_add(m->range.start, (uint64_t)(found - code));
	}
	return NULL;
}

static struct err *find_instructions(const struct process *p, struct errand *x)
{
	struct mappings maps;
	size_t n_call, n_return;
	const uint8_t *call = arch_code__syscall_ret(&n_call), *way = arch_code__sigreturn(&n_return);
	TRY(process__maps(p, &maps));
	struct err *e = find_bytes(p, &maps, call, n_call, &x->syscall_at);
	if (!e)
		e = find_bytes(p, &maps, way, n_return, &x->sigreturn_at);
	mappings__free(&maps);
	if (!e && (!x->syscall_at.v || !x->sigreturn_at.v))
		e = process__err(p, 0, ERR_REFUSED, 0, NULL,
				 "its C library does not have the instructions that are needed to make a call in it");
	return e;
}

struct err *borrow__calls(const struct process *p, struct arch_batch_entry *calls, size_t n,
			  const struct borrow_plain *plain, int timeout_ms)
{
	struct errand x = {.calls = calls, .n = n, .plain = plain};
	struct search s = {.p = p, .errand = &x, .deadline = clock_deadline(timeout_ms), .home = true};
	for (size_t i = 0; i < n; i++)
		calls[i].result = -EINTR; /* not made */
	TRY(find_instructions(p, &x));
	uint64_t since = trace__now();
	trace__hold(p->trace);
	struct err *e = search(&s);
	struct err *e2 = unwatch(&s);
	trace__let_go(p->trace);
	hand__trace_batch(p, calls, e ? 0 : n, trace__now(), "a borrowed thread");
	process__did(p, "have a thread make calls", since, e, (struct trace_arg){0});
	err__free(s.why);
	if (e)
		err__free(e2);
	return e ? e : e2;
}
