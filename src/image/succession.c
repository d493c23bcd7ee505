/* Which functions of live may be gone on with in next, in the middle and with all that registers and frames hold
 * (freeze/judge.c): those with the same bytes, where each reference leads to the same place of the process, or to the
 * same instruction of a function that takes over.
 *
 * The same contents at another place would not do: a loop that walks from the start of a table to its end, and has come
 * by the start in the old code, would look for the end of another copy. Nor would another variable: what was locked
 * would not be unlocked. None may be gone on with where objects on their stacks changed (gate.h). */
#include <string.h>

#include "arch/detail.h"
#include "image/planner.h"
#include "image/tail.h"

struct pair {
	const struct planner *x;
	const struct code *a, *b; /* of live, of next */
	struct patch *patches;    /* by site */
	size_t n_patches;
	fde_list fdes_a, fdes_b;
};

static int by_site(const void *a, const void *b)
{
	const struct patch *x = a, *y = b;
	return (x->site > y->site) - (x->site < y->site);
}

static const struct patch *patch_at(const struct pair *c, vaddr_t site)
{
	const struct patch key = {.site = site};
	return c->n_patches ? bsearch(&key, c->patches, c->n_patches, sizeof(key), by_site) : NULL;
}

static bool are_matched(const struct pair *c, const struct function *fa, const struct function *fb)
{
	return fa && fb && c->x->p->match->a_to_b[fa - c->a->functions.items] == (int32_t)(fb - c->b->functions.items);
}

static bool same_symbol(const struct elf_file *a, const struct elf_reloc *ra, const struct elf_file *b,
			const struct elf_reloc *rb)
{
	const struct elf_symbol *sa = &a->symbols[ra->symbol], *sb = &b->symbols[rb->symbol];
	return strcmp(sa->name, sb->name) == 0 && strcmp(sa->version, sb->version) == 0;
}

/* Are both words filled alike by the dynamic loader: with what a symbol means, or the place of a thread-local
 * variable? */
static bool same_import(const struct elf_file *a, const struct elf_reloc *ra, const struct elf_file *b,
			const struct elf_reloc *rb)
{
	if (!ra || !rb || !ra->symbol != !rb->symbol || ra->addend != rb->addend)
		return false;
	bool jump = ra->type == R_X86_64_JUMP_SLOT || ra->type == R_X86_64_GLOB_DAT;
	if (ra->type != rb->type && !(jump && (rb->type == R_X86_64_JUMP_SLOT || rb->type == R_X86_64_GLOB_DAT)))
		return false;
	if (ra->symbol)
		return same_symbol(a, ra, b, rb);
	return ra->type == R_X86_64_TPOFF64;
}

/* An IFUNC of the library's own: its stub, in either build. */
static bool same_ifunc(const struct pair *c, const struct elf_reloc *ra, const struct elf_reloc *rb)
{
	if (!ra || !rb || ra->type != R_X86_64_IRELATIVE || rb->type != R_X86_64_IRELATIVE)
		return false;
	vaddr_t a = elf_file__behind_stub(c->a->elf, (vaddr_t)ra->addend);
	return a && match__successor(c->x->p->match, a) == elf_file__behind_stub(c->b->elf, (vaddr_t)rb->addend);
}

static bool same_code(const struct pair *c, vaddr_t a, vaddr_t b)
{
	const struct function *fa = code__function_at(c->a, a), *fb = code__function_at(c->b, b);
	if (fa && fb && fa->plt && fb->plt) {
		const struct elf_reloc *ra = code__plt_reloc(c->a, a), *rb = code__plt_reloc(c->b, b);
		return same_import(c->a->elf, ra, c->b->elf, rb) || same_ifunc(c, ra, rb);
	}
	return are_matched(c, fa, fb) && a - fa->start == b - fb->start;
}

/* Where a reference of live's leads; 0: not known. */
static vaddr_t place_of(const struct pair *c, const struct ref *ra)
{
	vaddr_t home = layout__meant_by(c->x, ra);
	return home ? home : constants__place_of_live(c->x, ra->target);
}

/* One instruction's operand: whole, or nothing is known of it. */
static bool same_operand(const struct pair *c, const struct ref *ra, const struct ref *rb)
{
	struct insn i;
	struct insn_detail d = {0};
	const uint8_t *code = elf_file__at(c->b->elf, rb->insn, rb->end - rb->insn);
	if (!code || !insn__detail(code, rb->end - rb->insn, rb->insn, &i, &d) || !d.has_mem || !d.rip || !d.size ||
	    elf_file__is_data(c->a->elf, ra->target) || elf_file__is_data(c->b->elf, rb->target))
		return false;
	const uint8_t *pa = elf_file__at(c->a->elf, ra->target, d.size);
	const uint8_t *pb = elf_file__at(c->b->elf, rb->target, d.size);
	return pa && pb && memcmp(pa, pb, d.size) == 0;
}

/* The table of a switch, which either build has for itself: its way is chosen in one of them. */
static bool is_jump_table(const struct pair *c, const struct function *f, const struct ref *ra, const struct ref *rb)
{
	return ra->kind == REF_ADDRESS && code__has_indirect_jump(c->a, f) &&
	       constants__is_jump_table(c->a->elf, ra->target) && constants__is_jump_table(c->b->elf, rb->target);
}

static bool same_reference(const struct pair *c, const struct function *f, const struct ref *ra, const struct ref *rb)
{
	if (ra->kind != rb->kind || ra->size != rb->size)
		return false;
	vaddr_t a = elf_file__behind_stub(c->a->elf, ra->target), b = elf_file__behind_stub(c->b->elf, rb->target);
	if (!c->x->p->vapi->plain && code__is_trampoline(c->a, a) && code__is_trampoline(c->b, b))
		return true; /* the VAPI's, in either build */
	bool code_a = elf_file__is_code(c->a->elf, a), code_b = elf_file__is_code(c->b->elf, b);
	if (code_a || code_b)
		return code_a && code_b && same_code(c, a, b);
	if (ra->kind == REF_MEMORY &&
	    same_import(c->a->elf, elf_file__reloc_at(c->a->elf, a), c->b->elf, elf_file__reloc_at(c->b->elf, b)))
		return true;
	const struct patch *p = patch_at(c, rb->site);
	if (p)
		return !p->own_got && p->to == place_of(c, ra);
	return ra->kind == REF_MEMORY ? same_operand(c, ra, rb) : is_jump_table(c, f, ra, rb);
}

/* The same bytes but for references, which stand at the same offsets. */
static bool same_bytes(const struct pair *c, const struct function *fa, const struct function *fb)
{
	size_t len = fa->end - fa->start, done = 0;
	const uint8_t *pa = elf_file__at(c->a->elf, fa->start, len), *pb = elf_file__at(c->b->elf, fb->start, len);
	if (fb->end - fb->start != len || fa->n_refs != fb->n_refs || !pa || !pb)
		return false;
	for (uint32_t i = 0; i < fa->n_refs; i++) {
		const struct ref *ra = &c->a->refs.items[fa->first_ref + i];
		const struct ref *rb = &c->b->refs.items[fb->first_ref + i];
		size_t at = ra->site - fa->start;
		if (rb->site - fb->start != at || ra->size != rb->size || at < done || at + ra->size > len ||
		    memcmp(pa + done, pb + done, at - done) != 0)
			return false;
		done = at + ra->size;
	}
	return memcmp(pa + done, pb + done, len - done) == 0;
}

static bool may_be_gone_on_with(const struct pair *c, const struct function *fa, const struct function *fb)
{
	if (!same_bytes(c, fa, fb))
		return false;
	for (uint32_t i = 0; i < fa->n_refs; i++)
		if (!same_reference(c, fa, &c->a->refs.items[fa->first_ref + i], &c->b->refs.items[fb->first_ref + i]))
			return false;
	return true;
}

/* ---- what is left to do of functions that changed ---- */

static bool handles(const fde_list *l, const struct function *f)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].lsda && l->items[i].start < f->end && l->items[i].end > f->start)
			return true;
	return false;
}

static bool same_in_tail(void *context, const struct function *fa, const struct ref *ra, const struct ref *rb)
{
	return same_reference(context, fa, ra, rb);
}

/* A jump to another function ends this one if others call that as well; else that may be a part of this one that
 * the compiler put elsewhere, which is handed the frame. */
static bool is_not_handed_the_frame(void *context, const struct ref *r, vaddr_t to)
{
	const struct pair *c = context;
	const struct function *g = code__function_at(c->a, to);
	return r->kind != REF_JUMP || (g && (g->plt || tail__is_export(c->a->elf, g->start)));
}

static void list_returns(const struct pair *c, const struct function *fa, const struct function *fb)
{
	const struct tail_rules rules = {.a = c->a,
					 .b = c->b,
					 .match = c->x->p->match,
					 .same_reference = same_in_tail,
					 .may_lead_to = is_not_handed_the_frame,
					 .context = (void *)c};
	struct tail t;
	if (fa->plt || handles(&c->fdes_a, fa) || handles(&c->fdes_b, fb))
		return;
	tail__find(&rules, fa, fb, &t);
	for (vaddr_t at = fa->start; at < fa->end; at++) {
		const struct tail_return r = {at, t.next[at - fa->start]};
		if (r.next && t.is_return[at - fa->start])
			vec__push(&c->x->p->returns, r);
	}
	tail__free(&t);
}

void succession__list(struct planner *x)
{
	struct plan *p = x->p;
	struct pair c = {.x = x, .a = p->live_code, .b = p->next_code, .n_patches = p->patches.n};
	c.patches = c.n_patches ? xmemdup(p->patches.items, c.n_patches * sizeof(struct patch)) : NULL;
	if (c.n_patches)
		qsort(c.patches, c.n_patches, sizeof(struct patch), by_site);
	ERR_CLEANUP struct err *e = fdes__read(p->live, &c.fdes_a);
	ERR_CLEANUP struct err *e2 = fdes__read(p->next, &c.fdes_b);
	bool any = p->refusals.n == 0 && !x->stack_objects;
	for (size_t i = 0; i < c.a->functions.n; i++) {
		const struct function *f = &c.a->functions.items[i];
		struct succession s = {.start = f->start, .end = f->end};
		s.next = match__successor(p->match, f->start);
		const struct function *heir = s.next ? code__function_starting(c.b, s.next) : NULL;
		s.identical = heir && any && may_be_gone_on_with(&c, f, heir);
		vec__push(&p->functions, s);
		if (heir && any && !s.identical && !e && !e2)
			list_returns(&c, f, heir);
	}
	vec__free(&c.fdes_a);
	vec__free(&c.fdes_b);
	free(c.patches);
}
