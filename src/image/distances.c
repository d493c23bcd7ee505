/* Distances to functions in constants: tables by which code is come to that no relocation and no instruction tells of,
 * as hand-written assembly and relative virtual tables have them. Such a table is the image's, and so is the code that
 * it leads to; but whoever keeps the table's address, in the heap, goes on using the old one, when the code is gone. A
 * table for switch is no such table: only its own function uses it. */
#include <string.h>

#include "image/planner.h"

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

/* A place whose address is taken: by a function, or (NULL) by a pointer. */
struct taken {
	vaddr_t at;
	const struct function *by;
};

typedef VEC(struct taken) taken_list;

static int by_address(const void *a, const void *b)
{
	const struct taken *x = a, *y = b;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return (x->by > y->by) - (x->by < y->by);
}

static void list_taken(const struct code *c, taken_list *out)
{
	for (size_t i = 0; i < c->functions.n; i++) {
		const struct function *f = &c->functions.items[i];
		for (uint32_t k = f->first_ref; k < f->first_ref + f->n_refs; k++)
			if (c->refs.items[k].kind == REF_ADDRESS)
				vec__push(out, (struct taken){c->refs.items[k].target, f});
	}
	for (size_t i = 0; i < c->elf->relocs.n; i++)
		if (c->elf->relocs.items[i].type == R_X86_64_RELATIVE)
			vec__push(out, (struct taken){(vaddr_t)c->elf->relocs.items[i].addend, NULL});
	if (out->n)
		qsort(out->items, out->n, sizeof(out->items[0]), by_address);
}

/* Is `f` among those who take this address? They are items `first` to `behind`. */
static bool takes(const taken_list *l, size_t first, size_t behind, const struct function *f)
{
	const struct taken key = {l->items[first].at, f};
	return bsearch(&key, l->items + first, behind - first, sizeof(key), by_address) != NULL;
}

/* Where a table for switch at an address that is taken (items `first` to `behind`) ends; it begins there, and all of
 * its words lead to code, at least one of them into a function that takes the address. The address itself where there
 * is none. */
static vaddr_t end_of_switch(const struct code *c, const taken_list *l, size_t first, size_t behind)
{
	vaddr_t base = l->items[first].at, limit = behind < l->n ? l->items[behind].at : UINT64_MAX, at = base, d;
	bool own = false;
	for (; at < limit && read_distance(c->elf, at, &d) && elf_file__is_code(c->elf, base + d); at += 4) {
		const struct function *f = own ? NULL : code__function_at(c, base + d);
		own = own || (f && takes(l, first, behind, f));
	}
	return own ? at : base;
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

static void check_section(struct planner *x, const struct code *c, const struct elf_section *s, const taken_list *l)
{
	size_t behind = 0; /* of those who take the address that is the nearest */
	vaddr_t base = UINT64_MAX, last = 0, switch_end = 0;
	for (vaddr_t at = align_up(s->h.sh_addr, 4); at + 4 <= s->h.sh_addr + s->h.sh_size; at += 4) {
		while (behind < l->n && l->items[behind].at <= at) {
			size_t first = behind;
			base = l->items[first].at;
			while (behind < l->n && l->items[behind].at == base)
				behind++;
			switch_end = base >= s->h.sh_addr ? end_of_switch(c, l, first, behind) : 0;
		}
		const struct function *f = at < switch_end ? NULL : meant(c, at, base, &last);
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
	taken_list taken = {0};
	list_taken(c, &taken);
	for (size_t i = 1; i < c->elf->n_sections; i++)
		if (holds_constants(c->elf, &c->elf->sections[i]))
			check_section(x, c, &c->elf->sections[i], &taken);
	vec__free(&taken);
}

void distances__check(struct planner *x)
{
	check_build(x, x->p->live_code);
	check_build(x, x->p->next_code);
}
