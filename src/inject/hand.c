/* The hand at work (see hand.h): system calls one by one, or a batch in one go. */
#include "inject/hand.h"

#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/fault.h"
#include "inject/borrow.h"
#include "inject/clock.h"
#include "inject/mqueue.h"
#include "inject/place.h"
#include "inject/proc.h"
#include "inject/tracee.h"
#include "inject/urgent.h"

enum {
	HAND_DATA_AT = 4096, /* in the scratch memory, above the hand's stack */
	CALL_MS = 10000,     /* for one call, or a batch: a file system may be slow */
};

struct hand {
	const struct process *p;
	struct hand_place place;
	struct tracee t;
	struct arch_regs at_rest; /* registers that the next call starts from */
	bool loaded, withheld;
	int64_t first; /* number of the first call of a batch that is withheld */
};

const int hand_syscalls[] = {
    SYS_clone, SYS_rt_sigreturn, SYS_openat, SYS_mmap, SYS_mremap, SYS_munmap, SYS_mprotect, SYS_close, SYS_exit, -1,
};

/* The hand inherits how the borrowed thread is scheduled (clone(2), sched(7)). Beside real-time threads that never
 * sleep, on the processor that they are bound to, it would never run. Where that may not be changed it stays so. */
static void schedule(pid_t tid)
{
	cpu_set_t all;
	const struct sched_param none = {0};
	memset(&all, 0xff, sizeof(all));
	(void)sched_setaffinity(tid, sizeof(all), &all);
	(void)sched_setscheduler(tid, SCHED_OTHER, &none);
}

/* One call: by whom it is made says `by`. */
static void trace_call(const struct process *p, int64_t nr, int64_t result, uint64_t start, uint64_t end,
		       struct trace_arg by)
{
	const char *name = arch_syscall__name(nr);
	struct trace_event e = {.pid = process__pid(p),
				.name = name ? name : "a system call",
				.start = start,
				.end = end,
				.args = {{.key = "result", .number = result}, by}};
	trace__add(process__trace(p), &e);
}

void hand__trace_batch(const struct process *p, const struct arch_batch_entry *calls, size_t n, uint64_t when,
		       const char *by)
{
	for (size_t i = 0; i < n; i++)
		trace_call(p, calls[i].nr, calls[i].result, when, 0, (struct trace_arg){.key = "by", .text = by});
}

struct err *hand__raise(const struct process *p, const struct hand_place *place, int timeout_ms, struct hand **out)
{
	uint64_t since = trace__now();
	TRY(mqueue__check(p));
	struct hand *h = xcalloc(1, sizeof(*h));
	h->p = p;
	h->place = *place;
	trace__hold(p->trace);
	urgent__begin();
	struct err *e = borrow__clone(p, place, timeout_ms, &h->t);
	urgent__end();
	trace__let_go(p->trace);
	process__did(p, "raise the hand", since, e, (struct trace_arg){.key = "hand", .number = h->t.tid});
	if (e) {
		free(h);
		return e;
	}
	schedule(h->t.tid);
	h->at_rest = h->t.regs;
	e = hand__forget_batch(h);
	if (e) {
		hand__dismiss(h);
		return e;
	}
	*out = h;
	return NULL;
}

struct err *hand__await_place(const struct process *p, const struct hand_place *place, int timeout_ms)
{
	return place__await(p, place, clock_deadline(timeout_ms));
}

struct err *hand__await_range(const struct process *p, struct trange r, int timeout_ms)
{
	return place__await_range(p, r, clock_deadline(timeout_ms));
}

pid_t hand__tid(const struct hand *h)
{
	return h->t.tid;
}

taddr_t hand__thread_pointer(const struct hand *h)
{
	return arch_regs__thread_pointer(&h->at_rest);
}

taddr_t hand__data(const struct hand *h)
{
	return taddr_add(h->place.scratch, HAND_DATA_AT);
}

static struct err *gone(const struct hand *h)
{
	TRY(process__alive(h->p));
	return process__err(h->p, h->t.tid, ERR_GONE, 0, NULL,
			    "the hand is gone: the process is ending or executing a program");
}

/* Waits for a stop of the system-call kind or the end. Stops by job control are passed over: the hand is not
 * the program, and the program's threads stay stopped without it. */
static struct err *wait_for_step(struct hand *h)
{
	uint64_t deadline = clock_deadline(CALL_MS);
	for (;;) {
		TRY(tracee__wait(&h->t, deadline));
		switch (h->t.state) {
		case TRACEE_ENTRY:
		case TRACEE_EXIT:
		case TRACEE_GONE:
			return NULL;
		case TRACEE_RUNNING:
			return process__err(h->p, h->t.tid, ERR_SURGERY, 0, NULL,
					    "a system call of the hand does not end");
		default:
			tracee__cont_to_syscall(&h->t);
			break;
		}
	}
}

struct err *hand__call(struct hand *h, int64_t nr, const uint64_t arg[6], int64_t *result)
{
	struct arch_regs r = h->at_rest;
	uint64_t since = trace__now();
	if (h->t.state == TRACEE_GONE)
		return gone(h);
	if (fault__call(nr, result))
		return NULL;
	arch_regs__make_call(&r, taddr_add(h->place.pads, ARCH_PAD_SYSCALL), borrow__hand_stack(&h->place), nr, arg);
	struct err *e = tracee__set_regs(&h->t, &r);
	if (e && err__kind(e) == ERR_GONE) {
		err__free(e);
		return gone(h);
	}
	TRY(e);
	for (;;) {
		tracee__cont_to_syscall(&h->t);
		TRY(wait_for_step(h));
		if (h->t.state == TRACEE_GONE)
			return gone(h);
		if (h->t.state != TRACEE_EXIT)
			continue;
		*result = arch_regs__result(&h->t.regs);
		/* the kernel's own codes: it will make the call again */
		if (*result > -KERNEL_ERESTARTSYS || *result < -KERNEL_ERESTART_RESTARTBLOCK)
			break;
	}
	trace_call(h->p, nr, *result, since, trace__now(), (struct trace_arg){.key = "hand", .number = h->t.tid});
	return NULL;
}

/* A result that no system call has; and the number at the end of a list. */
static const int64_t not_run = INT64_MIN, end_of_list = -1;

/* Behind the calls that a withheld batch waits with. */
static taddr_t list_at(const struct hand_place *place)
{
	return taddr_add(place->scratch, HAND_DATA_AT + HAND_WAITS * sizeof(struct arch_batch_entry));
}

struct err *hand__forget_batch(const struct hand *h)
{
	return process__write(h->p, list_at(&h->place), &end_of_list, sizeof(end_of_list));
}

static bool has_failed(int64_t result)
{
	return result < 0 && result >= -4095;
}

struct err *hand__read_batch(const struct process *p, const struct hand_place *place, struct arch_batch_entry **out,
			     size_t *n, size_t *done)
{
	size_t max = HAND_BATCH_MAX;
	struct arch_batch_entry *list = xcalloc(max, sizeof(*list));
	struct err *e = process__read(p, list_at(place), list, max * sizeof(*list));
	*n = *done = 0;
	while (!e && *n < max && list[*n].nr != end_of_list)
		++*n;
	while (*done < *n && list[*done].result != not_run && !has_failed(list[*done].result))
		++*done;
	if (*n == max || (*done < *n && list[*done].result == not_run))
		*n = *done = 0; /* without an end it is no list; this one did not run */
	if (e) {
		free(list);
		return e;
	}
	*out = list;
	return NULL;
}

struct err *hand__load_batch(struct hand *h, const struct arch_batch_entry *calls, size_t n)
{
	if (n > HAND_BATCH_MAX)
		return process__err(h->p, 0, ERR_USAGE, 0, NULL, "a batch of %zu calls is too long", n);
	FREE_CLEANUP struct arch_batch_entry *list = xcalloc(n + 1, sizeof(*list));
	if (n)
		memcpy(list, calls, n * sizeof(*list));
	for (size_t i = 0; i < n; i++) {
		list[i].result = not_run;
		if (fault__call(list[i].nr, &list[i].result))
			list[i].nr = -1; /* where the batch ends */
	}
	list[n].nr = end_of_list;
	TRY(process__write(h->p, list_at(&h->place), list, (n + 1) * sizeof(*list)));
	h->loaded = true;
	h->withheld = false;
	h->first = list[0].nr;
	return NULL;
}

/* A hand that is let go must not take the processor from the tool, which has something to write first: a task of
 * SCHED_BATCH preempts nobody when it wakes up (sched(7); kernel/sched/fair.c, check_preempt_wakeup_fair()). */
static void hold_back(pid_t tid, bool back)
{
	const struct sched_param none = {0};
	(void)sched_setscheduler(tid, back ? SCHED_BATCH : SCHED_OTHER, &none);
	if (!back)
		(void)setpriority(PRIO_PROCESS, (id_t)tid, -20); /* at once: everybody stands still */
}

/* The calls: mprotect(2) of what is readable and writable already. */
struct err *hand__withhold_batch(struct hand *h)
{
	struct arch_batch_entry waits[HAND_WAITS] = {0};
	for (size_t i = 0; i < HAND_WAITS; i++)
		waits[i] = (struct arch_batch_entry){.nr = SYS_mprotect,
						     .arg = {h->place.scratch.v, LLU_PAGE, PROT_READ | PROT_WRITE}};
	TRY(hand__forget_batch(h));
	TRY(process__write(h->p, hand__data(h), waits, sizeof(waits)));
	h->withheld = true;
	return NULL;
}

struct err *hand__run_batch(struct hand *h, struct arch_batch_entry *calls, size_t n, size_t *done)
{
	*done = 0;
	if (!h->loaded)
		return process__err(h->p, 0, ERR_USAGE, 0, NULL, "no batch is loaded");
	if (h->t.state == TRACEE_GONE)
		return gone(h);
	struct arch_regs r = h->at_rest;
	arch_regs__make_batch(&r, taddr_add(h->place.pads, ARCH_PAD_BATCH), borrow__hand_stack(&h->place),
			      h->withheld ? hand__data(h) : list_at(&h->place));
	struct err *e = tracee__set_regs(&h->t, &r);
	if (e && err__kind(e) == ERR_GONE) {
		err__free(e);
		return gone(h);
	}
	TRY(e);
	h->loaded = false;
	uint64_t deadline = clock_deadline(CALL_MS);
	if (h->withheld)
		hold_back(h->t.tid, true);
	do {
		tracee__cont(&h->t);
		if (h->withheld) {
			TRY(process__write(h->p, list_at(&h->place), &h->first, sizeof(h->first)));
			hold_back(h->t.tid, false);
		}
		TRY(tracee__wait(&h->t, deadline));
	} while (h->t.state != TRACEE_GONE && h->t.state != TRACEE_RUNNING);
	if (h->t.state == TRACEE_RUNNING)
		return process__err(h->p, h->t.tid, ERR_SURGERY, 0, NULL, "the batch does not end");

	FREE_CLEANUP struct arch_batch_entry *list = xcalloc(n + 1, sizeof(*list));
	TRY(process__read(h->p, list_at(&h->place), list, n * sizeof(*list)));
	if (h->withheld && n && list[0].result == not_run) {
		TRY(hand__forget_batch(h));
		return process__err(h->p, 0, ERR_RETRY, 0, NULL, "the hand did not wait long enough for the exchange");
	}
	for (size_t i = 0; i < n; i++) {
		calls[i].result = list[i].result == not_run ? 0 : list[i].result;
		if (*done == i && list[i].result != not_run && !has_failed(list[i].result))
			*done = i + 1;
	}
	return NULL;
}

void hand__dismiss(struct hand *h)
{
	if (!h)
		return;
	uint64_t deadline = clock_deadline(CALL_MS);
	struct err *e = NULL;
	if (h->t.state == TRACEE_RUNNING) /* a call that did not end in time */
		(void)tracee__release(&h->t, deadline);
	if (h->t.state != TRACEE_GONE) {
		static const uint64_t none[6];
		struct arch_regs r = h->at_rest;
		arch_regs__make_call(&r, taddr_add(h->place.pads, ARCH_PAD_EXIT), borrow__hand_stack(&h->place),
				     SYS_exit, none);
		e = tracee__set_regs(&h->t, &r);
		err__free(e); /* it fails only when the hand is gone */
		do {
			tracee__cont(&h->t);
			e = tracee__wait(&h->t, deadline);
			if (e)
				break;
		} while (h->t.state != TRACEE_GONE && h->t.state != TRACEE_RUNNING);
		err__free(e);
	}
	if (h->t.state == TRACEE_GONE)
		place__release(h->p, &h->place);
	free(h);
}
