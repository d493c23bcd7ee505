/* See classes.h. */
#include "image/classes.h"

#include "base/alloc.h"

static uint32_t classes__new(struct classes *c)
{
	if (c->n == c->cap) {
		c->cap = c->cap ? c->cap * 2 : 1024;
		c->items = xreallocarray(c->items, c->cap, sizeof(*c->items));
	}
	c->items[c->n] = (struct object_class){.parent = (uint32_t)c->n};
	return (uint32_t)c->n++;
}

uint32_t classes__find(struct classes *c, uint32_t k)
{
	while (c->items[k].parent != k) {
		c->items[k].parent = c->items[c->items[k].parent].parent;
		k = c->items[k].parent;
	}
	return k;
}

static uint64_t name_hash(const struct name *n)
{
	uint64_t h = n->kind * 0x9e3779b97f4a7c15ULL;
	h = (h ^ n->a) * 0xff51afd7ed558ccdULL;
	h = (h ^ (h >> 33) ^ (uint64_t)n->b) * 0xc4ceb9fe1a85ec53ULL;
	return h ^ (h >> 29);
}

static void names__grow(struct classes *c)
{
	struct name *old = c->table;
	size_t old_size = c->size;
	c->size = c->size ? c->size * 2 : 4096;
	c->table = xcalloc(c->size, sizeof(*c->table));
	for (size_t i = 0; i < old_size; i++) {
		if (!old[i].class)
			continue;
		size_t k = name_hash(&old[i]) & (c->size - 1);
		while (c->table[k].class)
			k = (k + 1) & (c->size - 1);
		c->table[k] = old[i];
	}
	free(old);
}

void classes__mark_elsewhere(struct classes *c, uint32_t class)
{
	c->items[classes__find(c, class)].elsewhere = true;
}

uint32_t classes__named(struct classes *c, uint32_t kind, uint64_t a, int64_t b)
{
	struct name n = {.kind = kind, .a = a, .b = b};
	if (2 * (c->n_names + 1) > c->size)
		names__grow(c);
	size_t k = name_hash(&n) & (c->size - 1);
	for (; c->table[k].class; k = (k + 1) & (c->size - 1))
		if (c->table[k].kind == kind && c->table[k].a == a && c->table[k].b == b)
			return classes__find(c, c->table[k].class);
	n.class = classes__new(c);
	c->items[n.class].elsewhere = kind != NAME_ARGUMENT;
	c->table[k] = n;
	c->n_names++;
	return n.class;
}

uint32_t classes__known_child(struct classes *c, uint32_t of, uint32_t kind, int64_t key)
{
	of = classes__find(c, of);
	for (size_t i = 0; i < c->items[of].children.n; i++)
		if (c->items[of].children.items[i].key == key && c->items[of].children.items[i].kind == kind)
			return classes__find(c, c->items[of].children.items[i].class);
	return CLASS_UNKNOWN;
}

uint32_t classes__child(struct classes *c, uint32_t of, uint32_t kind, int64_t key)
{
	uint32_t known = classes__known_child(c, of, kind, key);
	if (known)
		return known;
	of = classes__find(c, of);
	struct child k = {key, kind, classes__new(c)};
	c->items[k.class].elsewhere = true;
	vec__push(&c->items[of].children, k);
	return k.class;
}

void classes__join(struct classes *c, uint32_t a, uint32_t b)
{
	struct pair {
		uint32_t a, b;
	};
	VEC(struct pair) work = {0};
	struct pair first = {a, b};
	vec__push(&work, first);
	while (work.n) {
		struct pair p = work.items[--work.n];
		a = classes__find(c, p.a);
		b = classes__find(c, p.b);
		if (a == b || a <= CLASS_STACK || b <= CLASS_STACK)
			continue;
		if (c->items[a].children.n < c->items[b].children.n) {
			uint32_t t = a;
			a = b;
			b = t;
		}
		c->items[b].parent = a;
		if (c->items[b].touched > c->items[a].touched)
			c->items[a].touched = c->items[b].touched;
		c->items[a].freed = c->items[a].freed || c->items[b].freed;
		c->items[a].on_stack = c->items[a].on_stack || c->items[b].on_stack;
		c->items[a].elsewhere = c->items[a].elsewhere || c->items[b].elsewhere;
		for (size_t i = 0; i < c->items[b].children.n; i++) {
			struct child k = c->items[b].children.items[i];
			bool had = false;
			for (size_t j = 0; j < c->items[a].children.n && !had; j++) {
				struct child *o = &c->items[a].children.items[j];
				if (o->key != k.key || o->kind != k.kind)
					continue;
				struct pair both = {o->class, k.class};
				vec__push(&work, both);
				had = true;
			}
			if (!had)
				vec__push(&c->items[a].children, k);
		}
		vec__free(&c->items[b].children);
	}
	vec__free(&work);
}

void classes__init(struct classes *c)
{
	*c = (struct classes){0};
	classes__new(c); /* CLASS_UNKNOWN */
	classes__new(c); /* CLASS_STACK */
}

void classes__free(struct classes *c)
{
	for (size_t i = 0; i < c->n; i++)
		vec__free(&c->items[i].children);
	free(c->items);
	free(c->table);
}
