/* What is left to do of a function that changed, for somebody who waits in a call from it (see unprepared.h).
 *
 * From the return address on both builds are followed at once, instruction by instruction, to either side of each
 * branch. Where they are the same to the end, whoever returns there goes on as the new build does. Tables for switch
 * and handlers of exceptions are not followed. */
#include <string.h>

#include "arch/code.h"
#include "image/unprepared_parts.h"

enum { ENTRY_MAX = 16 }; /* bytes of an entry that a jump may touch */

struct step {
	vaddr_t a, b;
};

struct walk {
	struct comparison *c;
	const struct function *fa, *fb;
	vaddr_t *met;  /* by offset in fa: where in fb the walk was at the same time, or 0 */
	bool *is_tail; /* by offset in fa: the same from there on */
	uint8_t *len;  /* by offset in fa, of the instruction */
	VEC(struct step) todo, seen;
};

static bool is_in(const struct function *f, vaddr_t a)
{
	return a - f->start < f->end - f->start;
}

static const struct ref *ref_of(const struct code *c, const struct function *f, vaddr_t insn)
{
	for (uint32_t i = f->first_ref; i < f->first_ref + f->n_refs; i++)
		if (c->refs.items[i].insn == insn)
			return &c->refs.items[i];
	return NULL;
}

/* A call of what moves goes by its jump. By any other way out the frame might be handed on (to a part that the compiler
 * put elsewhere), which is the old build's. */
static bool leads_to_what_runs(const struct comparison *c, const struct ref *r)
{
	vaddr_t to = elf_file__behind_stub(c->a->elf, r->target);
	const struct function *g = code__function_at(c->a, to);
	if (!g || !c->moves[index_of(c->a, g)])
		return true;
	return r->kind != REF_JUMP && to == g->start && c->m->a_to_b[index_of(c->a, g)] >= 0 &&
	       unprepared__jump_place(c, g);
}

/* The bytes of two instructions, but for a relative value, and what that leads to. */
static bool same_insn(const struct walk *w, const struct insn *ia, const struct insn *ib, vaddr_t a, vaddr_t b)
{
	const uint8_t *pa = elf_file__at(w->c->a->elf, a, ia->len), *pb = elf_file__at(w->c->b->elf, b, ib->len);
	size_t field = ia->has_target ? ia->field : ia->len, rest = field + (ia->has_target ? ia->field_size : 0);
	if (ia->len != ib->len || ia->has_target != ib->has_target || ia->is_branch != ib->is_branch ||
	    (ia->has_target && (ia->field != ib->field || ia->field_size != ib->field_size)) ||
	    memcmp(pa, pb, field) != 0 || memcmp(pa + rest, pb + rest, ia->len - rest) != 0)
		return false;
	if (!ia->has_target)
		return true;
	if (ia->is_branch && is_in(w->fa, ia->target))
		return ia->flow != FLOW_CALL && is_in(w->fb, ib->target);
	const struct ref *ra = ref_of(w->c->a, w->fa, a), *rb = ref_of(w->c->b, w->fb, b);
	return ra && rb && leads_to_what_runs(w->c, ra) && same__reference(w->c, w->fa, ra, rb);
}

/* A jump to where a register or a word says (Intel SDM volume 2, JMP: FF /4), which no reference tells. */
static bool is_unknown_jump(const struct insn *i, const uint8_t *p)
{
	return i->flow == FLOW_STOP && !i->has_target && i->modrm && p[i->modrm - 1] == 0xff &&
	       (p[i->modrm] >> 3 & 7) == 4;
}

/* Behind what does nothing but fill up, of which each build has its own. */
static vaddr_t behind_nops(const struct code *c, const struct function *f, vaddr_t a)
{
	struct insn i = {.is_nop = true};
	for (vaddr_t next = a; i.is_nop && is_in(f, next); next += i.len) {
		const uint8_t *p = elf_file__at(c->elf, next, f->end - next);
		a = next;
		if (!p || !insn__decode(p, f->end - next, next, &i))
			break;
	}
	return a;
}

static bool go_to(struct walk *w, vaddr_t a, vaddr_t b)
{
	b = behind_nops(w->c->b, w->fb, b);
	struct step s = {a, b};
	if (!is_in(w->fa, a) || !is_in(w->fb, b) || a - w->fa->start < ENTRY_MAX)
		return false;
	vaddr_t *met = &w->met[a - w->fa->start];
	if (*met)
		return *met == b;
	*met = b;
	vec__push(&w->todo, s);
	vec__push(&w->seen, s);
	return true;
}

static bool go_on(struct walk *w, vaddr_t a, vaddr_t b)
{
	struct insn ia, ib;
	const uint8_t *pa = elf_file__at(w->c->a->elf, a, w->fa->end - a),
		      *pb = elf_file__at(w->c->b->elf, b, w->fb->end - b);
	if (!pa || !pb || !insn__decode(pa, w->fa->end - a, a, &ia) || !insn__decode(pb, w->fb->end - b, b, &ib) ||
	    (!ia.is_nop && !same_insn(w, &ia, &ib, a, b)) || is_unknown_jump(&ia, pa))
		return false;
	w->len[a - w->fa->start] = ia.len;
	if (ia.is_nop)
		return go_to(w, a + ia.len, b);
	bool within = ia.is_branch && is_in(w->fa, ia.target);
	if (within && !go_to(w, ia.target, ib.target))
		return false;
	bool call = ia.flow == FLOW_CALL || ia.flow == FLOW_CALL_INDIRECT;
	if (call && (a + ia.len == w->fa->end) && (b + ib.len == w->fb->end))
		return true; /* it never comes back */
	return ia.flow == FLOW_STOP || ia.flow == FLOW_JUMP || go_to(w, a + ia.len, b + ib.len);
}

/* From a return address in both builds. */
static void follow(struct walk *w, vaddr_t a, vaddr_t b)
{
	w->todo.n = w->seen.n = 0;
	bool same = go_to(w, a, b);
	while (same && w->todo.n) {
		struct step s = w->todo.items[--w->todo.n];
		same = go_on(w, s.a, s.b);
	}
	for (size_t i = 0; i < w->seen.n; i++) {
		size_t at = w->seen.items[i].a - w->fa->start;
		w->is_tail[at] = same;
		if (!same)
			w->met[at] = 0;
	}
}

static void follow_call(void *context, vaddr_t at_a, vaddr_t at_b)
{
	struct walk *w = context;
	struct insn ia, ib;
	const uint8_t *pa = elf_file__at(w->c->a->elf, at_a, w->fa->end - at_a),
		      *pb = elf_file__at(w->c->b->elf, at_b, w->fb->end - at_b);
	if (pa && pb && insn__decode(pa, w->fa->end - at_a, at_a, &ia) &&
	    insn__decode(pb, w->fb->end - at_b, at_b, &ib) && (ia.flow == FLOW_CALL || ia.flow == FLOW_CALL_INDIRECT) &&
	    is_in(w->fa, at_a + ia.len) && is_in(w->fb, at_b + ib.len))
		follow(w, at_a + ia.len, at_b + ib.len);
}

/* Functions that come back to where they were called from once more; underscores in front make no difference (gcc,
 * special_function_p in calls.cc). */
static bool returns_twice(const char *name)
{
	static const char *const names[] = {"setjmp",     "sigsetjmp",   "savectx",   "vfork",
					    "libc_vfork", "swapcontext", "getcontext"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name + strspn(name, "_"), names[i]) == 0)
			return true;
	return false;
}

/* By any of the names that a function of the library has. */
static bool one_returns_twice(const struct elf_file *e, vaddr_t function)
{
	for (size_t i = 1; i < e->n_symbols; i++)
		if (e->symbols[i].function == function && returns_twice(e->symbols[i].name))
			return true;
	for (size_t i = 0; i < e->locals.n; i++)
		if (e->locals.items[i].value == function && returns_twice(e->locals.items[i].name))
			return true;
	return false;
}

/* Whoever waits may yet go back to such a call, so that its return address must be the same from there on, too. */
static bool comes_back_elsewhere(const struct walk *w)
{
	const struct code *c = w->c->a;
	for (uint32_t i = w->fa->first_ref; i < w->fa->first_ref + w->fa->n_refs; i++) {
		const struct ref *r = &c->refs.items[i];
		const struct elf_symbol *import = unprepared__import(c, r);
		const struct function *g = code__function_starting(c, elf_file__behind_stub(c->elf, r->target));
		if (((import && returns_twice(import->name)) || (g && one_returns_twice(c->elf, g->start))) &&
		    (!is_in(w->fa, r->end) || !w->is_tail[r->end - w->fa->start]))
			return true;
	}
	return false;
}

static void push_rest(const struct walk *w, vrange_list *leaves)
{
	struct vrange r = {w->fa->start, w->fa->start};
	while (r.end < w->fa->end) {
		size_t at = r.end - w->fa->start;
		if (!w->is_tail[at]) {
			r.end++;
			continue;
		}
		if (r.start < r.end)
			vec__push(leaves, r);
		r.start = r.end = r.end + w->len[at];
	}
	if (r.start < r.end)
		vec__push(leaves, r);
}

void tail__leave(struct comparison *c, const struct function *fa, const struct function *fb, bool handlers,
		 vrange_list *leaves, bool *reached)
{
	size_t n = fa->end - fa->start;
	FREE_CLEANUP vaddr_t *met = xcalloc(n, sizeof(vaddr_t));
	FREE_CLEANUP bool *is_tail = xcalloc(n, sizeof(bool));
	FREE_CLEANUP uint8_t *len = xcalloc(n, 1);
	struct walk w = {.c = c, .fa = fa, .fb = fb, .met = met, .is_tail = is_tail, .len = len};
	if (fb && !handlers)
		match__align(c->a, fa, c->b, fb, INSN_SHAPE, follow_call, &w);
	if (comes_back_elsewhere(&w))
		memset(is_tail, 0, n);
	push_rest(&w, leaves);
	for (uint32_t i = fa->first_ref; i < fa->first_ref + fa->n_refs; i++) {
		const struct ref *r = &c->a->refs.items[i];
		const struct function *g = code__function_starting(c->a, elf_file__behind_stub(c->a->elf, r->target));
		if (g && is_tail[r->insn - fa->start])
			reached[index_of(c->a, g)] = true;
	}
	vec__free(&w.todo);
	vec__free(&w.seen);
}
