/* See objects.h. */
#include "image/objects.h"

#include <string.h>

#include "image/follow.h"

static int by_callee(const void *a, const void *b)
{
	const struct call *x = a, *y = b;
	if (x->caller != y->caller)
		return x->caller < y->caller ? -1 : 1;
	return (x->callee > y->callee) - (x->callee < y->callee);
}

static int by_place(const void *a, const void *b)
{
	const struct call *x = a, *y = b;
	return (x->insn > y->insn) - (x->insn < y->insn);
}

static void count_calls(struct pass *p)
{
	struct call *c = p->calls.items;
	if (!p->calls.n)
		return;
	qsort(c, p->calls.n, sizeof(*c), by_callee);
	for (size_t i = 0, end; i < p->calls.n; i = end) {
		for (end = i; end < p->calls.n && c[end].caller == c[i].caller && c[end].callee == c[i].callee;)
			end++;
		for (size_t k = i; k < end; k++)
			c[k].of = (uint32_t)(end - i);
	}
	qsort(c, p->calls.n, sizeof(*c), by_place);
}

/* Of the new build only what is not the same in the old one, which was followed there. */
static void run(struct pass *p)
{
	for (size_t i = 0; i < p->code->functions.n; i++)
		if (!p->code->functions.items[i].plt && !(p->new && p->x->p->match->same_code[i]))
			pass__follow(p, (int32_t)i);
}

/* What each function says of its own arguments and result. */
static void look_first(struct pass *p)
{
	p->first = true;
	run(p);
	p->first = false;
	count_calls(p);
}

/* What callees know, callers know too. Returns whether that is anything new. */
static bool pass_up(struct pass *p)
{
	bool any = false;
	for (size_t i = 0; i < p->handed_on.n; i++) {
		const struct handed_on *h = &p->handed_on.items[i];
		uint8_t *knows = &p->knows[h->caller], *sizes = &p->size_params[h->caller];
		uint8_t knew = *knows, sized = *sizes;
		if (!h->argument) {
			*knows |= p->knows[h->callee] & KNOWS_RESULT;
			any = any || *knows != knew;
			continue;
		}
		uint8_t bit = (uint8_t)(1u << (h->argument - 1));
		if (h->whole && (p->knows[h->callee] & (1u << h->as)))
			*knows |= bit;
		if (p->size_params[h->callee] & (1u << h->as))
			*sizes |= bit;
		any = any || *knows != knew || *sizes != sized;
	}
	return any;
}

static void look_again(struct pass *p)
{
	p->record = true;
	run(p);
}

static void pass__end(struct pass *p)
{
	vec__free(&p->labels);
	vec__free(&p->calls);
	vec__free(&p->handed_on);
	free(p->seen);
}

/* Functions with the same code do the same to the same objects in both builds; they were followed in the old one. */
static void share_accesses(const struct planner *x, struct objects *out)
{
	const struct match *m = x->p->match;
	for (size_t i = 0; i < out->old.n; i++) {
		struct access a = out->old.items[i];
		int32_t next = m->a_to_b[a.function];
		if (next < 0 || !m->same_code[next])
			continue;
		a.insn += m->b->functions.items[next].start - m->a->functions.items[a.function].start;
		a.function = next;
		vec__push(&out->new, a);
	}
}

static int by_class(const void *a, const void *b)
{
	const struct access *x = a, *y = b;
	if (x->class != y->class)
		return x->class < y->class ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return (x->size > y->size) - (x->size < y->size);
}

static int by_insn(const void *a, const void *b)
{
	const struct size_argument *x = a, *y = b;
	return (x->insn > y->insn) - (x->insn < y->insn);
}

/* Functions that others call too: exports, and those whose address is taken. */
static void mark_open_functions(struct pass *p)
{
	vaddr_list open = {0};
	split__taken_functions(p->code, &open);
	for (size_t i = 0; i < p->code->elf->n_symbols; i++)
		if (split__is_function_export(p->code->elf, &p->code->elf->symbols[i]))
			vec__push(&open, p->code->elf->symbols[i].function);
	for (size_t i = 0; i < open.n; i++) {
		const struct function *f = code__function_starting(p->code, open.items[i]);
		for (unsigned k = 0; f && k < 6; k++)
			classes__mark_elsewhere(
			    p->classes,
			    classes__named(p->classes, NAME_ARGUMENT,
					   pass__function_id(p, (int32_t)(f - p->code->functions.items)), k));
	}
	vec__free(&open);
}

static int bits_by_class(const void *a, const void *b)
{
	const struct bits_picked *x = a, *y = b;
	if (x->class != y->class)
		return x->class < y->class ? -1 : 1;
	return (x->offset > y->offset) - (x->offset < y->offset);
}

static void settle_bits(struct classes *c, struct bits_picked *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		list[i].class = classes__find(c, list[i].class);
	if (n)
		qsort(list, n, sizeof(*list), bits_by_class);
}

/* Marks what holds a pointer: what hangs off it is accessed as well, or freed. */
static void mark_pointers(struct classes *c, struct access *list, size_t n)
{
	bool *accessed = xcalloc(c->n, sizeof(bool));
	for (size_t i = 0; i < n; i++)
		accessed[list[i].class] = accessed[list[i].class] || !list[i].forms_address;
	for (size_t i = 0; i < n; i++) {
		uint32_t child = list[i].class > CLASS_STACK && list[i].size == 8 && !list[i].forms_address
				     ? classes__known_child(c, list[i].class, NAME_LOAD, list[i].offset)
				     : CLASS_UNKNOWN;
		list[i].holds_pointer = child > CLASS_STACK && (accessed[child] || c->items[child].freed);
	}
	free(accessed);
}

static void settle(struct classes *c, struct access *a)
{
	a->class = classes__find(c, a->class);
	a->call_local = a->class > CLASS_STACK && c->items[a->class].on_stack && !c->items[a->class].elsewhere;
}

void objects__find(const struct planner *x, struct objects *out)
{
	struct classes classes;
	classes__init(&classes);
	size_t ids = x->p->live_code->functions.n + 2 * x->p->next_code->functions.n + 1;
	struct pass old = {.x = x, .classes = &classes, .code = x->p->live_code, .out = out};
	struct pass new = {.x = x, .classes = &classes, .code = x->p->next_code, .new = true, .out = out};
	old.size_params = new.size_params = xcalloc(ids, 1);
	old.knows = new.knows = xcalloc(ids, 1);
	look_first(&old);
	look_first(&new);
	for (bool again = true; again;) {
		again = pass_up(&old);
		again = pass_up(&new) || again;
	}
	mark_open_functions(&old);
	mark_open_functions(&new);
	look_again(&old);
	look_again(&new);
	share_accesses(x, out);
	for (size_t i = 0; i < out->old.n; i++)
		settle(&classes, &out->old.items[i]);
	for (size_t i = 0; i < out->new.n; i++)
		settle(&classes, &out->new.items[i]);
	mark_pointers(&classes, out->old.items, out->old.n);
	mark_pointers(&classes, out->new.items, out->new.n);
	settle_bits(&classes, out->old_bits.items, out->old_bits.n);
	settle_bits(&classes, out->new_bits.items, out->new_bits.n);
	if (out->old.n)
		qsort(out->old.items, out->old.n, sizeof(struct access), by_class);
	if (out->new.n)
		qsort(out->new.items, out->new.n, sizeof(struct access), by_class);
	if (out->sizes.n)
		qsort(out->sizes.items, out->sizes.n, sizeof(struct size_argument), by_insn);
	classes__free(&classes);
	free(old.size_params);
	free(old.knows);
	pass__end(&old);
	pass__end(&new);
}

void objects__free(struct objects *o)
{
	vec__free(&o->old);
	vec__free(&o->new);
	vec__free(&o->sizes);
	vec__free(&o->old_bits);
	vec__free(&o->new_bits);
}
