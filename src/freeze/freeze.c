/* Freezing a process outside given code (see freeze.h).
 *
 * Work that takes time is done while the process runs: the mappings are read before, sleepers are looked
 * at before, and the unwinder, which opens every mapped file, is made only when it turns out to be
 * needed, between two attempts. So the time frozen is that of stopping the threads that run and of
 * reading their stacks.
 */
#include "freeze/freeze.h"

#include <string.h>

#include "freeze/drive.h"
#include "freeze/judge.h"
#include "freeze/stack.h"
#include "inject/clock.h"
#include "inject/proc.h"
#include "inject/urgent.h"

enum {
	ATTEMPTS_MAX = 5,     /* when what is mapped changes all the time */
	DRIVE_ALL_FACTOR = 8, /* times drive_ms: for all threads that are driven out in one freeze */
};

struct freeze {
	struct freeze_options opt;
	struct trange *inside, *suspects, *tables; /* copies of what opt refers to */
	struct hand_place park;
	struct threads threads;
	struct unwinder *unwinder; /* while freezing; borrowed */
	bool needs_help;           /* an unwinder is needed, or a newer one */
	move_list moves;
	uint64_t moved; /* when, for the trace; 0: not */
	size_t driven_out;
};

/* Judges a stopped thread unless that has been done. *judged: it is inside, and what is known of it. */
static struct err *look(struct freeze *f, struct thread *th, struct judgement *j)
{
	*j = (struct judgement){.verdict = OUTSIDE};
	if (th->rest != REST_STOPPED || th->outside || f->needs_help)
		return NULL;
	TRY(judge(&f->threads, th, f->unwinder, &f->moves, j));
	th->outside = j->verdict == OUTSIDE || j->verdict == MOVABLE;
	f->needs_help = j->verdict == NOT_KNOWN;
	return NULL;
}

/* --- driving out --- */

/* May it leave by itself? Not while it waits for an event; but for a lock, perhaps, when another one has left. */
static bool can_leave(const struct freeze *f, const struct judgement *j, bool others_left)
{
	return f->opt.park && j->slot.v && j->back.v && j->runs && (!j->waits || others_left);
}

/* Can it be said already that it will not? */
static bool hopeless(const struct freeze *f, const struct judgement *j)
{
	return j->verdict == INSIDE && !can_leave(f, j, true);
}

/* Keeps the last reason. */
static void keep(struct err **why, struct err *e)
{
	err__free(*why);
	*why = e;
}

static void trace_drive(const struct freeze *f, pid_t tid, uint64_t since, const struct err *e, const struct drive *d)
{
	struct trace_event x = {
	    .pid = process__pid(f->threads.p), .tid = tid, .name = "driven out", .start = since, .end = trace__now()};
	if (e || d->end == DRIVE_INSIDE)
		x.args[0] = (struct trace_arg){.key = "not", .text = e ? err__text(e) : d->why ? d->why : ""};
	trace__add(process__trace(f->threads.p), &x);
}

/* Drives one thread out; *why: what became of it if it is still inside. */
static struct err *drive(struct freeze *f, size_t i, struct judgement *j, struct err **why, bool *left)
{
	struct drive d;
	*left = false;
	uint64_t since = trace__now();
	pid_t tid = f->threads.v.items[i].tid;
	struct err *e = drive__out(&f->threads, i, f->unwinder, j, &d);
	trace_drive(f, tid, since, e, &d);
	if (e && err__kind(e) == ERR_REFUSED) { /* not this thread: then it is inside, and that is all */
		err__free(e);
		keep(why, j->why);
		j->why = NULL;
		return NULL;
	}
	TRY(e);
	if (d.forked) /* the memory may have got another user */
		TRY(process__shares_memory(f->threads.p, true));
	f->driven_out += d.end == DRIVE_OUT;
	/* it may have left another way, by an exception for one */
	struct judgement now;
	TRY(look(f, &f->threads.v.items[i], &now));
	*left = now.verdict != INSIDE && !f->needs_help;
	err__free(now.why);
	if (*left)
		return NULL;
	keep(why, err__new(ERR_RETRY, 0, NULL, NULL, "%s; let run alone, %s", err__text(j->why),
			   d.why ? d.why : "it left, and is inside again"));
	return NULL;
}

/* One pass over all threads. Without `drives` the first that will not leave ends it. */
static struct err *pass(struct freeze *f, bool drives, bool others_left, struct err **why, bool *progress)
{
	for (size_t i = 0; i < f->threads.v.n && !f->needs_help; i++) {
		struct judgement j;
		bool left = false;
		struct err *e = NULL;
		TRY(look(f, &f->threads.v.items[i], &j));
		if (j.verdict != INSIDE)
			continue;
		thread__in_the_way(&f->threads.v.items[i], j.why);
		if (!drives && hopeless(f, &j))
			return j.why;
		if (drives && can_leave(f, &j, others_left))
			e = drive(f, i, &j, why, &left);
		else
			keep(why, err__new(ERR_RETRY, 0, NULL, NULL, "%s", err__text(j.why)));
		err__free(j.why);
		TRY(e);
		*progress = *progress || left;
	}
	return NULL;
}

/* Until no stopped thread is inside, or all has been tried. */
static struct err *clear(struct freeze *f)
{
	uint64_t deadline = clock_deadline(f->opt.drive_ms * DRIVE_ALL_FACTOR);
	bool others_left = false;
	for (;;) {
		struct err *why = NULL;
		bool progress = false;
		struct err *e = pass(f, false, others_left, &why, &progress);
		if (!e && why && !f->needs_help) {
			keep(&why, NULL);
			e = pass(f, true, others_left, &why, &progress);
			/* those who left may have made threads */
			if (!e && progress)
				e = threads__complete(&f->threads);
		}
		bool done = !why && !progress;
		if (e || done || f->needs_help) {
			err__free(why);
			return e;
		}
		if (!progress || clock_ns() > deadline)
			return why;
		err__free(why);
		others_left = true;
	}
}

/* --- the freeze --- */

static struct err *attempt(struct freeze *f)
{
	TRY(threads__bring_to_rest(&f->threads));
	if (f->unwinder) {
		bool current = false;
		TRY(unwinder__current(f->unwinder, &current));
		f->needs_help = !current;
	}
	if (!f->needs_help)
		TRY(drive__settle(&f->threads, f->unwinder, &f->needs_help));
	return f->needs_help ? NULL : clear(f);
}

static struct freeze *new_freeze(const struct process *p, const struct freeze_options *opt, struct unwinder *u)
{
	struct freeze *f = xcalloc(1, sizeof(*f));
	turn__take(opt->turns, TURN_FREEZE); /* up to the thaw, all three */
	trace__hold(process__trace(p));
	urgent__begin();
	f->opt = *opt;
	if (opt->n_inside)
		f->inside = xmemdup(opt->inside, opt->n_inside * sizeof(*opt->inside));
	f->opt.inside = f->inside;
	if (opt->n_suspects)
		f->suspects = xmemdup(opt->suspects, opt->n_suspects * sizeof(*opt->suspects));
	f->opt.suspects = f->suspects;
	if (opt->n_tables)
		f->tables = xmemdup(opt->tables, opt->n_tables * sizeof(*opt->tables));
	f->opt.tables = f->tables;
	if (opt->park) {
		f->park = *opt->park;
		f->opt.park = &f->park;
	}
	f->threads.p = p;
	f->threads.opt = &f->opt;
	f->unwinder = u;
	return f;
}

static struct trace_arg purpose(const struct freeze_options *opt)
{
	return (struct trace_arg){.key = "to", .text = opt->what ? opt->what : "look"};
}

/* From the thaw on. */
static void trace(const struct freeze *f, uint64_t frozen)
{
	const struct threads *t = &f->threads;
	struct freeze_stats n;
	freeze__stats(f, &n);
	struct trace_event e = {.pid = process__pid(t->p),
				.name = "freeze",
				.start = t->begun,
				.end = t->ended,
				.args = {purpose(&f->opt),
					 {.key = "frozen_ns", .number = (int64_t)frozen},
					 {.key = "stopped", .number = (int64_t)n.stopped},
					 {.key = "asleep", .number = (int64_t)n.asleep}}};
	if (t->at_rest)
		trace__add(process__trace(t->p), &e);
	for (size_t i = 0; f->moved && i < f->moves.n; i++) {
		struct trace_event m = {
		    .pid = process__pid(t->p), .tid = f->moves.items[i].tid, .name = "moved", .start = f->moved};
		if (i == 0 || f->moves.items[i].tid != f->moves.items[i - 1].tid)
			trace__add(process__trace(t->p), &m);
	}
}

struct err *freeze__begin(const struct process *p, const struct freeze_options *opt, struct freeze **out)
{
	struct unwinder *u = NULL;
	TRY(process__shares_memory(p, true));
	if (opt->unwinds)
		TRY(unwinder__new(p, &u));
	for (int n = 0; n < ATTEMPTS_MAX; n++) {
		struct freeze *f = new_freeze(p, opt, u);
		struct err *e = attempt(f);
		bool again = !e && f->needs_help;
		f->unwinder = NULL;
		f->threads.at_rest = !e && !again;
		if (f->threads.at_rest) {
			unwinder__free(u);
			*out = f;
			return NULL;
		}
		process__did(p, again ? "freeze: an unwinder is needed" : "freeze", f->threads.begun, e, purpose(opt));
		(void)freeze__thaw(f);
		unwinder__free(u);
		u = NULL;
		if (again)
			e = unwinder__new(p, &u);
		TRY(e);
	}
	unwinder__free(u);
	return process__err(p, 0, ERR_RETRY, 0, NULL, "what is mapped in it changes all the time");
}

void freeze__stats(const struct freeze *f, struct freeze_stats *out)
{
	*out = (struct freeze_stats){.driven_out = f->driven_out};
	for (size_t i = 0; i < f->threads.v.n; i++) {
		enum rest r = f->threads.v.items[i].rest;
		out->threads += r != REST_GONE && r != REST_IGNORED;
		out->stopped += r == REST_STOPPED;
		out->asleep += r == REST_ASLEEP;
	}
	/* the moves of a thread stand together */
	for (size_t i = 0; i < f->moves.n; i++)
		out->moved += i == 0 || f->moves.items[i].tid != f->moves.items[i - 1].tid;
}

/* --- moving --- */

static struct err *move_pc(struct freeze *f, const struct move *m)
{
	for (size_t i = 0; i < f->threads.v.n; i++) {
		struct thread *th = &f->threads.v.items[i];
		if (th->tid != m->tid || th->rest != REST_STOPPED)
			continue;
		/* A system call to be made again begins two bytes before the PC, there as here: the bytes are the
		 * same. So the kernel may take the PC back after this as well. */
		struct arch_regs r = th->tracee.regs;
		if (arch_regs__pc(&r).v != m->from.v)
			return NULL;
		arch_regs__set_pc(&r, m->to);
		return tracee__set_regs(&th->tracee, &r);
	}
	return NULL;
}

struct err *freeze__move(struct freeze *f, size_t *moved)
{
	VEC(struct word_change) words = {0};
	struct err *e = NULL;
	*moved = 0;
	for (size_t i = 0; i < f->moves.n; i++) {
		const struct move *m = &f->moves.items[i];
		if (m->slot.v)
			vec__push(&words, (struct word_change){m->slot, m->from.v, m->to.v});
	}
	/* a word that is another by now was changed by nobody but us; then better not */
	e = process__change_words(f->threads.p, words.items, words.n);
	for (size_t i = 0; i < f->moves.n && !e; i++) {
		const struct move *m = &f->moves.items[i];
		if (!m->slot.v)
			e = move_pc(f, m);
		*moved += i + 1 == f->moves.n || m[1].tid != m->tid;
	}
	vec__free(&words);
	f->moved = e ? 0 : clock_ns();
	return e;
}

/* --- who holds an address --- */

static bool words_mention(const void *bytes, size_t len, const struct trange *ranges, size_t n)
{
	uint64_t w;
	for (size_t i = 0; i + sizeof(w) <= len; i += sizeof(w)) {
		memcpy(&w, (const uint8_t *)bytes + i, sizeof(w));
		if (ranges__have(ranges, n, taddr(w)))
			return true;
	}
	return false;
}

/* Vector registers too: two pointers at once are copied through them. */
static struct err *registers_mention(struct thread *th, const struct trange *ranges, size_t n, bool *out)
{
	FREE_CLEANUP uint8_t *xstate = NULL;
	size_t len;
	TRY(tracee__xstate(&th->tracee, &xstate, &len));
	*out = words_mention(&th->tracee.regs, sizeof(th->tracee.regs), ranges, n) ||
	       words_mention(xstate, len, ranges, n);
	return NULL;
}

static struct err *thread_mentions(const struct threads *t, struct thread *th, const struct trange *ranges, size_t n,
				   bool *out)
{
	struct stack_answer a;
	struct stack_query q = {
	    .first = th->tid == process__pid(t->p),
	    .sp = arch_regs__sp(&th->tracee.regs),
	    .thread_pointer = arch_regs__thread_pointer(&th->tracee.regs),
	    .maps = &t->maps,
	    .inside = ranges,
	    .n_inside = n,
	};
	TRY(registers_mention(th, ranges, n, out));
	if (*out)
		return NULL;
	TRY(stack__scan(t->p, &q, &a));
	*out = a.verdict != STACK_CLEAN;
	return NULL;
}

struct err *freeze__mentions(struct freeze *f, const struct trange *ranges, size_t n, bool *out)
{
	*out = false;
	for (size_t i = 0; i < f->threads.v.n && !*out; i++) {
		struct thread *th = &f->threads.v.items[i];
		if (th->rest == REST_ASLEEP)
			*out = true;
		else if (th->rest == REST_STOPPED)
			TRY(thread_mentions(&f->threads, th, ranges, n, out));
	}
	return NULL;
}

struct err *freeze__slept_on(const struct freeze *f, bool *out)
{
	return threads__slept_on(&f->threads, out);
}

uint64_t freeze__thaw(struct freeze *f)
{
	uint64_t frozen = threads__let_go(&f->threads);
	urgent__end();
	trace__let_go(process__trace(f->threads.p));
	turn__give(f->opt.turns, TURN_FREEZE);
	trace(f, frozen);
	threads__free(&f->threads);
	vec__free(&f->moves);
	free(f->inside);
	free(f->suspects);
	free(f->tables);
	free(f);
	return frozen;
}
