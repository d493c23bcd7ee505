/* Split: which functions get a slot of the table, in which order, and which stub stands for a function. */
#include <string.h>

#include "image/match.h"
#include "image/split_parts.h"

/* ---- which functions get a slot ---- */

bool split__is_function_export(const struct elf_file *e, const struct elf_symbol *s)
{
	uint8_t type = ELF64_ST_TYPE(s->s.st_info), bind = ELF64_ST_BIND(s->s.st_info);
	return s->s.st_shndx != SHN_UNDEF && s->s.st_shndx < SHN_LORESERVE &&
	       (type == STT_FUNC || type == STT_GNU_IFUNC) &&
	       (bind == STB_GLOBAL || bind == STB_WEAK || bind == STB_GNU_UNIQUE) && elf_file__is_code(e, s->function);
}

static void take(const struct code *code, vaddr_list *out, vaddr_t a)
{
	const struct vapi_slot *slot = elf_file__slot_at(code->elf, a);
	if (slot && (slot->flags & VAPI_SLOT_IFUNC))
		return; /* what escapes is the variant that the slot holds */
	const struct function *f = code__function_starting(code, elf_file__behind_stub(code->elf, a));
	if (f && !f->plt && !f->signal_frame)
		vec__push(out, f->start);
}

void split__taken_functions(const struct code *code, vaddr_list *out)
{
	const struct elf_file *e = code->elf;
	for (size_t i = 0; i < code->refs.n; i++)
		if (code->refs.items[i].kind == REF_ADDRESS)
			take(code, out, code->refs.items[i].target);
	for (size_t i = 0; i < e->relocs.n; i++)
		if (e->relocs.items[i].type == R_X86_64_RELATIVE)
			take(code, out, (vaddr_t)e->relocs.items[i].addend);
	const Elf64_Dyn *fini = elf_file__dyn(e, DT_FINI);
	if (fini)
		take(code, out, fini->d_un.d_ptr);
	const vaddr_t entry = elf_file__entry(e);
	if (entry) /* the dynamic loader keeps it (glibc, elf/dl-load.c: l_entry) */
		take(code, out, entry);
	vaddr_list__sort(out);
	size_t n = 0;
	for (size_t i = 0; i < out->n; i++)
		if (n == 0 || out->items[n - 1] != out->items[i])
			out->items[n++] = out->items[i];
	out->n = n;
}

typedef VEC(struct vapi_slot) slot_list;

static bool has_slot(const slot_list *l, vaddr_t function, bool ifunc)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].function == function && ((l->items[i].flags & VAPI_SLOT_IFUNC) != 0) == ifunc)
			return true;
	return false;
}

static void choose_slots(struct split *s, slot_list *out)
{
	const struct elf_file *in = s->in;
	vaddr_list exported = {0}, taken = {0};
	for (size_t i = 0; i < in->n_symbols; i++) {
		const struct elf_symbol *sym = &in->symbols[i];
		if (!split__is_function_export(in, sym))
			continue;
		bool ifunc = ELF64_ST_TYPE(sym->s.st_info) == STT_GNU_IFUNC;
		struct vapi_slot slot = {sym->function, (uint32_t)i, VAPI_SLOT_EXPORT | (ifunc ? VAPI_SLOT_IFUNC : 0)};
		vec__push(out, slot);
		if (!ifunc)
			vec__push(&exported, sym->function);
	}
	vaddr_list__sort(&exported);
	split__taken_functions(s->code, &taken);
	for (size_t i = 0; i < taken.n; i++)
		if (!vaddr_list__has(&exported, taken.items[i])) {
			struct vapi_slot slot = {taken.items[i], 0, 0};
			vec__push(out, slot);
		}
	for (size_t i = 0; i < s->irelative.n; i++) {
		vaddr_t resolver = (vaddr_t)s->irelative.items[i].addend;
		if (!has_slot(out, resolver, true)) {
			struct vapi_slot slot = {resolver, 0, VAPI_SLOT_IFUNC};
			vec__push(out, slot);
		}
	}
	vec__free(&exported);
	vec__free(&taken);
}

static bool same_export(const struct elf_file *a, const struct vapi_slot *x, const struct elf_file *b,
			const struct vapi_slot *y)
{
	if (!(x->flags & VAPI_SLOT_EXPORT) || !(y->flags & VAPI_SLOT_EXPORT))
		return false;
	const struct elf_symbol *s = &a->symbols[x->symbol], *t = &b->symbols[y->symbol];
	return strcmp(s->name, t->name) == 0 && strcmp(s->version, t->version) == 0;
}

/* Puts the slots in the order of `like`: its exports by name and version, its internal functions by
 * what they match here. A slot whose function is gone stays, spare. */
static struct err *order_like(struct split *s, const struct elf_file *like, slot_list *slots)
{
	if (!like->split)
		return err__new(ERR_REFUSED, 0, like->path, "give a library made by llusplit to --like",
				"not a split library");
	struct code *old_code;
	TRY(code__analyse(like, &old_code));
	struct match *match = match__make(old_code, s->code);
	slot_list ordered = {0};
	for (size_t i = 0; i < like->vapi.n_used; i++) {
		const struct vapi_slot *old = &like->slots[i];
		struct vapi_slot chosen = {0, 0, VAPI_SLOT_SPARE};
		vaddr_t successor = old->flags & VAPI_SLOT_EXPORT ? 0 : match__successor(match, old->function);
		for (size_t k = 0; k < slots->n; k++) {
			struct vapi_slot *x = &slots->items[k];
			bool internal = successor && !(x->flags & (VAPI_SLOT_EXPORT | VAPI_SLOT_SPARE)) &&
					x->function == successor &&
					(x->flags & VAPI_SLOT_IFUNC) == (old->flags & VAPI_SLOT_IFUNC);
			if (!internal && !same_export(like, old, s->in, x))
				continue;
			chosen = *x;
			x->flags = VAPI_SLOT_SPARE; /* taken */
			break;
		}
		vec__push(&ordered, chosen);
	}
	for (size_t k = 0; k < slots->n; k++)
		if (!(slots->items[k].flags & VAPI_SLOT_SPARE))
			vec__push(&ordered, slots->items[k]);
	match__free(match);
	code__free(old_code);
	vec__free(slots);
	slots->items = ordered.items;
	slots->n = ordered.n;
	slots->cap = ordered.cap;
	return NULL;
}

/* Spare slots are for functions whose address later builds take and this one does not. */
static size_t spare_for(size_t used)
{
	return 64 + used / 8;
}

static vaddr_t find_trampoline(const struct code *code)
{
	for (size_t i = 0; i < code->refs.n; i++) {
		const struct ref *r = &code->refs.items[i];
		if (r->kind == REF_ADDRESS && code__is_trampoline(code, r->target))
			return r->target;
	}
	return 0;
}

struct err *split__make_slots(struct split *s, const struct elf_file *like)
{
	for (size_t i = 0; i < s->in->relocs.n; i++)
		if (s->in->relocs.items[i].type == R_X86_64_IRELATIVE)
			vec__push(&s->irelative, s->in->relocs.items[i]);
	slot_list slots = {0};
	choose_slots(s, &slots);
	struct err *err = like ? order_like(s, like, &slots) : NULL;
	if (err) {
		vec__free(&slots);
		return err;
	}
	s->v.trampoline = find_trampoline(s->code);
	s->v.n_used = (uint32_t)slots.n;
	s->v.n_slots = (uint32_t)(slots.n + spare_for(slots.n));
	s->slots = xcalloc(s->v.n_slots, sizeof(*s->slots));
	if (slots.n)
		memcpy(s->slots, slots.items, slots.n * sizeof(*s->slots));
	for (size_t i = slots.n; i < s->v.n_slots; i++)
		s->slots[i].flags = VAPI_SLOT_SPARE;
	vec__free(&slots);
	return NULL;
}

/* The stub that stands for a function: its first export, else its internal one; 0 for none. */
struct canonical {
	vaddr_t function;
	uint32_t slot;
};

static int by_function(const void *a, const void *b)
{
	const struct canonical *x = a, *y = b;
	if (x->function != y->function)
		return x->function < y->function ? -1 : 1;
	return (x->slot > y->slot) - (x->slot < y->slot);
}

struct canonicals canonicals__make(const struct split *s)
{
	struct canonicals c = {xcalloc(s->v.n_used, sizeof(struct canonical)), 0};
	for (uint32_t i = 0; i < s->v.n_used; i++)
		if (!(s->slots[i].flags & (VAPI_SLOT_IFUNC | VAPI_SLOT_SPARE)))
			c.items[c.n++] = (struct canonical){s->slots[i].function, i};
	qsort(c.items, c.n, sizeof(c.items[0]), by_function);
	size_t n = 0; /* the lowest slot of each function stands for it */
	for (size_t i = 0; i < c.n; i++)
		if (n == 0 || c.items[n - 1].function != c.items[i].function)
			c.items[n++] = c.items[i];
	c.n = n;
	return c;
}

vaddr_t canonicals__stub(const struct canonicals *c, const struct vapi_note *v, vaddr_t function)
{
	size_t lo = 0, hi = c->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->items[mid].function < function)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < c->n && c->items[lo].function == function ? vapi__stub(v, c->items[lo].slot) : 0;
}

vaddr_t split__ifunc_stub(const struct split *s, vaddr_t resolver)
{
	for (uint32_t i = 0; i < s->v.n_used; i++)
		if ((s->slots[i].flags & VAPI_SLOT_IFUNC) && s->slots[i].function == resolver)
			return vapi__stub(&s->v, i);
	return 0;
}
