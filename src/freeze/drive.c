/* Driving threads out (see drive.h). */
#include "freeze/drive.h"

#include <stdio.h>
#include <sys/syscall.h>

#include "freeze/stack.h"
#include "inject/clock.h"
#include "inject/proc.h"
#include "inject/restart.h"
#include "inject/seccomp.h"

enum { LOOK_NS = 200000 }; /* between looks at whether it sleeps */

static taddr_t pad_of(const struct hand_place *park)
{
	return taddr_add(park->pads, ARCH_PAD_PARK);
}

/* --- the record --- */

static struct err *write_word(const struct process *p, taddr_t at, uint64_t word)
{
	return process__write(p, at, &word, sizeof(word));
}

static taddr_t original_of(const struct hand_place *park)
{
	return taddr_add(hand_place__record(park), offsetof(struct arch_park_record, original));
}

/* Is it still the program that has this pad? One that has executed another has other memory there. */
static struct err *pad_is_there(const struct threads *t)
{
	const struct hand_place *park = t->opt->park;
	uint8_t code[ARCH_PADS_SIZE];
	TRY(process__read(t->p, park->pads, code, sizeof(code)));
	if (!arch_pads__match(code, park->pads, hand_place__record(park)))
		return process__err(t->p, 0, ERR_RETRY, 0, NULL, "it executes another program");
	return NULL;
}

static struct err *arm(const struct threads *t, const struct judgement *j)
{
	const struct process *p = t->p;
	const struct hand_place *park = t->opt->park;
	uint64_t word = 0;
	TRY(process__read(p, j->slot, &word, sizeof(word)));
	if (word != j->back.v)
		return process__err(p, 0, ERR_RETRY, 0, NULL, "its stack changes while it stands still");
	TRY(write_word(p, taddr_add(hand_place__record(park), offsetof(struct arch_park_record, slot)), j->slot.v));
	TRY(write_word(p, original_of(park), word));
	return write_word(p, j->slot, pad_of(park).v);
}

/* Puts the return address back where it still is the pad's. (Who has just returned to the pad does the same.) */
static struct err *put_back(const struct threads *t)
{
	const struct hand_place *park = t->opt->park;
	struct arch_park_record record;
	uint64_t word = 0;
	TRY(process__read(t->p, hand_place__record(park), &record, sizeof(record)));
	ERR_CLEANUP struct err *gone = process__read(t->p, taddr(record.slot), &word, sizeof(word));
	if (gone || word != pad_of(park).v)
		return NULL; /* a stack that is not there any more is no error */
	return write_word(t->p, taddr(record.slot), record.original);
}

/* Nobody needs the record any more. */
static struct err *disarm(const struct threads *t)
{
	return write_word(t->p, original_of(t->opt->park), 0);
}

static struct err *needs_it(const struct threads *t, const struct thread *th)
{
	return process__err(t->p, th->tid, ERR_RETRY, 0, NULL, "it is on the way out that was laid for it");
}

/* Is the pad's address anywhere on the thread's stacks, or its PC? */
static struct err *mentions_pad(const struct threads *t, const struct thread *th, bool *out)
{
	const struct arch_regs *r = &th->tracee.regs;
	const struct trange pad = {pad_of(t->opt->park), taddr_add(pad_of(t->opt->park), 1)};
	bool stopped = th->rest == REST_STOPPED;
	struct stack_query q = {
	    .first = th->tid == process__pid(t->p),
	    .sp = stopped ? arch_regs__sp(r) : th->view.sp,
	    .thread_pointer = stopped ? arch_regs__thread_pointer(r) : taddr(0),
	    .own_tid = th->status.own_tid,
	    .maps = &t->maps,
	    .inside = &pad,
	    .n_inside = 1,
	};
	struct stack_answer a;
	TRY(stack__scan(t->p, &q, &a));
	*out = a.verdict != STACK_CLEAN || (stopped && trange__has(pad, arch_regs__pc(r)));
	return NULL;
}

/* ERR_RETRY if a thread is at the first instruction of the pad, or was when a signal came; or if that cannot be told.
 * The word that led there has been put back. */
static struct err *not_at_pad(const struct threads *t, const struct thread *th, struct unwinder *u, bool *needs_help)
{
	struct frames fr;
	struct err *e = NULL;
	bool mentions = false;
	TRY(mentions_pad(t, th, &mentions));
	if (!mentions)
		return NULL;
	if (th->rest != REST_STOPPED)
		return needs_it(t, th);
	if (!u) {
		*needs_help = true;
		return NULL;
	}
	unwinder__frames(u, &th->tracee.regs, &fr);
	for (size_t i = 0; !e && i < fr.v.n; i++)
		if (fr.v.items[i].activation && fr.v.items[i].pc.v == pad_of(t->opt->park).v)
			e = needs_it(t, th);
	if (!e && !fr.complete)
		e = needs_it(t, th);
	vec__free(&fr.v);
	return e;
}

struct err *drive__settle(const struct threads *t, struct unwinder *u, bool *needs_help)
{
	const struct hand_place *park = t->opt->park;
	uint64_t original = 0;
	*needs_help = false;
	if (!park)
		return NULL;
	TRY(process__read(t->p, original_of(park), &original, sizeof(original)));
	if (!original)
		return NULL;
	TRY(pad_is_there(t));
	TRY(put_back(t));
	for (size_t i = 0; i < t->v.n && !*needs_help; i++)
		if (t->v.items[i].rest == REST_STOPPED || t->v.items[i].rest == REST_ASLEEP)
			TRY(not_at_pad(t, &t->v.items[i], u, needs_help));
	return *needs_help ? NULL : disarm(t);
}

/* --- the thread --- */

/* Where none of this may be done. */
static struct err *check(const struct threads *t, struct thread *th)
{
	static const int calls[] = {ARCH_PARK_SYSCALL, -1};
	char path[40];
	char status[8192];
	if (tracee__dispatches_syscalls(&th->tracee))
		return process__err(t->p, th->tid, ERR_REFUSED, 0, NULL, "it dispatches system calls itself");
	snprintf(path, sizeof(path), "task/%d/status", th->tid);
	if (proc_read(t->p->dirfd, path, status, sizeof(status)) < 0)
		return process__err(t->p, th->tid, ERR_GONE, 0, NULL, "its status cannot be read");
	if (arch_shadow_stack__on(status))
		return process__err(t->p, th->tid, ERR_REFUSED, 0, NULL, "it uses a shadow stack");
	return seccomp__check(t->p, th->tid, calls);
}

static bool makes_process(int64_t nr)
{
	switch (nr) {
	case SYS_clone:
	case SYS_clone3:
#ifdef SYS_fork
	case SYS_fork:
	case SYS_vfork:
#endif
		return true;
	default:
		return false;
	}
}

/* A thread that it made: attached already, about to stop for the first time. */
static struct err *take_clone(struct threads *t, struct thread *th)
{
	struct thread born = {.rest = REST_NONE, .seized = true};
	TRY(tracee__cloned(&th->tracee, &born.tracee));
	born.tid = born.tracee.tid;
	vec__push(&t->v, born);
	return NULL;
}

/* Does it sleep, so that it will not come by? Two looks, as it may be about to wake up. */
static struct err *sleeps(const struct threads *t, struct thread *th, bool *out)
{
	struct thread_view first;
	struct thread_view second;
	*out = false;
	TRY(process__look(t->p, th->tid, &first));
	if (!first.at_rest)
		return NULL;
	TRY(tracee__wait(&th->tracee, clock_ns() + LOOK_NS));
	if (th->tracee.state != TRACEE_RUNNING)
		return NULL;
	TRY(process__look(t->p, th->tid, &second));
	*out = second.at_rest && second.sp.v == first.sp.v && second.nr == first.nr;
	th->view = second;
	return NULL;
}

/* Behind the first instruction of the pad: it has left, and does not need the record. */
static bool is_out(const struct threads *t, const struct thread *th)
{
	uint64_t at = arch_regs__pc(&th->tracee.regs).v - pad_of(t->opt->park).v;
	return at > 0 && at < ARCH_PAD_PARK_END - ARCH_PAD_PARK;
}

/* Lets it run till it is caught on the pad, or stops for good in another way, or sleeps, or the time is over. */
static struct err *run(struct threads *t, size_t index, struct drive *d)
{
	uint64_t deadline = clock_deadline(t->opt->drive_ms);
	for (;;) {
		struct thread *th = &t->v.items[index];
		if (th->tracee.state != TRACEE_RUNNING)
			tracee__cont_to_syscall(&th->tracee);
		TRY(tracee__wait(&th->tracee, clock_ns() + LOOK_NS));
		bool asleep = false;
		if (th->tracee.state == TRACEE_RUNNING)
			TRY(sleeps(t, th, &asleep));
		if (th->tracee.state != TRACEE_RUNNING && th->tracee.state != TRACEE_GONE && is_out(t, th)) {
			d->end = DRIVE_OUT;
			return NULL;
		}
		switch (th->tracee.state) {
		case TRACEE_GONE:
			d->end = DRIVE_GONE;
			return NULL;
		case TRACEE_GROUP:
			d->why = "it was stopped by job control";
			return NULL;
		case TRACEE_CLONED:
			TRY(take_clone(t, th));
			break;
		case TRACEE_ENTRY:
			d->forked = d->forked || makes_process(arch_regs__syscall(&th->tracee.regs));
			break;
		default:
			break;
		}
		if (asleep) {
			d->why = "it waits there";
			return NULL;
		}
		if (clock_ns() > deadline) {
			d->why = "it did not leave in time";
			return NULL;
		}
	}
}

/* Stops it again. A call that a stop would disturb is not interrupted: the thread is left to itself, and comes by the
 * pad some time. */
static struct err *stop(struct threads *t, struct thread *th)
{
	char call[CALL_NAME_MAX];
	if (th->tracee.state != TRACEE_RUNNING)
		return NULL;
	if (th->view.at_rest &&
	    (th->view.state == THREAD_BLOCKED || th->view.nr < 0 || restart__class(t->p, &th->view) == RESTART_NEVER)) {
		th->let_be = true;
		return process__err(t->p, th->tid, ERR_RETRY, 0, NULL,
				    "it is inside the code to be replaced and waits in %s",
				    call_name(call, th->view.nr));
	}
	tracee__interrupt(&th->tracee);
	TRY(tracee__wait(&th->tracee, clock_deadline(t->opt->stop_ms)));
	if (th->tracee.state == TRACEE_RUNNING)
		return process__err(t->p, th->tid, ERR_RETRY, 0, NULL, "it did not stop in time");
	return NULL;
}

struct err *drive__out(struct threads *t, size_t index, struct unwinder *u, const struct judgement *j,
		       struct drive *out)
{
	struct thread *th = &t->v.items[index];
	*out = (struct drive){.end = DRIVE_INSIDE};
	TRY(check(t, th));
	TRY(tracee__follow(&th->tracee));
	TRY(arm(t, j));
	th->view = (struct thread_view){0};
	TRY(run(t, index, out));
	th = &t->v.items[index];
	if (out->end == DRIVE_INSIDE) {
		TRY(stop(t, th));
		if (th->tracee.state != TRACEE_GONE && is_out(t, th)) /* at the last moment */
			out->end = DRIVE_OUT;
	}
	if (th->tracee.state == TRACEE_GONE) {
		out->end = DRIVE_GONE;
		th->rest = REST_GONE;
		th->seized = false;
	}
	TRY(pad_is_there(t));
	if (out->end == DRIVE_INSIDE) {
		bool ignored = false;
		TRY(put_back(t));
		TRY(not_at_pad(t, th, u, &ignored));
	}
	return disarm(t);
}
