/* The model of a build's types (types_model.h): strings, words for types, names and hashes. */
#include "image/types_model.h"
#include "base/hash.h"

#include <dwarf.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* How far an alias is followed: chains of typedefs are short. */
enum { ALIAS_MAX = 100 };

/* --- strings --- */

static uint64_t mix(uint64_t h, uint64_t v)
{
	h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
	h ^= h >> 33; /* the finaliser of MurmurHash3 */
	h *= 0xff51afd7ed558ccdu;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53u;
	return h ^ (h >> 33);
}

static uint64_t hash_string(const char *s)
{
	return mix(hash__bytes(HASH_START, s ? s : "", s ? strlen(s) : 0), s != NULL);
}

static size_t string_slot(const char *const *table, size_t cap, const char *s)
{
	size_t i = hash_string(s) & (cap - 1);
	while (table[i] && strcmp(table[i], s) != 0)
		i = (i + 1) & (cap - 1);
	return i;
}

static void grow_strings(struct types *t)
{
	size_t cap = t->strings_cap ? t->strings_cap * 2 : 1024;
	const char **bigger = xcalloc(cap, sizeof(*bigger));
	for (size_t i = 0; i < t->strings_cap; i++)
		if (t->strings[i])
			bigger[string_slot(bigger, cap, t->strings[i])] = t->strings[i];
	free(t->strings);
	t->strings = bigger;
	t->strings_cap = cap;
}

const char *types__intern(struct types *t, const char *s)
{
	FREE_CLEANUP char *clean = NULL;
	if (!s)
		return NULL;
	for (const char *p = s; *p; p++) {
		if ((uint8_t)*p >= ' ' && *p != 0x7f)
			continue;
		if (!clean)
			clean = xstrdup(s);
		clean[p - s] = '?';
	}
	s = clean ? clean : s;
	if (t->n_strings * 2 >= t->strings_cap)
		grow_strings(t);
	size_t i = string_slot(t->strings, t->strings_cap, s);
	if (!t->strings[i]) {
		t->strings[i] = xstrdup(s);
		t->n_strings++;
	}
	return t->strings[i];
}

void types__free(struct types *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->strings_cap; i++)
		free((char *)t->strings[i]);
	free(t->strings);
	free(t->source);
	vec__free(&t->nodes);
	vec__free(&t->parts);
	vec__free(&t->units);
	vec__free(&t->statics);
	vec__free(&t->code);
	vec__free(&t->named);
	free(t);
}

void types__cleanup(struct types **t)
{
	types__free(*t);
	*t = NULL;
}

bool types__found(const struct types *t)
{
	return t->found;
}

const char *types__source(const struct types *t)
{
	return t->source;
}

const struct type_static *types__statics(const struct types *t, size_t *n)
{
	*n = t->statics.n;
	return t->statics.items;
}

bool types__covers(const struct types *t, vaddr_t a)
{
	size_t lo = 0, hi = t->code.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (t->code.items[mid].start <= a)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo > 0 && vrange__has(t->code.items[lo - 1], a);
}

/* --- types --- */

static uint32_t strip(const struct types *t, uint32_t id, bool keep_names)
{
	for (int i = 0; i < ALIAS_MAX; i++) {
		const struct type_node *n = &t->nodes.items[id];
		if (n->kind != TYPE_ALIAS || (keep_names && n->name))
			return id;
		id = n->target;
	}
	return id; /* a chain without end: an alias still, and so equal to nothing */
}

uint32_t types__strip(const struct types *t, uint32_t id)
{
	return strip(t, id, false);
}

// NOLINTNEXTLINE(misc-no-recursion): as deep as TYPE_DEPTH_MAX
static uint64_t size_of(const struct types *t, uint32_t id, unsigned depth)
{
	const struct type_node *n = &t->nodes.items[types__strip(t, id)];
	if (n->kind != TYPE_ARRAY || n->size || depth > TYPE_DEPTH_MAX)
		return n->size;
	uint64_t size = size_of(t, n->target, depth + 1);
	for (uint32_t i = 0; i < n->n; i++) {
		uint64_t count = t->parts.items[n->first + i].at;
		size *= count == COUNT_OPEN ? 0 : count;
	}
	return size;
}

uint64_t types__size(const struct types *t, uint32_t id)
{
	return size_of(t, id, 0);
}

/* Text that ends when it is long enough. */
struct text {
	char s[400];
	size_t n;
};

static void put(struct text *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *x, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(x->s + x->n, sizeof(x->s) - x->n, fmt, ap);
	va_end(ap);
	x->n += n > 0 ? (size_t)n : 0;
	if (x->n >= sizeof(x->s))
		x->n = sizeof(x->s) - 1;
}

static bool full(const struct text *x)
{
	return x->n >= sizeof(x->s) - 1;
}

static void put_type(struct text *x, const struct types *t, uint32_t id, unsigned depth);

static void put_tag(struct text *x, const struct type_node *n)
{
	const char *word = n->kind == TYPE_UNION  ? "union"
			   : n->kind == TYPE_ENUM ? "enum"
			   : n->is_class          ? "class"
						  : "struct";
	if (!n->name)
		put(x, "%s {...}", word);
	else
		put(x, "%s%s%s", n->typedef_named ? "" : word, n->typedef_named ? "" : " ", n->name);
}

// NOLINTNEXTLINE(misc-no-recursion)
static void put_function(struct text *x, const struct types *t, const struct type_node *n, const char *middle,
			 unsigned depth)
{
	put_type(x, t, n->target, depth);
	put(x, " %s(", middle);
	for (uint32_t i = 0; i < n->n && !full(x); i++) {
		const struct type_part *p = &t->parts.items[n->first + i];
		if (i)
			put(x, ", ");
		if (p->name)
			put(x, "%s", p->name);
		else
			put_type(x, t, p->type, depth);
	}
	put(x, ")");
}

// NOLINTNEXTLINE(misc-no-recursion)
static void put_pointer(struct text *x, const struct types *t, const struct type_node *n, unsigned depth)
{
	const char *sign = n->kind == TYPE_POINTER ? "*" : n->kind == TYPE_REFERENCE ? "&" : "&&";
	const struct type_node *to = &t->nodes.items[strip(t, n->target, true)];
	if (to->kind == TYPE_FUNCTION) {
		put_function(x, t, to, "(*)", depth);
		return;
	}
	put_type(x, t, n->target, depth);
	bool behind_star = x->n && x->s[x->n - 1] == '*';
	put(x, "%s%s", full(x) || behind_star ? "" : " ", sign);
}

// NOLINTNEXTLINE(misc-no-recursion): as deep as it prints, 16 levels
static void put_type(struct text *x, const struct types *t, uint32_t id, unsigned depth)
{
	const struct type_node *n = &t->nodes.items[strip(t, id, true)];
	if (full(x))
		return;
	if (depth++ > 16) {
		put(x, "...");
		return;
	}
	switch ((enum type_kind)n->kind) {
	case TYPE_VOID:
		put(x, "void");
		return;
	case TYPE_BASE:
	case TYPE_ALIAS:
		put(x, "%s", n->name ? n->name : "?");
		return;
	case TYPE_POINTER:
	case TYPE_REFERENCE:
	case TYPE_RVALUE_REFERENCE:
		put_pointer(x, t, n, depth);
		return;
	case TYPE_MEMBER_POINTER:
		put(x, "pointer to member of ");
		put_type(x, t, n->target, depth);
		return;
	case TYPE_STRUCT:
	case TYPE_UNION:
	case TYPE_ENUM:
		put_tag(x, n);
		return;
	case TYPE_ARRAY:
		put_type(x, t, n->target, depth);
		for (uint32_t i = 0; i < n->n && !full(x); i++) {
			uint64_t count = t->parts.items[n->first + i].at;
			if (count == COUNT_OPEN)
				put(x, "[]");
			else
				put(x, "[%llu]", (unsigned long long)count);
		}
		return;
	case TYPE_FUNCTION:
		put_function(x, t, n, "", depth);
		return;
	case TYPE_UNKNOWN:
		put(x, "a type that is not understood");
		return;
	}
}

char *types__text(const struct types *t, uint32_t id)
{
	struct text x = {.n = 0};
	put_type(&x, t, id, 0);
	return xstrdup(x.s);
}

// NOLINTNEXTLINE(misc-no-recursion): as deep as TYPE_DEPTH_MAX
static bool flatten(const struct types *t, uint32_t id, uint64_t base, unsigned depth, struct type_part_list *out)
{
	const struct type_node *n = &t->nodes.items[id];
	if (depth > TYPE_DEPTH_MAX)
		return false;
	for (uint32_t i = 0; i < n->n; i++) {
		struct type_part p = t->parts.items[n->first + i];
		uint32_t inner = types__strip(t, p.type);
		uint8_t kind = t->nodes.items[inner].kind;
		if (p.what == PART_MEMBER || p.what == PART_BASE)
			p.at += base;
		if (p.what == PART_MEMBER && !p.name && (kind == TYPE_STRUCT || kind == TYPE_UNION)) {
			if (!flatten(t, inner, p.at, depth + 1, out))
				return false;
			continue;
		}
		if (out->n >= TYPE_PARTS_MAX)
			return false;
		if (p.what == PART_BASE)
			p.name = t->nodes.items[inner].name;
		vec__push(out, p);
	}
	return true;
}

bool types__flatten(const struct types *t, uint32_t id, struct type_part_list *out)
{
	return flatten(t, id, 0, 0, out);
}

/* --- names and hashes --- */

static bool is_aggregate(const struct type_node *n)
{
	return n->kind == TYPE_STRUCT || n->kind == TYPE_UNION || n->kind == TYPE_ENUM;
}

/* C keeps tags apart from other names; a struct that only its typedef names is a third thing. */
static int name_space(const struct type_node *n)
{
	return n->kind == TYPE_ALIAS ? 2 : n->typedef_named ? 1 : 0;
}

int type_node__compare_names(const struct type_node *a, const struct type_node *b)
{
	int c = name_space(a) - name_space(b);
	if (c || a->name == b->name)
		return c;
	return strcmp(a->name, b->name);
}

enum { HASH_NONE, HASH_RUNNING, HASH_DONE };

struct hasher {
	struct types *t;
	const uint64_t *before; /* the hashes of the first round, or NULL in it */
	bool too_deep;
};

static uint64_t hash_reference(struct hasher *h, uint32_t id, unsigned depth);

// NOLINTNEXTLINE(misc-no-recursion): as deep as TYPE_DEPTH_MAX
static uint64_t hash_definition(struct hasher *h, uint32_t id, unsigned depth)
{
	struct type_node *n = &h->t->nodes.items[id];
	struct type_part_list parts = {0};
	if (n->state != HASH_NONE)
		return n->state == HASH_DONE ? n->hash : 1;
	n->state = HASH_RUNNING;
	uint64_t v = mix(mix(n->kind, n->size), n->align);
	if (!types__flatten(h->t, id, &parts))
		h->too_deep = true;
	for (size_t i = 0; i < parts.n && !h->too_deep; i++) {
		const struct type_part *p = &parts.items[i];
		v = mix(mix(mix(mix(v, p->what), hash_string(p->name)), p->at), p->bits);
		v = mix(v, hash_reference(h, p->type, depth + 1));
	}
	vec__free(&parts);
	n->hash = v;
	n->state = HASH_DONE;
	return v;
}

// NOLINTNEXTLINE(misc-no-recursion)
static uint64_t hash_reference(struct hasher *h, uint32_t id, unsigned depth)
{
	id = types__strip(h->t, id);
	const struct type_node *n = &h->t->nodes.items[id];
	uint64_t v = n->kind;
	if (depth > TYPE_DEPTH_MAX || h->too_deep) {
		h->too_deep = true;
		return 0;
	}
	switch ((enum type_kind)n->kind) {
	case TYPE_VOID:
	case TYPE_FUNCTION:
		return v;
	case TYPE_BASE:
		return mix(mix(v, n->size), n->encoding);
	case TYPE_POINTER:
	case TYPE_REFERENCE:
	case TYPE_RVALUE_REFERENCE:
	case TYPE_MEMBER_POINTER:
		return mix(mix(v, n->size), hash_reference(h, n->target, depth + 1));
	case TYPE_ARRAY:
		v = mix(mix(v, n->size), hash_reference(h, n->target, depth + 1));
		for (uint32_t i = 0; i < n->n; i++)
			v = mix(mix(v, h->t->parts.items[n->first + i].what), h->t->parts.items[n->first + i].at);
		return v;
	case TYPE_STRUCT:
	case TYPE_UNION:
	case TYPE_ENUM:
		if (!n->name)
			return mix(v, hash_definition(h, id, depth + 1));
		v = mix(mix(v, (uint64_t)name_space(n)), hash_string(n->name));
		return h->before && n->ambiguous ? mix(v, h->before[id]) : v;
	case TYPE_ALIAS:
	case TYPE_UNKNOWN:
		break;
	}
	return mix(v, id); /* equal to nothing */
}

/* Struct without a tag: it is known by its typedef, the alphabetically first if there are several. */
static void name_by_typedefs(struct types *t)
{
	for (size_t i = 0; i < t->nodes.n; i++) {
		const struct type_node *alias = &t->nodes.items[i];
		if (alias->kind != TYPE_ALIAS || !alias->name)
			continue;
		struct type_node *n = &t->nodes.items[strip(t, alias->target, true)];
		if (!is_aggregate(n) || (n->name && !n->typedef_named))
			continue;
		if (!n->name || strcmp(alias->name, n->name) < 0)
			n->name = alias->name;
		n->typedef_named = true;
	}
}

struct sorted {
	uint32_t id;
	const struct types *t;
};

static int compare_named(const void *a, const void *b)
{
	const struct sorted *x = a, *y = b;
	const struct type_node *m = &x->t->nodes.items[x->id], *n = &y->t->nodes.items[y->id];
	int c = type_node__compare_names(m, n);
	if (c)
		return c;
	if (m->hash != n->hash)
		return m->hash < n->hash ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

/* Hashes everything that has a name, sorts it, and marks the names that mean several things. */
static bool hash_named(struct types *t, struct sorted *list, size_t n, const uint64_t *before)
{
	struct hasher h = {.t = t, .before = before};
	for (size_t i = 0; i < t->nodes.n; i++)
		t->nodes.items[i].state = HASH_NONE;
	for (size_t i = 0; i < n && !h.too_deep; i++) {
		struct type_node *it = &t->nodes.items[list[i].id];
		if (it->kind == TYPE_ALIAS)
			it->hash = hash_reference(&h, it->target, 0);
		else
			hash_definition(&h, list[i].id, 0);
	}
	if (h.too_deep)
		return false;
	if (n)
		qsort(list, n, sizeof(*list), compare_named);
	for (size_t i = 0, end = 0; i < n; i = end) {
		struct type_node *first = &t->nodes.items[list[i].id];
		bool ambiguous = false;
		for (end = i; end < n; end++) {
			const struct type_node *it = &t->nodes.items[list[end].id];
			if (type_node__compare_names(first, it) != 0)
				break;
			ambiguous |= it->hash != first->hash;
		}
		for (size_t k = i; k < end; k++)
			t->nodes.items[list[k].id].ambiguous = ambiguous;
	}
	return true;
}

struct err *types__index(struct types *t)
{
	VEC(struct sorted) list = {0};
	name_by_typedefs(t);
	for (size_t i = 0; i < t->nodes.n; i++) {
		const struct type_node *n = &t->nodes.items[i];
		if (n->name && !n->declaration && (is_aggregate(n) || n->kind == TYPE_ALIAS))
			vec__push(&list, (struct sorted){(uint32_t)i, t});
	}
	bool good = hash_named(t, list.items, list.n, NULL);
	/* Once more, so that two structs differ that refer to two meanings of one name. */
	FREE_CLEANUP uint64_t *before = xcalloc(t->nodes.n, sizeof(*before));
	for (size_t i = 0; i < t->nodes.n; i++)
		before[i] = t->nodes.items[i].hash;
	good = good && hash_named(t, list.items, list.n, before);
	for (size_t i = 0; i < list.n; i++)
		vec__push(&t->named, list.items[i].id);
	vec__free(&list);
	if (good)
		return NULL;
	return err__new(ERR_UNREADABLE, 0, t->source, NULL, "damaged debug information: types are nested too deep");
}
