/* Scanning stacks for words (see stack.h). */
#include "freeze/stack.h"

#include <string.h>
#include <sys/mman.h>

#include "base/vec.h"
#include "freeze/holders.h"
#include "inject/arch.h"
#include "inject/proc.h"

enum { SCAN_MAX = 64 << 20, PARTS_MAX = 64 };

/* struct pthread's tid in glibc since 2.4 on 64-bit machines (nptl/descr.h): 704 bytes of tcbhead_t, then a
 * list_t. A hint to be confirmed by the value, no more. */
enum { PTHREAD_TID = 0x2d0 };

bool ranges__have(const struct trange *r, size_t n, taddr_t a)
{
	for (size_t i = 0; i < n; i++)
		if (trange__has(r[i], a))
			return true;
	return false;
}

static bool is_stack_memory(const struct mapping *m)
{
	return (m->prot & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE);
}

/* The run of readable and writable mappings without a gap that holds `a`: a stack may be several
 * mappings (mlock(2), mprotect(2), madvise(2) of parts split them), guard pages end it. */
static bool run_of(const struct mappings *maps, taddr_t a, struct trange *out)
{
	const struct mapping *m = mappings__at(maps, a);
	if (!m || !is_stack_memory(m))
		return false;
	const struct mapping *first = m;
	const struct mapping *last = m;
	const struct mapping *end = maps->items + maps->n - 1;
	while (first > maps->items && is_stack_memory(first - 1) && first[-1].range.end.v == first->range.start.v)
		first--;
	while (last < end && is_stack_memory(last + 1) && last[1].range.start.v == last->range.end.v)
		last++;
	*out = (struct trange){first->range.start, last->range.end};
	return true;
}

static const struct mapping *main_stack(const struct mappings *maps)
{
	for (size_t i = maps->n; i-- > 0;)
		if (strcmp(maps->items[i].path, "[stack]") == 0)
			return &maps->items[i];
	return NULL;
}

struct scan {
	const struct process *p;
	const struct stack_query *q;
	struct stack_answer *out;
	uint64_t low, high; /* all ranges lie in between */
	size_t scanned;
	struct trange parts[PARTS_MAX]; /* what has been or is to be looked at */
	size_t n_parts;
	taddr_t control_block; /* found on the way, if it was not known */
};

static void found(struct scan *s, taddr_t at)
{
	if (s->out->verdict != STACK_WORDS)
		s->out->word_at = at;
	s->out->verdict = STACK_WORDS;
}

/* What cannot be looked at may hold such a word. */
static void unseen(struct scan *s, taddr_t at)
{
	s->out->unseen = true;
	found(s, at);
}

static void add_part(struct scan *s, taddr_t from, taddr_t to)
{
	for (size_t i = 0; i < s->n_parts; i++)
		if (from.v >= s->parts[i].start.v && to.v <= s->parts[i].end.v)
			return;
	if (s->n_parts == PARTS_MAX)
		unseen(s, taddr(0));
	else
		s->parts[s->n_parts++] = (struct trange){from, to};
}

/* Everything from `sp` up, as far as it can be this thread's stack. */
static void add_from(struct scan *s, taddr_t sp)
{
	struct trange run;
	uint64_t tp = s->q->thread_pointer.v;
	if (sp.v % 8 || !run_of(s->q->maps, sp, &run)) {
		unseen(s, taddr(0));
		return;
	}
	bool ends_at_tp = tp > sp.v && tp < run.end.v && tp % 8 == 0;
	add_part(s, sp, ends_at_tp ? taddr(tp) : run.end);
}

/* A return address may be the end of a range, too. */
static bool leads_into(const struct trange *r, size_t n, uint64_t w)
{
	for (size_t i = 0; i < n; i++)
		if (w >= r[i].start.v && w <= r[i].end.v)
			return true;
	return false;
}

static void look_at_word(struct scan *s, uint64_t w, taddr_t at)
{
	bool inside = leads_into(s->q->inside, s->q->n_inside, w);
	if (!inside && !leads_into(s->q->suspects, s->q->n_suspects, w))
		return;
	found(s, at);
	if (inside && s->q->words)
		vec__push(s->q->words, at);
}

/* A jump buffer counts as a word that leads inside. It has a PC, not a return address. */
static void look_at_mangled(struct scan *s, uint64_t w, taddr_t at)
{
	uint64_t to = pointer__unmangle(w, s->q->pointer_guard);
	if (!ranges__have(s->q->inside, s->q->n_inside, taddr(to)))
		return;
	found(s, at);
	vec__push(s->q->mangled, at);
}

static void widen(struct scan *s, const struct trange *r, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		s->low = r[i].start.v < s->low ? r[i].start.v : s->low;
		s->high = r[i].end.v > s->high ? r[i].end.v : s->high;
	}
}

/* Does the thread control block of this thread lie here? (psABI 3.4.2: its first word is its own
 * address; glibc's third as well.) */
static bool is_control_block(const struct scan *s, const uint64_t *w, size_t n, uint64_t at)
{
	int32_t tid = 0;
	if (w[0] != at || n < PTHREAD_TID / 8 + 1 || w[2] != at)
		return false;
	memcpy(&tid, (const char *)w + PTHREAD_TID, sizeof(tid));
	return tid == s->q->own_tid;
}

static void scan_words(struct scan *s, const uint64_t *w, size_t n, uint64_t at)
{
	for (size_t i = 0; i < n; i++) {
		taddr_t sp;
		if (w[i] >= s->low && w[i] <= s->high)
			look_at_word(s, w[i], taddr(at + 8 * i));
		if (s->q->mangled && s->q->pointer_guard)
			look_at_mangled(s, w[i], taddr(at + 8 * i));
		if (w[i] == at + 8 * i && !s->control_block.v && is_control_block(s, w + i, n - i, w[i]))
			s->control_block = taddr(w[i]);
		struct trange run;
		/* nobody goes on where nothing is mapped: data that looks like a frame */
		if (arch_sigframe__spot(w + i, n - i, taddr(at + 8 * i), &sp) && run_of(s->q->maps, sp, &run))
			add_from(s, sp);
	}
}

static struct err *scan_part(struct scan *s, struct trange part)
{
	size_t len = part.end.v - part.start.v;
	s->scanned += len;
	if (s->scanned > SCAN_MAX) {
		unseen(s, taddr(0));
		return NULL;
	}
	FREE_CLEANUP uint64_t *buf = xmalloc(len);
	struct err *e = process__read(s->p, part.start, buf, len);
	if (e && err__kind(e) == ERR_UNREADABLE) {
		err__free(e);
		unseen(s, part.start);
		return NULL;
	}
	TRY(e);
	scan_words(s, buf, len / 8, part.start.v);
	return NULL;
}

/* Where the thread's home is, and which parts that adds. */
static void add_home(struct scan *s)
{
	const struct stack_query *q = s->q;
	struct stack_answer *out = s->out;
	const struct mapping *stack = q->first ? main_stack(q->maps) : NULL;
	struct trange run;
	/* below the mapping's start too: it may have grown since the maps were read */
	if (stack && run_of(q->maps, stack->range.start, &run)) {
		out->home[0] = run;
		out->sp_at_home = trange__has(run, q->sp);
	}
	if (q->thread_pointer.v && run_of(q->maps, q->thread_pointer, &run)) {
		out->home[1] = (struct trange){run.start, q->thread_pointer};
		out->sp_at_home = out->sp_at_home || trange__has(out->home[1], q->sp);
	} else if (q->thread_pointer.v && !out->sp_at_home) {
		unseen(s, taddr(0)); /* its home is not mapped as memory */
	}
	if (out->sp_at_home || !q->thread_pointer.v)
		return;
	for (int i = 0; i < 2; i++)
		if (out->home[i].end.v)
			add_part(s, taddr(align_up(out->home[i].start.v, 8)), taddr(align_down(out->home[i].end.v, 8)));
}

struct err *stack__scan(const struct process *p, const struct stack_query *q, struct stack_answer *out)
{
	struct scan s = {.p = p, .q = q, .out = out, .low = UINT64_MAX};
	*out = (struct stack_answer){.verdict = STACK_CLEAN};
	widen(&s, q->inside, q->n_inside);
	widen(&s, q->suspects, q->n_suspects);
	add_from(&s, q->sp);
	add_home(&s);
	for (size_t i = 0; i < s.n_parts; i++)
		TRY(scan_part(&s, s.parts[i]));
	if (!q->thread_pointer.v && !out->sp_at_home) {
		/* the control block above SP in the same memory: SP is at home */
		out->sp_at_home = s.control_block.v != 0;
		if (!out->sp_at_home)
			out->verdict = STACK_UNKNOWN;
	}
	return NULL;
}
