/* Distances to functions in constants: tables by which code is come to that no relocation and no instruction tells of,
 * as hand-written assembly and relative virtual tables have them. Such a table is the image's, and so is the code that
 * it leads to; but whoever keeps the table's address, in the heap, goes on using the old one, when the code is gone. A
 * table for switch is no such table: only its own function uses it. */
#include <string.h>

#include "image/planner.h"

static int by_address(const void *a, const void *b)
{
	vaddr_t x = *(const vaddr_t *)a, y = *(const vaddr_t *)b;
	return (x > y) - (x < y);
}

static bool holds_constants(const struct elf_file *e, const struct elf_section *s)
{
	return (s->h.sh_flags & (SHF_ALLOC | SHF_WRITE | SHF_EXECINSTR)) == SHF_ALLOC && s->h.sh_type == SHT_PROGBITS &&
	       s->data && s->h.sh_addr < elf_file__end(e) && strncmp(s->name, ".eh_frame", 9) != 0 &&
	       strncmp(s->name, ".gcc_except_table", 17) != 0;
}

static bool read_distance(const struct elf_file *e, vaddr_t at, vaddr_t *out)
{
	int32_t d;
	const uint8_t *p = elf_file__at(e, at, sizeof(d));
	if (!p)
		return false;
	memcpy(&d, p, sizeof(d));
	*out = (vaddr_t)(int64_t)d;
	return true;
}

/* Constants whose address is taken. */
static void list_bases(const struct code *c, vaddr_list *out)
{
	for (size_t i = 0; i < c->refs.n; i++)
		if (c->refs.items[i].kind == REF_ADDRESS)
			vec__push(out, c->refs.items[i].target);
	for (size_t i = 0; i < c->elf->relocs.n; i++)
		if (c->elf->relocs.items[i].type == R_X86_64_RELATIVE)
			vec__push(out, (vaddr_t)c->elf->relocs.items[i].addend);
	if (out->n)
		qsort(out->items, out->n, sizeof(vaddr_t), by_address);
}

/* The words of tables for switch: from an address that a function takes on, as long as they lead to code, where one of
 * them leads into that function. */
static void list_switches(const struct code *c, vaddr_list *out)
{
	for (size_t i = 0; i < c->functions.n; i++) {
		const struct function *f = &c->functions.items[i];
		for (uint32_t k = f->first_ref; k < f->first_ref + f->n_refs; k++) {
			const struct ref *r = &c->refs.items[k];
			vaddr_t d, at = r->target;
			bool own = false;
			if (r->kind != REF_ADDRESS || elf_file__is_code(c->elf, at))
				continue;
			for (; read_distance(c->elf, at, &d) && elf_file__is_code(c->elf, r->target + d); at += 4)
				own = own || r->target + d - f->start < f->end - f->start;
			for (vaddr_t word = r->target; own && word < at; word += 4)
				vec__push(out, word);
		}
	}
	if (out->n)
		qsort(out->items, out->n, sizeof(vaddr_t), by_address);
}

static const struct function *led_to(const struct code *c, vaddr_t to)
{
	const struct function *f = code__function_starting(c, to);
	return f && !f->plt ? f : NULL;
}

/* In a library as large as libcrypto some word leads to a function by chance. So what is counted from the word itself
 * must have another such word near it, and a base must be near. */
static const struct function *meant(const struct code *c, vaddr_t at, vaddr_t base, vaddr_t *last)
{
	enum { NEAR = 64, TABLE_MAX = 4096 };
	vaddr_t d, former = *last;
	if (!read_distance(c->elf, at, &d) || d == 0)
		return NULL;
	const struct function *f = base <= at && at - base < TABLE_MAX ? led_to(c, base + d) : NULL;
	if (f)
		return f;
	f = led_to(c, at + d);
	if (f)
		*last = at;
	return f && former && at - former <= NEAR ? f : NULL;
}

static void check_section(struct planner *x, const struct code *c, const struct elf_section *s, const vaddr_list *bases,
			  const vaddr_list *switches)
{
	size_t base = 0;
	vaddr_t last = 0;
	for (vaddr_t at = align_up(s->h.sh_addr, 4); at + 4 <= s->h.sh_addr + s->h.sh_size; at += 4) {
		while (base + 1 < bases->n && bases->items[base + 1] <= at)
			base++;
		if (switches->n && bsearch(&at, switches->items, switches->n, sizeof(at), by_address))
			continue;
		const struct function *f = meant(c, at, bases->n ? bases->items[base] : UINT64_MAX, &last);
		if (!f)
			continue;
		FREE_CLEANUP char *name = code__describe(c, f->start);
		planner__refuse(
		    x, "code-distances",
		    "a constant at 0x%lx of the %s build seems to lead to %s by its distance: who keeps it would "
		    "come to code that is gone",
		    at, c == x->p->next_code ? "new" : "old", name);
		return;
	}
}

static void check_build(struct planner *x, const struct code *c)
{
	vaddr_list bases = {0}, switches = {0};
	list_bases(c, &bases);
	list_switches(c, &switches);
	for (size_t i = 1; i < c->elf->n_sections; i++)
		if (holds_constants(c->elf, &c->elf->sections[i]))
			check_section(x, c, &c->elf->sections[i], &bases, &switches);
	vec__free(&bases);
	vec__free(&switches);
}

void distances__check(struct planner *x)
{
	check_build(x, x->p->live_code);
	check_build(x, x->p->next_code);
}
