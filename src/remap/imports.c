/* See imports.h. */
#include "remap/imports.h"

size_t imports__count(const struct plan *plan)
{
	return plan->new_got.n + plan->own_words.n;
}

static const struct new_got *word_of(const struct plan *plan, size_t i)
{
	return i < plan->new_got.n ? &plan->new_got.items[i] : &plan->own_words.items[i - plan->new_got.n];
}

bool imports__any(const struct plan *plan)
{
	for (size_t i = 0; i < imports__count(plan); i++)
		if (word_of(plan, i)->kind == NEW_GOT_SYMBOL)
			return true;
	return false;
}

static struct err *refuse(const struct provider *importer, const struct new_got *g, const char *why)
{
	return err__new(ERR_REFUSED, 0, importer->library->path, NULL, "the new build imports %s%s%s, %s", g->name,
			*g->version ? "@" : "", g->version, why);
}

static struct err *refuse_from(const struct provider *importer, const struct new_got *g, const struct provider *from,
			       const char *why)
{
	FREE_CLEANUP char *text = xasprintf("a new export of %s, %s", from->library->path, why);
	return refuse(importer, g, text);
}

static bool is_function(const struct elf_file *e, const struct elf_symbol *s)
{
	const struct vapi_slot *slot = elf_file__slot_at(e, s->s.st_value);
	return ELF64_ST_TYPE(s->s.st_info) == STT_FUNC && !(slot && (slot->flags & VAPI_SLOT_IFUNC)) &&
	       elf_file__is_code(e, s->function);
}

/* The address that a running build's function is known by already, or 0. */
static vaddr_t address_now(const struct loaded *l, vaddr_t function)
{
	const struct vapi_note *v = &l->vapi->vapi;
	for (uint32_t i = 0; i < v->n_slots; i++) {
		vaddr_t f = l->map.slots ? l->map.slots[i] : i < v->n_used ? l->vapi->slots[i].function : 0;
		if (f == function && (i >= v->n_used || !(l->vapi->slots[i].flags & VAPI_SLOT_IFUNC)))
			return elf_file__canonical(l->vapi, i);
	}
	return 0;
}

static struct err *take(const struct provider *self, const struct new_got *g, const struct provider *from,
			const struct elf_file *build, const struct elf_symbol *s, taddr_t *out)
{
	if (!is_function(build, s))
		return refuse_from(self, g, from, "which is no function");
	if (from->plan && from->order > self->order)
		return refuse_from(self, g, from, "and the two libraries need each other");
	vaddr_t at = from->plan ? plan__stub(from->plan, s->function) : address_now(from->library, s->function);
	if (!at)
		return refuse_from(self, g, from, "for which no entry point is left there");
	*out = loaded__at(from->library, at);
	return NULL;
}

/* A new export of a library that the importer needs. */
static struct err *find_new_export(struct linkmap *map, const struct provider *p, size_t n, size_t self,
				   const struct new_got *g, bool *found, taddr_t *out)
{
	for (size_t i = 0; i < n; i++) {
		const struct elf_file *build = p[i].plan ? p[i].plan->next : p[i].library->live;
		const struct elf_symbol *s = i == self ? NULL : linkmap__definition(build, g->name, g->version);
		bool in_scope = false;
		if (s)
			TRY(linkmap__in_scope(map, p[self].library->bias, p[i].library->bias, &in_scope));
		if (!in_scope)
			continue;
		*found = true;
		return take(&p[self], g, &p[i], build, s, out);
	}
	return NULL;
}

struct err *imports__resolve(struct linkmap *map, const struct provider *p, size_t n, size_t self, taddr_t *out)
{
	const struct plan *plan = p[self].plan;
	for (size_t i = 0; i < imports__count(plan); i++) {
		const struct new_got *g = word_of(plan, i);
		bool found;
		out[i] = taddr(0);
		if (g->kind != NEW_GOT_SYMBOL)
			continue;
		TRY(linkmap__lookup(map, p[self].library->bias, g->name, g->version, &found, &out[i]));
		if (!found)
			TRY(find_new_export(map, p, n, self, g, &found, &out[i]));
		if (!found && !g->weak)
			return refuse(&p[self], g, "which nothing in the process provides");
	}
	return NULL;
}
