/* Static objects one by one: which object of next's section takes over from which of live's.
 *
 * Where both builds are laid out alike, section and offset say it, and nothing is done here. Where they are not,
 * only symbols say where an object starts and ends: addresses that code leads to may be fields, elements or ends of
 * one and the same object, and tearing an object apart would be wrong in silence. So without a .symtab in both builds
 * a section of another layout is refused.
 *
 *     same name, only once in each build          the same object
 *     a name that is not unique, or numbered by   the same object where unchanged code refers to both at the same
 *     the compiler ("table.3"), or a new name     offset, or a word of matched objects points to both
 *
 * An object that takes over from another must be of the same size; it keeps the old one's address. What has no
 * counterpart is new: allowed in data that is read-only after relocation, where it lives behind the image. What may
 * have one, but it cannot be told which, is refused.
 */
#include <string.h>

#include "image/planner.h"

/* ---- the objects of a section ---- */

static int by_place(const void *a, const void *b)
{
	const struct static_object *x = a, *y = b;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	if (x->size != y->size)
		return x->size < y->size ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* False when objects overlap: then symbols do not say what belongs together. */
static bool list_objects(const struct elf_file *e, vaddr_t start, vaddr_t end, object_list *out)
{
	for (size_t i = 0; i < e->locals.n; i++) {
		const struct elf_local *l = &e->locals.items[i];
		struct static_object o = {.at = l->value, .size = l->size, .name = l->name};
		if (strcmp(l->name, "__dso_handle") == 0)
			o.size = 8; /* crtstuff gives it no size */
		if (l->type != STT_OBJECT || !o.size || l->value < start || l->value >= end)
			continue;
		if (o.size > end - o.at)
			return false;
		vec__push(out, o);
	}
	if (out->n)
		qsort(out->items, out->n, sizeof(out->items[0]), by_place);
	size_t n = 0;
	for (size_t i = 0; i < out->n; i++) {
		struct static_object *o = &out->items[i], *last = n ? &out->items[n - 1] : NULL;
		if (last && last->at == o->at && last->size == o->size) {
			last->aliased = last->aliased || strcmp(last->name, o->name) != 0;
			continue;
		}
		if (last && last->at + last->size > o->at)
			return false;
		o->alone = last ? last->at + last->size < o->at : o->at > start;
		out->items[n++] = *o;
	}
	out->n = n;
	return n > 0;
}

static struct static_object *find(const object_list *l, vaddr_t a)
{
	size_t lo = 0, hi = l->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (l->items[mid].at + l->items[mid].size <= a)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < l->n && a >= l->items[lo].at ? &l->items[lo] : NULL;
}

/* ---- names ---- */

/* Length of a name without the number that the compiler put behind it to tell local variables apart. */
static size_t stem(const char *name)
{
	size_t n = strlen(name), k = n;
	while (k > 0 && name[k - 1] >= '0' && name[k - 1] <= '9')
		k--;
	return k > 1 && k < n && name[k - 1] == '.' ? k - 1 : n;
}

static bool is_numbered(const char *name)
{
	return name[stem(name)] != 0;
}

static bool same_stem(const char *a, const char *b)
{
	size_t n = stem(a);
	return n == stem(b) && memcmp(a, b, n) == 0;
}

const char *statics__symbol(const struct elf_file *e, vaddr_t a, vaddr_t *start, uint64_t *size)
{
	const struct elf_local *found = NULL;
	for (size_t i = 0; i < e->locals.n; i++) {
		const struct elf_local *l = &e->locals.items[i];
		if (l->type != STT_OBJECT || a - l->value >= l->size)
			continue;
		if (found && (found->value != l->value || found->size != l->size))
			return NULL;
		found = l;
	}
	if (!found)
		return NULL;
	*start = found->value;
	*size = found->size;
	return found->name;
}

/* ---- which is which ---- */

struct pairing {
	struct planner *x;
	const struct state_section *s, *old; /* next's section, and live's */
	object_list a, b;                    /* live's objects, next's */
	bool *taken;                         /* by index into a: has a successor */
};

static bool has_name(const object_list *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (same_stem(l->items[i].name, name))
			return true;
	return false;
}

static bool same_layout(const struct pairing *p)
{
	if (p->a.n != p->b.n || p->old->end - p->old->start != p->s->end - p->s->start)
		return false;
	for (size_t i = 0; i < p->a.n; i++) {
		const struct static_object *a = &p->a.items[i], *b = &p->b.items[i];
		if (a->at - p->old->start != b->at - p->s->start || a->size != b->size)
			return false;
		/* renamed, or another object of the same size: only the latter has its name elsewhere */
		if (!same_stem(a->name, b->name) && (has_name(&p->b, a->name) || has_name(&p->a, b->name)))
			return false;
	}
	return true;
}

static void pair(struct pairing *p, struct static_object *a, struct static_object *b)
{
	size_t i = (size_t)(a - p->a.items);
	if (b->live || p->taken[i])
		return;
	if (a->size != b->size)
		planner__refuse(p->x, "state-object",
				"%s in %s is %lu bytes in the old build and %lu in the new; its address may be known",
				b->name, p->s->name, a->size, b->size);
	b->live = a->at;
	p->taken[i] = true;
}

static int by_name(const void *a, const void *b)
{
	const struct static_object *const *x = a, *const *y = b;
	return strcmp((*x)->name, (*y)->name);
}

static struct static_object **sorted(const object_list *l)
{
	struct static_object **out = xcalloc(l->n, sizeof(struct static_object *));
	for (size_t i = 0; i < l->n; i++)
		out[i] = &l->items[i];
	qsort(out, l->n, sizeof(struct static_object *), by_name);
	return out;
}

static size_t same_names(struct static_object *const *l, size_t n, size_t i)
{
	size_t k = i + 1;
	while (k < n && strcmp(l[i]->name, l[k]->name) == 0)
		k++;
	return k - i;
}

static void pair_by_name(struct pairing *p)
{
	FREE_CLEANUP struct static_object **a = sorted(&p->a), **b = sorted(&p->b);
	size_t k = 0;
	for (size_t i = 0; i < p->b.n;) {
		size_t in_b = same_names(b, p->b.n, i);
		while (k < p->a.n && strcmp(a[k]->name, b[i]->name) < 0)
			k++;
		if (k < p->a.n && strcmp(a[k]->name, b[i]->name) == 0 && in_b == 1 && same_names(a, p->a.n, k) == 1 &&
		    !is_numbered(b[i]->name))
			pair(p, a[k], b[i]);
		i += in_b;
	}
}

/* Two addresses that mean the same in both builds: are the objects around them a pair? */
static bool pair_by_use(struct pairing *p, vaddr_t live, vaddr_t next)
{
	struct static_object *a = find(&p->a, live), *b = find(&p->b, next);
	if (!a || !b || b->live || live - a->at != next - b->at || p->taken[a - p->a.items])
		return false;
	pair(p, a, b);
	return true;
}

/* References of code that is the same in both builds and is certain to be the same function. */
static void pair_by_code(struct pairing *p)
{
	const struct match *m = p->x->p->match;
	for (size_t f = 0; f < m->b->functions.n; f++) {
		const struct function *fn = &m->b->functions.items[f];
		if (!m->same_code[f] || m->how[f] < MATCH_CONTENT)
			continue;
		for (uint32_t i = fn->first_ref; i < fn->first_ref + fn->n_refs; i++) {
			const struct ref *r = &m->b->refs.items[i];
			if (m->ref_b_to_a[i] >= 0 && (r->kind == REF_ADDRESS || r->kind == REF_MEMORY))
				pair_by_use(p, m->a->refs.items[m->ref_b_to_a[i]].target, r->target);
		}
	}
}

/* The place of live that corresponds to a word of next's data, or 0. */
static vaddr_t live_word(const struct pairing *p, vaddr_t next)
{
	const struct static_object *o = find(&p->b, next);
	if (!o)
		o = find(&p->x->objects, next);
	if (o)
		return o->live ? o->live + (next - o->at) : 0;
	const struct state_section *s = layout__section(p->x, next);
	if (!s || s == p->s || s->by_object || s->got || !s->live || next >= s->end)
		return 0;
	return s->live + (next - s->start);
}

static bool pair_by_words(struct pairing *p)
{
	const struct elf_file *live = p->x->p->live, *next = p->x->p->next;
	bool any = false;
	for (size_t i = 0; i < next->relocs.n; i++) {
		const struct elf_reloc *r = &next->relocs.items[i];
		if (r->type != R_X86_64_RELATIVE || (vaddr_t)r->addend < p->s->start || (vaddr_t)r->addend >= p->s->end)
			continue;
		vaddr_t at = live_word(p, r->where);
		const struct elf_reloc *old = at ? elf_file__reloc_at(live, at) : NULL;
		if (old && old->type == R_X86_64_RELATIVE)
			any = pair_by_use(p, (vaddr_t)old->addend, (vaddr_t)r->addend) || any;
	}
	return any;
}

/* ---- what is new ---- */

static bool same_bytes(const struct elf_file *e, vaddr_t a, const struct elf_file *f, vaddr_t b, uint64_t n)
{
	const uint8_t *x = elf_file__at(e, a, n), *y = elf_file__at(f, b, n);
	for (uint64_t i = 0; x && y && i < n; i += 8) {
		bool p = elf_file__reloc_at(e, a + i) != NULL, q = elf_file__reloc_at(f, b + i) != NULL;
		if (p != q || (!p && memcmp(x + i, y + i, n - i < 8 ? n - i : 8) != 0))
			return false;
	}
	return x && y;
}

/* An object of live without a successor that this one could take over from, for all that is known. */
static const struct static_object *may_succeed(const struct pairing *p, const struct static_object *b)
{
	for (size_t i = 0; i < p->a.n; i++) {
		const struct static_object *a = &p->a.items[i];
		if (!p->taken[i] &&
		    (a->aliased || b->aliased || same_stem(a->name, b->name) ||
		     (a->size == b->size && same_bytes(p->x->p->live, a->at, p->x->p->next, b->at, b->size))))
			return a;
	}
	return NULL;
}

static bool is_build(const struct elf_file *e, const uint8_t *id, uint32_t len)
{
	return build_id__equal(e->build_id, e->build_id_len, id, len);
}

/* Where the same build had it when it ran before. */
static vaddr_t earlier_home(const struct planner *x, vaddr_t at)
{
	for (size_t i = 0; x->map && i < x->map->n_past; i++) {
		const struct past_image *m = &x->map->past[i];
		if (!is_build(x->p->next, m->build_id, m->build_id_len))
			continue;
		for (size_t k = 0; k < m->n_pieces; k++)
			if (m->pieces[k].at == at)
				return m->pieces[k].home;
	}
	return 0;
}

/* An older image has objects of its own that live does not know: one of them may be this one. */
static bool may_be_older(const struct planner *x)
{
	const struct live_map *m = x->map;
	for (size_t i = 0; m && i < m->n_past; i++)
		for (size_t k = 0; k < m->past[i].n_pieces; k++) {
			bool known = false;
			for (size_t q = 0; q < m->n_pieces && !known; q++)
				known = m->pieces[q].home == m->past[i].pieces[k].home;
			if (!known)
				return true;
		}
	return false;
}

static bool add_own_words(struct planner *x, struct static_object *o)
{
	struct plan *p = x->p;
	enum { ALIGN = 8 }; /* words */
	const struct elf_section *s = elf_file__section_at(p->next, o->at);
	if (!s || s->h.sh_addralign > 8UL * ALIGN)
		return false;
	while (p->own_words.n % ALIGN != o->at / 8 % ALIGN)
		vec__push(&p->own_words, (struct new_got){.kind = NEW_GOT_VALUE});
	if (o->at % 8 || !elf_file__at(p->next, o->at, o->size))
		return false;
	o->home = HOME_OWN + p->own_words.n * 8;
	for (uint64_t i = 0; i < o->size; i += 8) {
		struct new_got w = {.kind = NEW_GOT_VALUE};
		const uint8_t *from = elf_file__at(p->next, o->at + i, o->size - i < 8 ? o->size - i : 8);
		memcpy(&w.value, from, o->size - i < 8 ? o->size - i : 8); /* what is an address is settled later */
		vec__push(&p->own_words, w);
	}
	return true;
}

static void place_new(struct pairing *p, struct static_object *b)
{
	struct planner *x = p->x;
	const struct static_object *a = may_succeed(p, b);
	/* where it was before; but nobody kept the value of a writable one up to date meanwhile */
	if (p->s->refreshed && is_build(x->p->next, x->p->vapi->build_id, x->p->vapi->build_id_len))
		b->home = b->at;
	else if (p->s->refreshed)
		b->home = earlier_home(x, b->at);
	if (a && !b->home)
		planner__refuse(x, "state-object", "%s in %s may be the old build's %s, or not; it cannot be told",
				b->name, p->s->name, a->name);
	else if (!b->home && !p->s->refreshed)
		planner__refuse(x, "state-object", "%s (%lu bytes) is new in %s, where there is no room for it",
				b->name, b->size, p->s->name);
	else if (!b->home && may_be_older(x))
		planner__refuse(x, "state-object",
				"%s is new in %s, and it cannot be told from what an earlier update brought", b->name,
				p->s->name);
	else if (!b->home && !b->alone)
		planner__refuse(
		    x, "boundary",
		    "%s is new in %s, and starts where something else ends: what an address there means cannot be "
		    "decided",
		    b->name, p->s->name);
	else if (!b->home && !add_own_words(x, b))
		planner__refuse(x, "state-object", "%s is new in %s, in a form that is not supported", b->name,
				p->s->name);
}

/* Going back to the file that the process loaded, each of its objects is where it always was. */
static void check_own_places(const struct pairing *p)
{
	struct planner *x = p->x;
	if (!is_build(x->p->next, x->p->vapi->build_id, x->p->vapi->build_id_len))
		return;
	for (size_t i = 0; i < p->b.n; i++) {
		const struct static_object *b = &p->b.items[i];
		if (b->live && layout__home_of_live(x, b->live) != b->at)
			planner__refuse(x, "state-object",
					"%s in %s was elsewhere in the build that the process loaded", b->name,
					p->s->name);
	}
}

/* The arrays of the loader end in front of some sections; no code refers to them. */
static bool follows_loader_array(const struct planner *x, const struct state_section *s)
{
	return s > x->state.items && (strcmp(s[-1].name, ".fini_array") == 0 || strcmp(s[-1].name, ".init_array") == 0);
}

bool statics__map(struct planner *x, struct state_section *s, const struct state_section *old)
{
	struct pairing p = {.x = x, .s = s, .old = old};
	if (!list_objects(x->p->live, old->start, old->end, &p.a) ||
	    !list_objects(x->p->next, s->start, s->end, &p.b) || same_layout(&p)) {
		vec__free(&p.a);
		vec__free(&p.b);
		return false;
	}
	p.taken = xcalloc(p.a.n, sizeof(bool));
	if (p.b.items[0].at == s->start)
		p.b.items[0].alone = follows_loader_array(x, s);
	pair_by_name(&p);
	pair_by_code(&p);
	while (pair_by_words(&p))
		;
	for (size_t i = 0; i < p.b.n; i++)
		if (!p.b.items[i].live)
			place_new(&p, &p.b.items[i]);
	check_own_places(&p);
	for (size_t i = 0; i < p.b.n; i++)
		vec__push(&x->objects, p.b.items[i]);
	s->by_object = true;
	vec__free(&p.a);
	vec__free(&p.b);
	free(p.taken);
	return true;
}

const struct static_object *statics__object_at(const struct planner *x, vaddr_t a)
{
	return find(&x->objects, a);
}

const struct static_object *statics__object_before(const struct planner *x, vaddr_t a)
{
	const struct static_object *o = a ? find(&x->objects, a - 1) : NULL;
	return o && o->at + o->size == a ? o : NULL;
}

/* ---- for the update after this one ---- */

static int by_at(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;
	return (x->at > y->at) - (x->at < y->at);
}

void statics__record(struct planner *x)
{
	struct plan *p = x->p;
	for (size_t i = 0; i < x->objects.n; i++) {
		const struct static_object *o = &x->objects.items[i];
		vec__push(&p->pieces, ((struct piece){o->at, o->size, layout__home(x, o->at)}));
	}
	for (size_t i = 0; i < x->state.n; i++) {
		const struct state_section *s = &x->state.items[i];
		for (size_t k = 0; x->map && !s->by_object && s->live && k < x->map->n_pieces; k++) {
			struct piece q = x->map->pieces[k];
			if (q.at < s->live || q.at - s->live >= s->end - s->start)
				continue;
			q.at = s->start + (q.at - s->live);
			vec__push(&p->pieces, q);
		}
	}
	if (p->pieces.n)
		qsort(p->pieces.items, p->pieces.n, sizeof(p->pieces.items[0]), by_at);
}
