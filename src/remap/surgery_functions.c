/* The functions of the live code and where they will be, as the freeze wants to know them (surgery.h). */
#include "remap/surgery_parts.h"

/* A function's name and where it is in live's file. */
struct named {
	vaddr_t at;
	const char *name;
};

typedef VEC(struct named) name_list;

static int by_address(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	return (x->at > y->at) - (x->at < y->at);
}

static name_list names_of(const struct elf_file *e)
{
	name_list names = {0};
	for (size_t i = 0; i < e->locals.n; i++)
		if (e->locals.items[i].type != STT_OBJECT)
			vec__push(&names, (struct named){e->locals.items[i].value, e->locals.items[i].name});
	for (size_t i = 0; i < e->n_symbols; i++)
		if (e->symbols[i].function)
			vec__push(&names, (struct named){e->symbols[i].function, e->symbols[i].name});
	if (names.n)
		qsort(names.items, names.n, sizeof(names.items[0]), by_address);
	return names;
}

static const char *name_at(const name_list *names, vaddr_t at)
{
	const struct named key = {at, NULL};
	const struct named *n =
	    names->n ? bsearch(&key, names->items, names->n, sizeof(names->items[0]), by_address) : NULL;
	return n ? n->name : NULL;
}

void surgery__functions(const struct surgery *s, function_list *out)
{
	const struct plan *p = s->plan;
	name_list names = names_of(p->live);
	for (size_t i = 0; i < p->functions.n; i++) {
		const struct succession *f = &p->functions.items[i];
		taddr_t start = surgery__at(s, s->l->map.base + f->start);
		struct freeze_function x = {
		    .range = {start, taddr_add(start, f->end - f->start)},
		    .successor = f->identical ? surgery__at(s, s->base + f->next) : taddr(0),
		    .name = name_at(&names, f->start),
		};
		vec__push(out, x);
	}
	vec__free(&names);
}

void surgery__returns(const struct surgery *s, return_list *out)
{
	for (size_t i = 0; i < s->plan->returns.n; i++) {
		const struct tail_return *r = &s->plan->returns.items[i];
		const struct freeze_return x = {surgery__at(s, s->l->map.base + r->at),
						surgery__at(s, s->base + r->next)};
		vec__push(out, x);
	}
}
