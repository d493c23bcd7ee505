/* See tail.h. */
#include "image/tail.h"

#include <string.h>

#include "arch/code.h"
#include "image/contract.h"

struct step {
	vaddr_t a, b;
};

struct walk {
	const struct tail_rules *rules;
	const struct function *fa, *fb;
	vaddr_t *met;  /* by offset in fa: where in fb the walk was at the same time, or 0 */
	bool *is_tail; /* by offset in fa: the same from there on */
	uint8_t *len;  /* by offset in fa, of the instruction */
	bool *is_return;
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

bool tail__is_export(const struct elf_file *e, vaddr_t function)
{
	for (size_t i = 1; i < e->n_symbols; i++)
		if (e->symbols[i].s.st_shndx != SHN_UNDEF && e->symbols[i].function == function &&
		    !contract__is_private(&e->symbols[i]))
			return true;
	return false;
}

/* Is it a function that whoever calls knows by its interface alone: an export, or one that has not changed? */
static bool is_known(const struct tail_rules *rules, const struct function *g)
{
	int32_t next = rules->match->a_to_b[g - rules->a->functions.items];
	return next >= 0 && (rules->match->same_code[next] || tail__is_export(rules->a->elf, g->start));
}

/* What is left goes to other functions as both builds know them. */
static bool may_lead_there(const struct walk *w, const struct ref *r)
{
	const struct code *c = w->rules->a;
	vaddr_t to = elf_file__behind_stub(c->elf, r->target);
	const struct function *g = code__function_at(c, to);
	if (g && !g->plt && (r->kind == REF_CALL || r->kind == REF_JUMP) && (to != g->start || !is_known(w->rules, g)))
		return false;
	return w->rules->may_lead_to(w->rules->context, r, to);
}

/* The bytes of two instructions, but for a relative value, and what that leads to. */
static bool same_insn(const struct walk *w, const struct insn *ia, const struct insn *ib, vaddr_t a, vaddr_t b)
{
	const uint8_t *pa = elf_file__at(w->rules->a->elf, a, ia->len),
		      *pb = elf_file__at(w->rules->b->elf, b, ib->len);
	size_t field = ia->has_target ? ia->field : ia->len, rest = field + (ia->has_target ? ia->field_size : 0);
	if (ia->len != ib->len || ia->has_target != ib->has_target || ia->is_branch != ib->is_branch ||
	    (ia->has_target && (ia->field != ib->field || ia->field_size != ib->field_size)) ||
	    memcmp(pa, pb, field) != 0 || memcmp(pa + rest, pb + rest, ia->len - rest) != 0)
		return false;
	if (!ia->has_target)
		return true;
	if (ia->is_branch && is_in(w->fa, ia->target))
		return ia->flow != FLOW_CALL && is_in(w->fb, ib->target);
	const struct ref *ra = ref_of(w->rules->a, w->fa, a), *rb = ref_of(w->rules->b, w->fb, b);
	return ra && rb && may_lead_there(w, ra) && w->rules->same_reference(w->rules->context, w->fa, ra, rb);
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
	b = behind_nops(w->rules->b, w->fb, b);
	struct step s = {a, b};
	if (!is_in(w->fa, a) || !is_in(w->fb, b) || a - w->fa->start < w->rules->entry_len)
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
	const uint8_t *pa = elf_file__at(w->rules->a->elf, a, w->fa->end - a),
		      *pb = elf_file__at(w->rules->b->elf, b, w->fb->end - b);
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

/* Does a call at `at` go out of the library, as far as can be told? */
static bool leaves_library(const struct walk *w, vaddr_t at, const struct insn *i)
{
	const struct code *c = w->rules->a;
	const struct ref *r = ref_of(c, w->fa, at);
	if (i->flow == FLOW_CALL_INDIRECT && !i->has_target)
		return true;
	const struct elf_symbol *import = r ? code__import(c, r) : NULL;
	if (import)
		return import->s.st_shndx == SHN_UNDEF || returns_twice(import->name);
	const struct function *g = r ? code__function_starting(c, elf_file__behind_stub(c->elf, r->target)) : NULL;
	return g && one_returns_twice(c->elf, g->start);
}

static void follow_call(void *context, vaddr_t at_a, vaddr_t at_b)
{
	struct walk *w = context;
	struct insn ia, ib;
	const uint8_t *pa = elf_file__at(w->rules->a->elf, at_a, w->fa->end - at_a),
		      *pb = elf_file__at(w->rules->b->elf, at_b, w->fb->end - at_b);
	if (pa && pb && insn__decode(pa, w->fa->end - at_a, at_a, &ia) &&
	    insn__decode(pb, w->fb->end - at_b, at_b, &ib) && (ia.flow == FLOW_CALL || ia.flow == FLOW_CALL_INDIRECT) &&
	    leaves_library(w, at_a, &ia) && is_in(w->fa, at_a + ia.len) && is_in(w->fb, at_b + ib.len)) {
		w->is_return[at_a + ia.len - w->fa->start] = true;
		follow(w, at_a + ia.len, at_b + ib.len);
	}
}

/* Whoever waits may yet go back to such a call, so that its return address must be the same from there on, too. */
static bool comes_back_elsewhere(const struct walk *w)
{
	const struct code *c = w->rules->a;
	for (uint32_t i = w->fa->first_ref; i < w->fa->first_ref + w->fa->n_refs; i++) {
		const struct ref *r = &c->refs.items[i];
		const struct elf_symbol *import = code__import(c, r);
		const struct function *g = code__function_starting(c, elf_file__behind_stub(c->elf, r->target));
		if (((import && returns_twice(import->name)) || (g && one_returns_twice(c->elf, g->start))) &&
		    (!is_in(w->fa, r->end) || !w->is_tail[r->end - w->fa->start]))
			return true;
	}
	return false;
}

void tail__find(const struct tail_rules *rules, const struct function *fa, const struct function *fb, struct tail *out)
{
	size_t n = fa->end - fa->start;
	FREE_CLEANUP bool *is_tail = xcalloc(n, sizeof(bool));
	*out = (struct tail){xcalloc(n, sizeof(vaddr_t)), xcalloc(n, 1), xcalloc(n, sizeof(bool))};
	struct walk w = {.rules = rules,
			 .fa = fa,
			 .fb = fb,
			 .met = out->next,
			 .is_tail = is_tail,
			 .len = out->len,
			 .is_return = out->is_return};
	match__align(rules->a, fa, rules->b, fb, INSN_SHAPE, follow_call, &w);
	if (comes_back_elsewhere(&w))
		memset(is_tail, 0, n);
	for (size_t i = 0; i < n; i++)
		out->next[i] = is_tail[i] ? out->next[i] : 0;
	vec__free(&w.todo);
	vec__free(&w.seen);
}

void tail__free(struct tail *t)
{
	free(t->next);
	free(t->len);
	free(t->is_return);
}
