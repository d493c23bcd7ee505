/* Judging stopped threads (see judge.h).
 *
 * When may a frame be moved? It is in a function f of the old code, the new code has f with the same bytes and with
 * references to the same places (image/succession.c), and what is known about unwinding is the same at both places. So
 * all that the frame holds (its layout, saved registers, the meaning of each register) is as the new code at the same
 * offset expects it; a call from there returns in the same way; and an exception finds what it would have found. What a
 * register or a word of the frame holds of the old code itself (the base of a jump table) stays good, as the old code
 * stays mapped as long as anything leads there.
 *
 * A frame in a function that changed may be moved too where the same is left to do from its return address on
 * (image/tail.h): what it holds is as the rest of either build expects it.
 *
 * Threads are moved whole or not at all: what changed in another way never returns to a moved frame.
 *
 * Before the old code goes (`for_good`) the last point matters: a moved frame that holds an address in it, or the base
 * of one of its jump tables (compilers keep it in a register: a table's entries are distances from its base), keeps it.
 */
#include "freeze/judge.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "arch/code.h"
#include "freeze/holders.h"
#include "freeze/stack.h"
#include "inject/proc.h"

enum { DWARF_RCX = 2 }; /* DWARF register number (psABI, figure 3.36) */

enum {
	FRAME_MAX = 1 << 20, /* bytes; of a larger one nothing is known */
	/* A smaller array holds no stack that a library is called on: MINSIGSTKSZ of the kernel
	 * (include/uapi/asm/signal.h), which counts as too small for that by itself. */
	STACK_MIN = 2048,
	SIGNAL_FRAME_MAX = 16 << 10, /* with all state of the processor, 8 KiB of AMX tiles included */
};

/* Where on a thread's stacks words are that lead inside. */
struct words {
	taddr_list plain, mangled;
	uint64_t guard;
};

const struct freeze_function *functions__at(const struct freeze_options *opt, taddr_t code)
{
	size_t lo = 0;
	size_t hi = opt->n_functions;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (opt->functions[mid].range.start.v <= code.v)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && trange__has(opt->functions[lo - 1].range, code) ? &opt->functions[lo - 1] : NULL;
}

const char *call_name(char buf[CALL_NAME_MAX], int64_t nr)
{
	const char *name = arch_syscall__name(nr);
	if (name)
		snprintf(buf, CALL_NAME_MAX, "%s(2)", name);
	else
		snprintf(buf, CALL_NAME_MAX, "system call %" PRId64, nr);
	return buf;
}

/* --- reasons --- */

/* "lib_wait (changed in the new build, or what it refers to did)" */
static char *describe(const struct freeze_options *opt, taddr_t code)
{
	const struct freeze_function *f = functions__at(opt, code);
	if (!f)
		return xasprintf("code at 0x%" PRIx64, code.v);
	const char *changed = f->successor.v ? "" : " (changed in the new build, or what it refers to did)";
	return f->name ? xasprintf("%s%s", f->name, changed)
		       : xasprintf("the function at 0x%" PRIx64 "%s", f->range.start.v, changed);
}

/* What a thread is at in the frame at `code`: its innermost, or one that was called from there. */
static struct err *inside(const struct threads *t, const struct thread *th, taddr_t code, bool innermost)
{
	const struct arch_regs *r = &th->tracee.regs;
	char call[CALL_NAME_MAX];
	FREE_CLEANUP char *where = describe(t->opt, code);
	const char *what = innermost ? "is inside" : "will return into";
	if (arch_regs__interrupted(r))
		return process__err(t->p, th->tid, ERR_RETRY, 0, NULL,
				    "it %s the code to be replaced: it waits in %s, called from %s", what,
				    call_name(call, arch_regs__syscall(r)), where);
	return process__err(t->p, th->tid, ERR_RETRY, 0, NULL, "it %s the code to be replaced: %s", what, where);
}

static struct err *stuck(const struct threads *t, const struct thread *th, taddr_t at)
{
	return process__err(
	    t->p, th->tid, ERR_RETRY, 0, NULL,
	    "addresses in the code to be replaced are on its stack, which cannot be unwound at 0x%" PRIx64, at.v);
}

static struct err *perhaps_parked(const struct threads *t, const struct thread *th, taddr_t at)
{
	return process__err(t->p, th->tid, ERR_RETRY, 0, NULL,
			    "an address in it is at 0x%" PRIx64 ", in a large frame of its stack or above all frames: "
			    "a parked stack?",
			    at.v);
}

static struct err *in_buffer(const struct threads *t, const struct thread *th, taddr_t at)
{
	return process__err(t->p, th->tid, ERR_RETRY, 0, NULL,
			    "an address in it is at 0x%" PRIx64 " of its stack, mangled as by setjmp: a jump buffer?",
			    at.v);
}

static struct err *left_behind(const struct threads *t, const struct thread *th, taddr_t at)
{
	return process__err(t->p, th->tid, ERR_RETRY, 0, NULL,
			    "addresses in the code to be replaced are on a stack that it has left, at 0x%" PRIx64,
			    at.v);
}

/* --- frames --- */

/* In an rseq critical section the kernel looks at where the PC is (rseq(2)): it must not be moved then. */
static bool in_rseq(struct thread *th)
{
	bool yes = true;
	ERR_CLEANUP struct err *e = tracee__in_rseq(&th->tracee, &yes);
	return e || yes;
}

/* Where the new code has the place `pc`, which lies in `f`; {0}: it has none. */
static taddr_t successor(const struct freeze_options *opt, const struct freeze_function *f, const struct frame *frame)
{
	if (f && f->successor.v)
		return taddr(f->successor.v + (frame->pc.v - f->range.start.v));
	size_t lo = 0, hi = frame->activation ? 0 : opt->n_returns;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (opt->returns[mid].at.v < frame->pc.v)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < opt->n_returns && opt->returns[lo].at.v == frame->pc.v ? opt->returns[lo].successor : taddr(0);
}

/* Is it about to make a system call, or behind one? That leaves the PC in rcx (Intel SDM volume 2, SYSCALL). */
static bool is_at_call(const struct threads *t, const struct frame *f)
{
	enum { SYSCALL_SIZE = 2 };
	size_t n;
	const uint8_t *call = arch_code__syscall_ret(&n);
	uint8_t code[2 * SYSCALL_SIZE];
	ERR_CLEANUP struct err *e = process__read(t->p, taddr(f->pc.v - SYSCALL_SIZE), code, sizeof(code));
	return f->activation && !e &&
	       (memcmp(code, call, SYSCALL_SIZE) == 0 || memcmp(code + SYSCALL_SIZE, call, SYSCALL_SIZE) == 0);
}

/* Is it the base of a jump table: data whose first word is the distance to code inside? */
static bool is_table(const struct threads *t, uint64_t w)
{
	int32_t distance = 0;
	if (!ranges__have(t->opt->tables, t->opt->n_tables, taddr(w)))
		return false;
	ERR_CLEANUP struct err *e = process__read(t->p, taddr(w), &distance, sizeof(distance));
	return !e && ranges__have(t->opt->inside, t->opt->n_inside, taddr(w + (uint64_t)(int64_t)distance));
}

static bool leads_inside(const struct threads *t, uint64_t w)
{
	return ranges__have(t->opt->inside, t->opt->n_inside, taddr(w)) || is_table(t, w);
}

/* Is any of the words between a frame's stack pointer and its caller's of that kind, or can it not be told? */
static bool any_word(const struct threads *t, const struct frames *fr, size_t i,
		     bool (*is)(const struct threads *t, uint64_t w))
{
	const struct frame *f = &fr->v.items[i];
	uint64_t end = i + 1 < fr->v.n ? fr->v.items[i + 1].sp.v : f->sp.v;
	if (end <= f->sp.v)
		return false;
	size_t n = (end - f->sp.v) / 8;
	if (n > FRAME_MAX / 8)
		return true;
	FREE_CLEANUP uint64_t *words = xcalloc(n, 8);
	ERR_CLEANUP struct err *e = process__read(t->p, f->sp, words, n * 8);
	for (size_t k = 0; !e && k < n; k++)
		if (is(t, words[k]))
			return true;
	return e != NULL;
}

/* Would it go on in the old code after it was moved: by the base of a jump table, in a register or a word of its own
 * (compilers keep it there while a loop runs), or by a label in a register? What a system call leaves in rcx is none.
 */
static bool goes_by_old_code(const struct threads *t, const struct frames *fr, size_t i)
{
	const struct frame *f = &fr->v.items[i];
	for (unsigned k = 0; k + 1 < ARCH_DWARF_REGS; k++)
		if ((f->known >> k & 1) && leads_inside(t, f->reg[k]) && !(k == DWARF_RCX && is_at_call(t, f)))
			return true;
	return t->opt->n_tables && any_word(t, fr, i, is_table);
}

/* May it be so where a function changed? What its neighbours have been given by it, or are to be, may mean something
 * else: so they must not be of the library; but for the outermost frame, to which nothing returns. */
static bool is_alone(const struct threads *t, const struct frames *fr, size_t i)
{
	const struct freeze_options *opt = t->opt;
	return i > 0 && !ranges__have(opt->inside, opt->n_inside, frame__code(&fr->v.items[i - 1])) &&
	       (i + 2 >= fr->v.n || !ranges__have(opt->inside, opt->n_inside, frame__code(&fr->v.items[i + 1])));
}

/* May the frame `i`, which is inside, be moved? */
static bool movable(const struct threads *t, struct thread *th, const struct unwinder *u, const struct frames *fr,
		    size_t i, struct move *out)
{
	const struct frame *frame = &fr->v.items[i];
	taddr_t code = frame__code(frame);
	const struct freeze_function *f = functions__at(t->opt, code);
	taddr_t to = successor(t->opt, f, frame);
	if (!to.v || (!f->successor.v && !is_alone(t, fr, i)) || goes_by_old_code(t, fr, i))
		return false;
	*out = (struct move){.tid = th->tid, .from = frame->pc, .to = to};
	if (i == 0) {
		if (in_rseq(th))
			return false;
	} else {
		out->slot = frame->activation ? fr->v.items[i - 1].signal_slot : fr->v.items[i - 1].slot;
		if (!out->slot.v)
			return false;
	}
	return unwinder__alike(u, code, taddr(to.v - (frame->pc.v - code.v)));
}

/* Nobody uses what is in rcx then, but it would look as if somebody knew the old code. */
static void move_call_register(const struct threads *t, const struct frame *frame, const struct move *pc,
			       move_list *moves)
{
	struct move m = *pc;
	if (!pc->slot.v || !is_at_call(t, frame))
		return;
	m.slot = taddr(pc->slot.v - ARCH_SIGCONTEXT_RCX_TO_RIP);
	vec__push(moves, m);
}

/* The jump buffers that a frame to be moved has made and holds itself: glibc keeps one at the foot of each stack, for
 * the end of the thread (nptl/pthread_create.c, start_thread). The pc is the last word, and the stack pointer in front
 * of it is this frame's (sysdeps/x86_64/jmpbuf-offsets.h). Both words are mangled with a secret: nothing else looks
 * like that. */
static void move_buffers(const struct threads *t, const struct thread *th, const struct frames *fr, size_t i,
			 const struct words *words, move_list *moves)
{
	const struct frame *frame = &fr->v.items[i];
	const struct freeze_function *f = functions__at(t->opt, frame__code(frame));
	for (size_t k = 0; k < words->mangled.n && i + 1 < fr->v.n; k++) {
		taddr_t at = words->mangled.items[k];
		uint64_t w[2];
		if (at.v < frame->sp.v + 8 || at.v >= fr->v.items[i + 1].sp.v)
			continue;
		ERR_CLEANUP struct err *e = process__read(t->p, taddr(at.v - 8), w, sizeof(w));
		struct frame there = {.pc = taddr(pointer__unmangle(w[1], words->guard))};
		if (e || pointer__unmangle(w[0], words->guard) != frame->sp.v ||
		    functions__at(t->opt, frame__code(&there)) != f)
			continue;
		taddr_t to = successor(t->opt, f, &there);
		struct move m = {th->tid, at, taddr(w[1]), taddr(pointer__mangle(to.v, words->guard))};
		if (to.v)
			vec__push(moves, m);
	}
}

/* Does a frame of suspect code hold an address inside: in a register, or in a word between its stack pointer and its
 * caller's? */
static bool holds(const struct threads *t, const struct frames *fr, size_t i)
{
	const struct frame *f = &fr->v.items[i];
	for (unsigned k = 0; k + 1 < ARCH_DWARF_REGS; k++)
		if ((f->known >> k & 1) && leads_inside(t, f->reg[k]))
			return true;
	return any_word(t, fr, i, leads_inside);
}

/* Frames of code that threads were moved to, which may still know the code that they come from. */
static void judge_suspects(const struct threads *t, const struct thread *th, const struct frames *fr,
			   struct judgement *out)
{
	const struct freeze_options *opt = t->opt;
	for (size_t i = 0; i < fr->v.n && out->verdict != INSIDE; i++) {
		taddr_t code = frame__code(&fr->v.items[i]);
		if (!ranges__have(opt->suspects, opt->n_suspects, code) || !holds(t, fr, i))
			continue;
		out->verdict = INSIDE;
		out->why = process__err(t->p, th->tid, ERR_RETRY, 0, NULL,
					"a function that it was moved to, at 0x%" PRIx64
					", holds an address in the code to be replaced",
					code.v);
	}
}

/* Is what is at `at` in what the kernel put there for a signal, or between that and what was interrupted? (Kernel,
 * arch/x86/kernel/signal_64.c and fpu/signal.c: the state of the processor lies above the context, which knows where,
 * and below the red zone.) */
static bool in_signal_frame(const struct threads *t, const struct frames *fr, size_t i, taddr_t at)
{
	enum { SPARE = 128 + 64 + 16 }; /* red zone, and what alignment takes */
	const struct frame *f = &fr->v.items[i];
	taddr_t sp = fr->v.items[i + 1].sp;
	uint64_t state = 0;
	uint32_t size = 0;
	if (!f->signal_slot.v)
		return false;
	ERR_CLEANUP struct err *e =
	    process__read(t->p, taddr_add(f->signal_slot, ARCH_SIGCONTEXT_RIP_TO_STATE), &state, sizeof(state));
	if (!e && state > f->sp.v)
		e = process__read(t->p, taddr(state + ARCH_SIGNAL_STATE_SIZE_AT), &size, sizeof(size));
	uint64_t end = state + size;
	if (e || state <= f->sp.v || state - f->sp.v > SIGNAL_FRAME_MAX || size > SIGNAL_FRAME_MAX)
		return false;
	return at.v >= f->sp.v && at.v < (sp.v >= end && sp.v - end <= SPARE ? sp.v : end);
}

/* Is what is at `at` in a frame that is too small to hold a stack? */
static bool in_small_frame(const struct threads *t, const struct frames *fr, taddr_t at)
{
	for (size_t i = 0; i + 1 < fr->v.n; i++) {
		struct trange extent = {fr->v.items[i].sp, fr->v.items[i + 1].sp};
		if (in_signal_frame(t, fr, i, at))
			return true;
		if (trange__has(extent, at))
			return extent.end.v - extent.start.v < STACK_MIN;
	}
	return false;
}

/* Words that no frame returns by. A jump buffer may be used as long as the frame is there that made it, and that may be
 * one that was moved: so it is never taken for stale. */
static void judge_words(const struct threads *t, const struct thread *th, const struct frames *fr,
			const struct words *w, bool unseen, struct judgement *out)
{
	const taddr_list *words = &w->plain;
	if (out->verdict == INSIDE)
		return;
	if (w->mangled.n) {
		*out = (struct judgement){.verdict = INSIDE, .why = in_buffer(t, th, w->mangled.items[0])};
		return;
	}
	for (size_t i = 0; i < words->n; i++) {
		if (in_small_frame(t, fr, words->items[i]))
			continue;
		*out = (struct judgement){.verdict = INSIDE, .why = perhaps_parked(t, th, words->items[i])};
		return;
	}
	if (unseen)
		*out = (struct judgement){
		    .verdict = INSIDE,
		    .why = process__err(t->p, th->tid, ERR_RETRY, 0, NULL, "its stacks could not be looked through")};
}

/* What the frames say, which are all there are. */
static void judge_frames(const struct threads *t, struct thread *th, const struct unwinder *u, const struct frames *fr,
			 const struct words *words, move_list *moves, struct judgement *out)
{
	const struct freeze_options *opt = t->opt;
	size_t before = moves->n;
	const struct frame *blame = NULL;
	bool innermost = false;
	out->verdict = OUTSIDE;
	for (size_t i = 0; i < fr->v.n; i++) {
		const struct frame *frame = &fr->v.items[i];
		struct move m;
		if (!ranges__have(opt->inside, opt->n_inside, frame__code(frame)))
			continue;
		out->slot = frame->slot;
		out->back = i + 1 < fr->v.n ? fr->v.items[i + 1].pc : taddr(0);
		if (out->verdict == OUTSIDE)
			out->verdict = MOVABLE;
		if (movable(t, th, u, fr, i, &m)) {
			vec__push(moves, m);
			move_call_register(t, frame, &m, moves);
			move_buffers(t, th, fr, i, words, moves);
			continue;
		}
		out->verdict = INSIDE;
		if (!blame) {
			blame = frame;
			innermost = i == 0;
		}
	}
	if (out->verdict != INSIDE)
		return;
	moves->n = before;
	out->why = inside(t, th, frame__code(blame), innermost);
}

static void unwind(const struct threads *t, struct thread *th, const struct stack_answer *a, const struct words *words,
		   struct unwinder *u, move_list *moves, struct judgement *out)
{
	struct frames fr;
	size_t before = moves->n;
	unwinder__frames(u, &th->tracee.regs, &fr);
	if (!fr.complete) {
		*out = (struct judgement){.verdict = INSIDE, .why = stuck(t, th, fr.stuck_at)};
	} else {
		judge_frames(t, th, u, &fr, words, moves, out);
		judge_suspects(t, th, &fr, out);
		if (t->opt->for_good)
			judge_words(t, th, &fr, words, a->unseen, out);
		/* From another stack the home stack must have been reached, or what is there is not known. */
		taddr_t sp = fr.v.items[fr.v.n - 1].sp;
		if (out->verdict != INSIDE && !a->sp_at_home && !trange__has(a->home[0], sp) &&
		    !trange__has(a->home[1], sp)) {
			moves->n = before;
			*out = (struct judgement){.verdict = INSIDE, .why = left_behind(t, th, a->word_at)};
		}
	}
	vec__free(&fr.v);
}

struct err *judge(const struct threads *t, struct thread *th, struct unwinder *u, move_list *moves,
		  struct judgement *out)
{
	const struct arch_regs *r = &th->tracee.regs;
	*out = (struct judgement){.verdict = OUTSIDE};
	struct words words = {.guard = holders__pointer_guard(t->p, arch_regs__thread_pointer(r))};
	struct stack_query q = {
	    .first = th->tid == process__pid(t->p),
	    .sp = arch_regs__sp(r),
	    .thread_pointer = arch_regs__thread_pointer(r),
	    .maps = &t->maps,
	    .inside = t->opt->inside,
	    .n_inside = t->opt->n_inside,
	    .suspects = t->opt->suspects,
	    .n_suspects = t->opt->n_suspects,
	    .words = &words.plain,
	    .mangled = &words.mangled,
	    .pointer_guard = words.guard,
	};
	struct stack_answer a;
	struct err *e = stack__scan(t->p, &q, &a);
	bool pc_inside = ranges__have(t->opt->inside, t->opt->n_inside, arch_regs__pc(r)) ||
			 ranges__have(t->opt->suspects, t->opt->n_suspects, arch_regs__pc(r));
	if (!e && (a.verdict != STACK_CLEAN || pc_inside)) {
		out->verdict = NOT_KNOWN;
		if (u)
			unwind(t, th, &a, &words, u, moves, out);
		out->waits = arch_regs__interrupted(r);
		out->runs = !out->waits || arch_regs__syscall(r) == SYS_futex;
	}
	vec__free(&words.plain);
	vec__free(&words.mangled);
	return e;
}
