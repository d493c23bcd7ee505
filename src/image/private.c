/* What code that moves uses of the private interfaces of other libraries, and what it is of this one's (contract.h). */
#include <string.h>

#include "arch/detail.h"
#include "image/contract.h"
#include "image/planner.h"

static void add_use(struct plan *p, const char *name, uint64_t at)
{
	for (size_t i = 0; i < p->private_uses.n; i++)
		if (p->private_uses.items[i].at == at && strcmp(p->private_uses.items[i].name, name) == 0)
			return;
	struct private_use u = {name, at};
	vec__push(&p->private_uses, u);
}

/* A field of what an address leads to, that is no stack frame: its offset in *at. */
static bool reads_field(const struct insn_detail *d, uint64_t *at)
{
	*at = (uint64_t)d->disp;
	return d->has_mem && !d->rip && d->base != REG_NONE && d->base != arch_abi.stack && d->disp >= 0;
}

/* Whatever the function reads at an offset may be read of this symbol. */
static void add_fields(struct plan *p, const struct code *c, const struct function *f, const char *name)
{
	struct insn i = {.len = 1};
	struct insn_detail d;
	uint64_t at;
	for (vaddr_t a = f->start; a < f->end; a += i.len) {
		const uint8_t *code = elf_file__at(c->elf, a, f->end - a);
		if (!code || !insn__detail(code, f->end - a, a, &i, &d))
			return;
		if (reads_field(&d, &at))
			add_use(p, name, at);
	}
}

/* Both builds, while they are compared. */
struct both {
	struct plan *p;
	const struct code *a, *b;
	const struct match *m;
};

/* Does the old build, too, use it there, in a function with the same instructions? Then it asks of it what it always
 * did. */
static bool was_used(const struct both *c, size_t function, const struct ref *r, const char *name)
{
	int32_t old = c->m->ref_b_to_a[r - c->b->refs.items];
	const struct elf_symbol *s =
	    c->m->same_code[function] && old >= 0 ? code__import(c->a, &c->a->refs.items[old]) : NULL;
	return s && strcmp(s->name, name) == 0;
}

static void add_uses(const struct both *c, size_t function)
{
	const struct function *f = &c->b->functions.items[function];
	for (uint32_t i = f->first_ref; i < f->first_ref + f->n_refs; i++) {
		const struct elf_symbol *s = code__import(c->b, &c->b->refs.items[i]);
		if (!s || !contract__is_private(s) || was_used(c, function, &c->b->refs.items[i], s->name))
			continue;
		add_use(c->p, s->name, 0);
		if (ELF64_ST_TYPE(s->s.st_info) != STT_FUNC)
			add_fields(c->p, c->b, f, s->name);
	}
}

void private__list(struct plan *p, const struct code *a, const struct code *b, const struct match *m, const bool *moves)
{
	const struct both c = {p, a, b, m};
	for (size_t i = 0; i < b->functions.n; i++)
		if (!b->functions.items[i].plt && (m->b_to_a[i] < 0 || moves[m->b_to_a[i]]))
			add_uses(&c, i);
	for (size_t i = 1; i < a->elf->n_symbols; i++) {
		const struct elf_symbol *s = &a->elf->symbols[i];
		const struct function *f = s->function ? code__function_at(a, s->function) : NULL;
		if (f && contract__is_private(s) && moves[f - a->functions.items])
			vec__push(&p->private_gives, s->name);
	}
}
