/* Finding where two types differ.
 *
 * Two types are equal when no difference is found under the assumption that they are (so recursive
 * types end): pairs under comparison, and pairs proved, are in `proved`. A false result ends every
 * comparison that is under way, so what was assumed is dropped as a whole. */
#include "image/types_diff.h"

#include <inttypes.h>
#include <string.h>

enum { STEPS_MAX = 100000000 };

/* --- small things --- */

bool comparer__step(struct comparer *c)
{
	if (++c->steps > STEPS_MAX)
		c->too_complex = true;
	return !c->too_complex;
}

static size_t pair_slot(const struct pair_set *s, uint64_t key)
{
	size_t i = (size_t)((key * 0x9e3779b97f4a7c15u) >> 20) & (s->cap - 1);
	while (s->keys[i] && s->keys[i] != key)
		i = (i + 1) & (s->cap - 1);
	return i;
}

/* Adds a pair; false when it is there already. */
static bool pair_set__add(struct pair_set *s, uint32_t a, uint32_t b)
{
	uint64_t key = (uint64_t)a << 32 | b;
	if (s->n * 2 >= s->cap) {
		struct pair_set bigger = {.n = s->n, .cap = s->cap ? s->cap * 2 : 1024};
		bigger.keys = xcalloc(bigger.cap, sizeof(*bigger.keys));
		for (size_t i = 0; i < s->cap; i++)
			if (s->keys[i])
				bigger.keys[pair_slot(&bigger, s->keys[i])] = s->keys[i];
		free(s->keys);
		*s = bigger;
	}
	size_t i = pair_slot(s, key);
	if (s->keys[i])
		return false;
	s->keys[i] = key;
	s->n++;
	return true;
}

static void pair_set__clear(struct pair_set *s)
{
	free(s->keys);
	*s = (struct pair_set){0};
}

static bool is_aggregate(const struct type_node *n)
{
	return n->kind == TYPE_STRUCT || n->kind == TYPE_UNION || n->kind == TYPE_ENUM;
}

void changed(struct changes *to, uint64_t at, char *text)
{
	to->n_found++;
	vec__push(&to->list, (struct change){at, to->list.n, text});
}

void changes__free(struct changes *s)
{
	for (size_t i = 0; i < s->list.n; i++)
		free(s->list.items[i].text);
	for (size_t i = 0; i < s->remarks.n; i++)
		free(s->remarks.items[i]);
	vec__free(&s->list);
	vec__free(&s->remarks);
}

/* --- equality --- */

/* A name's definition in the build, in the sorted list; `named.n` if there is none. */
static size_t find_named(const struct types *t, const struct type_node *like)
{
	size_t lo = 0, hi = t->named.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (type_node__compare_names(node(t, t->named.items[mid]), like) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < t->named.n && type_node__compare_names(node(t, t->named.items[lo]), like) == 0 ? lo : t->named.n;
}

/* The node that describes what `id` names: itself unless it is a declaration. */
static bool describe(const struct types *t, uint32_t *id)
{
	const struct type_node *n = node(t, *id);
	if (!n->declaration)
		return true;
	size_t i = n->name ? find_named(t, n) : t->named.n;
	if (i == t->named.n)
		return false;
	*id = t->named.items[i];
	return true;
}

/* Are two structs, unions or enums equal in every part? */
// NOLINTNEXTLINE(misc-no-recursion): as deep as TYPE_DEPTH_MAX
static bool same_definition(struct comparer *c, uint32_t oid, uint32_t nid)
{
	struct changes to = {.quiet = true};
	if (!pair_set__add(&c->proved, oid, nid))
		return true;
	comparer__definitions(c, oid, nid, "", 0, &to);
	changes__free(&to);
	return to.n_found == 0 && !c->too_complex;
}

// NOLINTNEXTLINE(misc-no-recursion)
static bool same_aggregate(struct comparer *c, uint32_t oid, uint32_t nid, bool value)
{
	const struct type_node *o = node(c->o, oid), *n = node(c->n, nid);
	bool same_name = o->name && n->name && type_node__compare_names(o, n) == 0;
	bool declared = o->declaration || n->declaration;
	if (o->kind != n->kind)
		return false;
	if (same_name && declared && !value)
		return true;
	if (!describe(c->o, &oid) || !describe(c->n, &nid))
		return false;
	if (same_name && !(c->whole && value) && (declared || (!o->ambiguous && !n->ambiguous)))
		return true; /* it is compared by itself */
	return same_definition(c, oid, nid);
}

/* Elements and dimensions of an array, of arrays of arrays too. False: too many to compare. */
struct shape {
	uint32_t element;
	size_t n;
	uint64_t counts[32];
};

static bool array_shape(const struct types *t, uint32_t id, struct shape *s)
{
	s->n = 0;
	for (id = types__strip(t, id); node(t, id)->kind == TYPE_ARRAY; id = types__strip(t, id)) {
		const struct type_node *a = node(t, id);
		for (uint32_t i = 0; i < a->n; i++) {
			const struct type_part *p = &t->parts.items[a->first + i];
			if (p->what != PART_DIMENSION || s->n == sizeof(s->counts) / sizeof(s->counts[0]))
				return false;
			s->counts[s->n++] = p->at;
		}
		if (a->n == 0 && s->n < sizeof(s->counts) / sizeof(s->counts[0]))
			s->counts[s->n++] = COUNT_OPEN;
		else if (a->n == 0)
			return false;
		id = a->target;
	}
	s->element = id;
	return true;
}

static bool same_shape(struct comparer *c, uint32_t oid, uint32_t nid, struct shape *o, struct shape *n)
{
	return array_shape(c->o, oid, o) && array_shape(c->n, nid, n) && o->n == n->n &&
	       memcmp(o->counts, n->counts, o->n * sizeof(o->counts[0])) == 0;
}

/* `value`: an object holds it, and does not just point to it. */
// NOLINTNEXTLINE(misc-no-recursion)
static bool same_nested(struct comparer *c, uint32_t oid, uint32_t nid, bool value)
{
	oid = types__strip(c->o, oid);
	nid = types__strip(c->n, nid);
	const struct type_node *o = node(c->o, oid), *n = node(c->n, nid);
	struct shape os, ns;
	if (!comparer__step(c) || o->kind != n->kind)
		return false;
	switch ((enum type_kind)o->kind) {
	case TYPE_VOID:
	case TYPE_FUNCTION:
		return true;
	case TYPE_BASE:
		return o->size == n->size && o->encoding == n->encoding;
	case TYPE_POINTER:
	case TYPE_REFERENCE:
	case TYPE_RVALUE_REFERENCE:
	case TYPE_MEMBER_POINTER:
		break;
	case TYPE_ARRAY:
		if (!same_shape(c, oid, nid, &os, &ns))
			return false;
		break;
	case TYPE_STRUCT:
	case TYPE_UNION:
	case TYPE_ENUM:
		break;
	case TYPE_ALIAS:
	case TYPE_UNKNOWN:
		return false;
	}
	if (c->depth > TYPE_DEPTH_MAX * 5) {
		c->too_complex = true;
		return false;
	}
	c->depth++;
	bool same = false;
	if (is_aggregate(o))
		same = same_aggregate(c, oid, nid, value);
	else if (o->kind == TYPE_ARRAY)
		same = same_nested(c, os.element, ns.element, value);
	else
		same = o->size == n->size && same_nested(c, o->target, n->target, false);
	c->depth--;
	return same;
}

/* The same, from outside: drops what was assumed when it was wrong. */
// NOLINTNEXTLINE(misc-no-recursion)
static bool same_type(struct comparer *c, uint32_t oid, uint32_t nid, bool value)
{
	bool same = same_nested(c, oid, nid, value);
	if (!same && c->depth == 0)
		pair_set__clear(&c->proved);
	return same;
}

/* --- differences in words --- */

/* "0x10", or "0x10 bit 3" of a bit-field; an enumerator's value; a slot. */
struct place {
	char s[40];
};

static struct place place_of(const struct type_part *p, uint64_t base)
{
	struct place w;
	uint64_t at = p->at + base;
	if (p->what == PART_ENUMERATOR)
		snprintf(w.s, sizeof(w.s), "%" PRId64, (int64_t)p->at);
	else if (p->what == PART_VIRTUAL)
		snprintf(w.s, sizeof(w.s), "slot %" PRIu64, p->at);
	else if (p->bits)
		snprintf(w.s, sizeof(w.s), "0x%" PRIx64 " bit %u", at / 8, (unsigned)(at % 8));
	else
		snprintf(w.s, sizeof(w.s), "0x%" PRIx64, at / 8);
	return w;
}

static const char *word_of(const struct type_part *p)
{
	return p->what == PART_BASE ? "base class " : p->what == PART_VIRTUAL ? "virtual function " : "";
}

static const char *name_of(const struct type_part *p)
{
	return p->name ? p->name : "(unnamed)";
}

/* Both types in words, and how they came to differ. */
static char *type_change(struct comparer *c, uint32_t oid, uint32_t nid)
{
	uint32_t os = types__strip(c->o, oid), ns = types__strip(c->n, nid);
	FREE_CLEANUP char *o = types__text(c->o, oid);
	FREE_CLEANUP char *n = types__text(c->n, nid);
	if (strcmp(o, n) == 0) {
		free(o);
		free(n);
		o = types__text(c->o, os);
		n = types__text(c->n, ns);
	}
	uint64_t o_size = types__size(c->o, oid), n_size = types__size(c->n, nid);
	if (strcmp(o, n) != 0 && o_size != n_size)
		return xasprintf("%s -> %s (%" PRIu64 " -> %" PRIu64 " bytes)", o, n, o_size, n_size);
	if (strcmp(o, n) != 0)
		return xasprintf("%s -> %s", o, n);
	bool aggregates = is_aggregate(node(c->o, os)) && is_aggregate(node(c->n, ns));
	if (aggregates && (!describe(c->o, &os) || !describe(c->n, &ns)))
		return xasprintf("%s is not described", o);
	return xasprintf("what %s means has changed", o);
}

/* A function behind a pointer, with another signature? */
static bool signature_changed(struct comparer *c, uint32_t oid, uint32_t nid)
{
	const struct type_node *o = node(c->o, types__strip(c->o, oid)), *n = node(c->n, types__strip(c->n, nid));
	if (o->kind != TYPE_POINTER || n->kind != TYPE_POINTER)
		return false;
	uint32_t of = types__strip(c->o, o->target), nf = types__strip(c->n, n->target);
	if (node(c->o, of)->kind != TYPE_FUNCTION || node(c->n, nf)->kind != TYPE_FUNCTION)
		return false;
	FREE_CLEANUP char *a = types__text(c->o, of);
	FREE_CLEANUP char *b = types__text(c->n, nf);
	return strcmp(a, b) != 0;
}

/* An array of characters? */
static bool is_bytes(const struct types *t, uint32_t id)
{
	const struct type_node *n = node(t, types__strip(t, id));
	if (n->kind != TYPE_ARRAY)
		return false;
	const struct type_node *element = node(t, types__strip(t, n->target));
	return element->kind == TYPE_BASE && element->size == 1;
}

/* Is one a struct and the other a union, of the same size, of the same members and their bytes? */
// NOLINTNEXTLINE(misc-no-recursion)
static bool differ_in_bytes(struct comparer *c, uint32_t oid, uint32_t nid)
{
	struct type_part_list olds = {0}, news = {0};
	const struct type_node *o = node(c->o, oid), *n = node(c->n, nid);
	bool gained = o->kind == TYPE_STRUCT && n->kind == TYPE_UNION;
	if ((!gained && (o->kind != TYPE_UNION || n->kind != TYPE_STRUCT)) || o->size != n->size)
		return false;
	bool good = types__flatten(c->o, oid, &olds) && types__flatten(c->n, nid, &news);
	const struct type_part_list *members = gained ? &olds : &news, *more = gained ? &news : &olds;
	size_t same = 0;
	for (size_t k = 0; k < more->n && good; k++) {
		const struct type_part *b = &more->items[k], *a = NULL;
		for (size_t i = 0; i < members->n && !a; i++)
			if (members->items[i].name && b->name && strcmp(members->items[i].name, b->name) == 0)
				a = &members->items[i];
		same += a != NULL;
		good = b->what == PART_MEMBER &&
		       (a ? a->what == PART_MEMBER && a->at == b->at && a->bits == b->bits &&
				same_type(c, gained ? a->type : b->type, gained ? b->type : a->type, true)
			  : is_bytes(gained ? c->n : c->o, b->type));
	}
	good = good && same == members->n;
	vec__free(&olds);
	vec__free(&news);
	return good;
}

/* Two types that an object holds at the same place. */
// NOLINTNEXTLINE(misc-no-recursion): each level is a struct without a name inside another
void comparer__held(struct comparer *c, uint32_t oid, uint32_t nid, bool value, const char *path, uint64_t at,
		    struct changes *to)
{
	uint32_t os = types__strip(c->o, oid), ns = types__strip(c->n, nid);
	if (same_type(c, oid, nid, value)) {
		if (!to->quiet && signature_changed(c, oid, nid))
			REMARK(to, "%s%sthe function it points to has another signature", path, *path ? ": " : "");
		return;
	}
	if (value && differ_in_bytes(c, os, ns)) {
		bool gained = node(c->n, ns)->kind == TYPE_UNION;
		REMARK(to, "%s%s%s", path, *path ? ": " : "",
		       gained ? "can be used as bytes now" : "is no longer used as bytes");
		return;
	}
	struct shape o, n;
	if (!to->quiet && node(c->o, os)->kind == node(c->n, ns)->kind && same_shape(c, os, ns, &o, &n)) {
		const struct type_node *a = node(c->o, o.element), *b = node(c->n, n.element);
		size_t before = to->n_found;
		if (is_aggregate(a) && a->kind == b->kind && !a->name && !b->name && c->nesting < TYPE_DEPTH_MAX) {
			FREE_CLEANUP char *inner = xasprintf("%s%s%s", path, o.n ? "[]" : "", *path || o.n ? "." : "");
			c->nesting++;
			comparer__definitions(c, o.element, n.element, inner, at, to);
			c->nesting--;
			if (to->n_found > before)
				return;
		}
	}
	if (to->quiet) {
		to->n_found++;
		return;
	}
	FREE_CLEANUP char *text = type_change(c, oid, nid);
	CHANGED(to, at, "%s%s%s", path, *path ? ": " : "", text);
}

// NOLINTNEXTLINE(misc-no-recursion)
static void compare_part(struct comparer *c, const struct type_part *o, const struct type_part *n, const char *path,
			 uint64_t base, struct changes *to)
{
	uint64_t order = n->what == PART_ENUMERATOR ? 0 : n->at + base;
	if (o->what == PART_STRANGE)
		CHANGED(to, order, "%s%s: not understood", path, name_of(o));
	if (o->at != n->at && o->what == PART_ENUMERATOR)
		CHANGED(to, order, "%s%s %s -> %s", path, name_of(o), place_of(o, 0).s, place_of(n, 0).s);
	else if (o->at != n->at)
		CHANGED(to, order, "%s%s%s moved from %s to %s", word_of(o), path, name_of(o), place_of(o, base).s,
			place_of(n, base).s);
	if (o->bits != n->bits && o->bits && n->bits)
		CHANGED(to, order, "%s%s: %u -> %u bits", path, name_of(o), o->bits, n->bits);
	else if (o->bits != n->bits)
		CHANGED(to, order, "%s%s %s a bit-field", path, name_of(o), n->bits ? "became" : "is no longer");
	if (o->what != PART_MEMBER && o->what != PART_BASE)
		return;
	FREE_CLEANUP char *whole = to->quiet ? NULL : xasprintf("%s%s%s", word_of(o), path, name_of(o));
	comparer__held(c, o->type, n->type, true, whole ? whole : "", order, to);
}

static int by_name(const void *a, const void *b)
{
	const struct type_part *x = a, *y = b;
	if (x->what != y->what)
		return x->what < y->what ? -1 : 1;
	int c = strcmp(x->name ? x->name : "", y->name ? y->name : "");
	return c ? c : (x->at > y->at) - (x->at < y->at);
}

static int by_place(const void *a, const void *b)
{
	const struct type_part *x = a, *y = b;
	if (x->what != y->what)
		return x->what < y->what ? -1 : 1;
	return (x->at > y->at) - (x->at < y->at);
}

/* Bytes without a number, that are called padding: no data. */
static bool is_end_of_padding(const struct types *t, const struct type_part *p)
{
	return p->what == PART_MEMBER && p->name && strstr(p->name, "padding") && types__size(t, p->type) == 0 &&
	       is_bytes(t, p->type);
}

/* What only one build has, after the names: renamed in place, or removed and added. */
// NOLINTNEXTLINE(misc-no-recursion)
static void compare_rest(struct comparer *c, struct type_part_list *olds, struct type_part_list *news, const char *path,
			 uint64_t base, struct changes *to)
{
	if (olds->n)
		qsort(olds->items, olds->n, sizeof(*olds->items), by_place);
	if (news->n)
		qsort(news->items, news->n, sizeof(*news->items), by_place);
	FREE_CLEANUP bool *used = xcalloc(news->n + 1, sizeof(*used));
	size_t from = 0;
	for (size_t i = 0; i < olds->n && comparer__step(c); i++) {
		const struct type_part *o = &olds->items[i];
		bool renamed = false;
		while (from < news->n && by_place(&news->items[from], o) < 0)
			from++;
		for (size_t k = from; k < news->n && by_place(&news->items[k], o) == 0 && comparer__step(c); k++) {
			const struct type_part *n = &news->items[k];
			if (used[k] || o->bits != n->bits || (o->what != PART_MEMBER && o->what != PART_ENUMERATOR))
				continue;
			if (o->what == PART_MEMBER && !same_type(c, o->type, n->type, true)) {
				if (c->depth == 0)
					continue;
				/* What the attempt assumed stays in `proved` until a false result: give one. */
				to->n_found++;
				return;
			}
			used[k] = renamed = true;
			REMARK(to, "%s%s is called %s now", path, name_of(o), name_of(n));
			break;
		}
		if (is_end_of_padding(c->o, o))
			REMARK(to, "%s%s is no longer there, and never was data", path, name_of(o));
		else if (!renamed)
			CHANGED(to, o->what == PART_ENUMERATOR ? 0 : o->at + base, "%s%s%s (%s) removed", word_of(o),
				path, name_of(o), place_of(o, base).s);
	}
	for (size_t k = 0; k < news->n && comparer__step(c); k++) {
		const struct type_part *n = &news->items[k];
		if (used[k])
			continue;
		if (n->what == PART_ENUMERATOR)
			REMARK(to, "%s%s = %s added", path, name_of(n), place_of(n, 0).s);
		else if (is_end_of_padding(c->n, n))
			REMARK(to, "%s%s is new, and no data", path, name_of(n));
		else
			CHANGED(to, n->at + base, "%s%s%s added at %s", word_of(n), path, name_of(n),
				place_of(n, base).s);
	}
}

// NOLINTNEXTLINE(misc-no-recursion)
static void compare_parts(struct comparer *c, struct type_part_list *o, struct type_part_list *n, const char *path,
			  uint64_t base, struct changes *to)
{
	struct type_part_list olds = {0}, news = {0};
	size_t i = 0, k = 0;
	if (o->n)
		qsort(o->items, o->n, sizeof(*o->items), by_name);
	if (n->n)
		qsort(n->items, n->n, sizeof(*n->items), by_name);
	while ((i < o->n || k < n->n) && comparer__step(c) && !(to->quiet && to->n_found)) {
		struct type_part *a = i < o->n ? &o->items[i] : NULL, *b = k < n->n ? &n->items[k] : NULL;
		int order = !a                   ? 1
			    : !b                 ? -1
			    : a->what != b->what ? (a->what < b->what ? -1 : 1)
						 : strcmp(a->name ? a->name : "", b->name ? b->name : "");
		if (order == 0) {
			compare_part(c, a, b, path, base, to);
			i++;
			k++;
		} else if (order < 0) {
			vec__push(&olds, *a);
			i++;
		} else {
			vec__push(&news, *b);
			k++;
		}
	}
	if (!(to->quiet && to->n_found))
		compare_rest(c, &olds, &news, path, base, to);
	vec__free(&olds);
	vec__free(&news);
}

// NOLINTNEXTLINE(misc-no-recursion)
void comparer__definitions(struct comparer *c, uint32_t oid, uint32_t nid, const char *path, uint64_t base,
			   struct changes *to)
{
	const struct type_node *o = node(c->o, oid), *n = node(c->n, nid);
	struct type_part_list op = {0}, np = {0};
	bool inside = path[0] != '\0';
	if (o->kind != n->kind)
		CHANGED(to, 0, "%sanother kind of type", path);
	if (o->size != n->size)
		CHANGED(to, 0, "%.*s%s%" PRIu64 " -> %" PRIu64 " bytes", inside ? (int)strlen(path) - 1 : 0, path,
			inside ? ": " : "", o->size, n->size);
	if (o->align != n->align)
		CHANGED(to, 0, "%salignment %u -> %u", path, o->align, n->align);
	if (to->quiet && to->n_found)
		return;
	if (types__flatten(c->o, oid, &op) && types__flatten(c->n, nid, &np))
		compare_parts(c, &op, &np, path, base, to);
	else
		c->too_complex = true;
	vec__free(&op);
	vec__free(&np);
}

void comparer__free(struct comparer *c)
{
	pair_set__clear(&c->proved);
}
