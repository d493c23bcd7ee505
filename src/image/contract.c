/* See contract.h. */
#include "image/contract.h"

#include <string.h>

#include "image/match.h"

bool contract__is_private(const struct elf_symbol *s)
{
	return strcmp(s->version, "GLIBC_PRIVATE") == 0;
}

/* What `e` exports privately by that name, or NULL. */
static const struct elf_symbol *export_of(const struct elf_file *e, const char *name)
{
	for (size_t i = 1; i < e->n_symbols; i++)
		if (e->symbols[i].s.st_shndx != SHN_UNDEF && contract__is_private(&e->symbols[i]) &&
		    strcmp(e->symbols[i].name, name) == 0)
			return &e->symbols[i];
	return NULL;
}

/* ---- the other library, in both builds ---- */

struct both {
	struct code *a, *b; /* of what runs, of what the new code was made for */
	struct match *m;
};

static void both__free(struct both *x)
{
	match__free(x->m);
	code__free(x->a);
	code__free(x->b);
}

static struct err *both__read(const struct elf_file *running, const struct elf_file *made_for, struct both *x)
{
	TRY(code__analyse(running, &x->a));
	TRY(code__analyse(made_for, &x->b));
	x->m = match__make(x->a, x->b);
	return NULL;
}

static bool same_code(const struct both *x, size_t i)
{
	int32_t k = x->m->a_to_b[i];
	return k >= 0 && x->m->same_code[k];
}

/* The function at `at`, and what it calls and jumps to, as far as instructions say: NULL if all of it is the same in
 * both builds, else the first that is not. `seen` is by index. What is called over too many others counts as changed.
 */
enum { CALLS_MAX = 5000 };

// NOLINTNEXTLINE(misc-no-recursion): as deep as CALLS_MAX
static const struct function *first_changed(const struct both *x, vaddr_t at, bool *seen, unsigned depth)
{
	const struct function *f = code__function_at(x->a, at);
	if (!f || f->plt || seen[f - x->a->functions.items])
		return NULL;
	seen[f - x->a->functions.items] = true;
	if (depth > CALLS_MAX || !same_code(x, (size_t)(f - x->a->functions.items)))
		return f;
	for (uint32_t i = f->first_ref; i < f->first_ref + f->n_refs; i++) {
		const struct ref *r = &x->a->refs.items[i];
		const struct function *g =
		    r->kind == REF_CALL || r->kind == REF_JUMP ? first_changed(x, r->target, seen, depth + 1) : NULL;
		if (g)
			return g;
	}
	return NULL;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static struct err *differs(const struct plan *p, const struct elf_file *running, const char *name, const char *how)
{
	return err__new(ERR_REFUSED, 0, p->next->path, "restart the process to run the new builds of both",
			"%s of %s, which stays as it is in this process and which new code uses, %s", name,
			base_name(running->path), how);
}

static struct err *check_function(const struct plan *p, const struct both *x, const char *name, vaddr_t a, vaddr_t b)
{
	FREE_CLEANUP bool *seen = xcalloc(x->a->functions.n, sizeof(bool));
	const struct function *f = code__function_starting(x->a, a), *g = first_changed(x, a, seen, 0);
	if (!f || match__successor(x->m, a) != b)
		return differs(p, x->a->elf, name, "is another function in the new build");
	if (g == f)
		return differs(p, x->a->elf, name, "changed");
	if (!g)
		return NULL;
	FREE_CLEANUP char *callee = code__describe(x->a, g->start);
	FREE_CLEANUP char *how = xasprintf("calls %s, which changed", callee);
	return differs(p, x->a->elf, name, how);
}

/* The function of the library's own that a word of its data leads to, or 0. */
static vaddr_t function_in(const struct elf_file *e, const struct elf_symbol *s, uint64_t at)
{
	const struct elf_reloc *r = at < s->s.st_size ? elf_file__reloc_at(e, s->s.st_value + at) : NULL;
	vaddr_t to = 0;
	if (r && r->type == R_X86_64_RELATIVE)
		to = (vaddr_t)r->addend;
	else if (r && r->type == R_X86_64_64)
		to = e->symbols[r->symbol].function;
	return elf_file__is_code(e, to) ? to : 0;
}

static struct err *check_use(const struct plan *p, const struct both *x, const struct private_use *u)
{
	const struct elf_symbol *made_for = export_of(x->b->elf, u->name), *runs = export_of(x->a->elf, u->name);
	if (!made_for)
		return NULL; /* it is another library's */
	if (!runs)
		return differs(p, x->a->elf, u->name, "is not in the one that runs");
	uint8_t type = ELF64_ST_TYPE(runs->s.st_info);
	if (type != ELF64_ST_TYPE(made_for->s.st_info))
		return differs(p, x->a->elf, u->name, "is something else in the new build");
	if (type == STT_FUNC)
		return check_function(p, x, u->name, runs->function, made_for->function);
	if (type == STT_GNU_IFUNC)
		return differs(p, x->a->elf, u->name, "is chosen when the process starts");
	if (runs->s.st_size != made_for->s.st_size)
		return differs(p, x->a->elf, u->name, "has another size in the new build");
	vaddr_t a = type == STT_TLS ? 0 : function_in(x->a->elf, runs, u->at);
	vaddr_t b = type == STT_TLS ? 0 : function_in(x->b->elf, made_for, u->at);
	if (!a && !b)
		return NULL;
	FREE_CLEANUP char *name = xasprintf("the function at 0x%lx in %s", u->at, u->name);
	if (!a || !b)
		return differs(p, x->a->elf, name, "is in one build only");
	return check_function(p, x, name, a, b);
}

struct err *contract__check_uses(const struct plan *p, const struct elf_file *running, const struct elf_file *made_for)
{
	struct both x = {0};
	struct err *e = p->private_uses.n ? both__read(running, made_for, &x) : NULL;
	for (size_t i = 0; i < p->private_uses.n && !e; i++)
		e = check_use(p, &x, &p->private_uses.items[i]);
	both__free(&x);
	return e;
}

struct err *contract__check_gives(const struct plan *p, const struct elf_file *running)
{
	for (size_t i = 1; i < running->n_symbols; i++) {
		const struct elf_symbol *s = &running->symbols[i];
		if (s->s.st_shndx != SHN_UNDEF || !contract__is_private(s))
			continue;
		for (size_t k = 0; k < p->private_gives.n; k++)
			if (strcmp(s->name, p->private_gives.items[k]) == 0)
				return err__new(ERR_REFUSED, 0, p->next->path,
						"restart the process to run the new builds of both",
						"%s changed, and %s, which stays as it is in this process, uses it",
						s->name, base_name(running->path));
	}
	return NULL;
}

struct err *contract__count_changed(const struct elf_file *a, const struct elf_file *b, size_t *out)
{
	struct both x = {0};
	struct err *e = both__read(a, b, &x);
	*out = 0;
	for (size_t i = 0; !e && i < x.a->functions.n; i++)
		*out += !x.a->functions.items[i].plt && !same_code(&x, i);
	for (size_t i = 0; !e && i < x.b->functions.n; i++)
		*out += !x.b->functions.items[i].plt && x.m->b_to_a[i] < 0;
	both__free(&x);
	return e;
}
