/* Comparing the types of two builds: see types.h for what counts, types_model.h for what is compared. */
#include "image/types.h"

#include <inttypes.h>
#include <string.h>

#include "image/types_diff.h"

/* --- reports --- */

static int compare_changes(const void *a, const void *b)
{
	const struct change *x = a, *y = b;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return (x->order > y->order) - (x->order < y->order);
}

static char *append(char *s, const char *separator, const char *more)
{
	char *longer = xasprintf("%s%s%s", s, separator, more);
	free(s);
	return longer;
}

static void add_remark(struct types_report *out, char *text)
{
	if (out->remarks.n < TYPES_LISTED_MAX)
		vec__push(&out->remarks, text);
	else
		free(text);
}

/* One sentence for what is different in one thing, one for each remark. */
static void report(struct comparer *c, const char *subject, struct changes *s)
{
	struct types_report *out = c->out;
	for (size_t i = 0; i < s->remarks.n; i++)
		add_remark(out, xasprintf("%s: %s", subject, s->remarks.items[i]));
	if (s->n_found == 0)
		return;
	out->n_differences++;
	if (out->differences.n >= TYPES_LISTED_MAX)
		return;
	qsort(s->list.items, s->list.n, sizeof(*s->list.items), compare_changes);
	char *text = xasprintf("%s: ", subject);
	size_t n = s->list.n < TYPES_CHANGES_MAX ? s->list.n : TYPES_CHANGES_MAX;
	for (size_t i = 0; i < n; i++)
		text = append(text, i ? "; " : "", s->list.items[i].text);
	if (s->list.n > n) {
		FREE_CLEANUP char *rest =
		    xasprintf("%zu more %s", s->list.n - n, s->list.n - n == 1 ? "change" : "changes");
		text = append(text, "; ", rest);
	}
	vec__push(&out->differences, text);
}

/* --- by name --- */

/* A run of equal names in the sorted list. */
struct group {
	const struct types *t;
	size_t start, end;
};

static struct group group_at(const struct types *t, size_t start)
{
	struct group g = {t, start, start};
	while (g.end < t->named.n &&
	       type_node__compare_names(node(t, t->named.items[start]), node(t, t->named.items[g.end])) == 0)
		g.end++;
	return g;
}

static uint32_t group__id(const struct group *g, size_t i)
{
	return g->t->named.items[i];
}

/* How long the directory is that all absolute names of source files begin with. */
static size_t common_root(const struct types *t)
{
	const char *first = NULL;
	size_t len = 0;
	for (size_t i = 0; i < t->units.n; i++) {
		const char *name = t->units.items[i];
		if (name[0] != '/')
			continue;
		if (!first) {
			first = name;
			len = strlen(name);
		}
		size_t same = 0;
		while (same < len && name[same] == first[same])
			same++;
		len = same;
	}
	while (len > 0 && first[len - 1] != '/')
		len--;
	return len;
}

static const char *unit_name(size_t root, const char *name)
{
	return name[0] == '/' ? name + root : name;
}

static bool same_unit(const struct comparer *c, const char *o, const char *n)
{
	return *o && strcmp(unit_name(c->o_root, o), unit_name(c->n_root, n)) == 0;
}

/* Compares two things of one name, typedefs or definitions. */
static void compare_two(struct comparer *c, uint32_t oid, uint32_t nid, struct changes *to)
{
	const struct type_node *o = node(c->o, oid);
	if (o->kind == TYPE_ALIAS)
		comparer__held(c, o->target, node(c->n, nid)->target, false, "", 0, to);
	else
		comparer__definitions(c, oid, nid, "", 0, to);
}

static bool equal_two(struct comparer *c, uint32_t oid, uint32_t nid)
{
	struct changes to = {.quiet = true};
	compare_two(c, oid, nid, &to);
	changes__free(&to);
	return to.n_found == 0;
}

static char *subject_of(const struct types *t, uint32_t id)
{
	const struct type_node *n = node(t, id);
	FREE_CLEANUP char *text = types__text(t, id);
	return n->kind == TYPE_ALIAS ? xasprintf("typedef %s", text) : xstrdup(text);
}

static bool same_hash_before(const struct group *g, size_t i)
{
	return i > g->start && node(g->t, group__id(g, i))->hash == node(g->t, group__id(g, i - 1))->hash;
}

/* Is there an old meaning that equals this new one? */
static bool continues_another(struct comparer *c, const struct group *old, uint32_t nid)
{
	for (size_t i = old->start; i < old->end && comparer__step(c); i++)
		if (!same_hash_before(old, i) && equal_two(c, group__id(old, i), nid))
			return true;
	return false;
}

/* One of several old meanings of a name: it needs an equal one in the source file of the same name,
 * or, when that file knows none, anywhere. */
static void compare_meaning(struct comparer *c, const struct group *old, uint32_t oid, const struct group *n)
{
	const struct type_node *o = node(c->o, oid);
	const char *unit = c->o->units.items[o->unit];
	bool here = false;
	uint32_t like = group__id(n, n->start);
	for (int round = 0; round < 2 && !here; round++) {
		for (size_t k = n->start; k < n->end && comparer__step(c); k++) {
			uint32_t nid = group__id(n, k);
			const struct type_node *it = node(c->n, nid);
			if (round == 0 && !same_unit(c, unit, c->n->units.items[it->unit]))
				continue;
			if (round == 1 && same_hash_before(n, k))
				continue;
			here = round == 0;
			like = nid;
			if (equal_two(c, oid, nid))
				return;
		}
	}
	for (size_t k = n->start; !here && k < n->end && comparer__step(c); k++) {
		if (!continues_another(c, old, group__id(n, k))) {
			like = group__id(n, k);
			break;
		}
	}
	struct changes to = {0};
	FREE_CLEANUP char *name = subject_of(c->o, oid);
	FREE_CLEANUP char *subject = xasprintf("%s (%s)", name, *unit ? unit : "one of its meanings");
	compare_two(c, oid, like, &to);
	if (to.n_found == 0)
		CHANGED(&to, 0, "no equal one in the new build");
	report(c, subject, &to);
	changes__free(&to);
}

static bool several_meanings(const struct group *g)
{
	return node(g->t, group__id(g, g->start))->hash != node(g->t, group__id(g, g->end - 1))->hash;
}

static void compare_groups(struct comparer *c, const struct group *o, const struct group *n)
{
	c->out->compared++;
	if (!several_meanings(o) && !several_meanings(n)) {
		uint32_t oid = group__id(o, o->start);
		FREE_CLEANUP char *subject = subject_of(c->o, oid);
		struct changes to = {0};
		compare_two(c, oid, group__id(n, n->start), &to);
		report(c, subject, &to);
		changes__free(&to);
		return;
	}
	for (size_t i = o->start; i < o->end && comparer__step(c); i++) {
		const struct type_node *it = node(c->o, group__id(o, i));
		const struct type_node *before = i > o->start ? node(c->o, group__id(o, i - 1)) : NULL;
		if (!before || before->hash != it->hash || before->unit != it->unit)
			compare_meaning(c, o, group__id(o, i), n);
	}
}

static struct err *comparer__begin(struct comparer *c, const struct types *old, const struct types *new,
				   struct types_report *out)
{
	*c = (struct comparer){.o = old, .n = new, .out = out};
	if (!old->found || !new->found)
		return err__new(ERR_USAGE, 0, old->found ? new->source : old->source, NULL, "no types to compare");
	c->o_root = common_root(old);
	c->n_root = common_root(new);
	return NULL;
}

static struct err *comparer__end(struct comparer *c)
{
	comparer__free(c);
	if (c->too_complex)
		return err__new(ERR_REFUSED, 0, c->n->source, NULL, "the types are too many or too complex to compare");
	return NULL;
}

struct err *types__compare(const struct types *old, const struct types *new, struct types_report *out)
{
	struct comparer c;
	TRY(comparer__begin(&c, old, new, out));
	size_t i = 0, k = 0;
	while (i < old->named.n && comparer__step(&c)) {
		struct group o = group_at(old, i), n = {new, k, k};
		int order = -1;
		if (k < new->named.n) {
			n = group_at(new, k);
			order = type_node__compare_names(node(old, group__id(&o, i)), node(new, group__id(&n, k)));
		}
		if (order == 0) {
			compare_groups(&c, &o, &n);
		} else if (order < 0 && node(old, group__id(&o, i))->kind != TYPE_ALIAS) {
			FREE_CLEANUP char *subject = subject_of(old, group__id(&o, i));
			add_remark(out, xasprintf("%s: only the old build has it", subject));
		}
		i = order <= 0 ? o.end : i;
		k = order >= 0 ? n.end : k;
	}
	return comparer__end(&c);
}

/* --- static variables --- */

static void compare_variables(struct comparer *c, const struct type_static *o, const struct type_static *n)
{
	struct changes to = {0};
	FREE_CLEANUP char *subject = xasprintf("static %s (%s)", n->name, n->unit);
	c->out->compared++;
	if (strcmp(o->section, n->section) != 0 || o->offset != n->offset)
		CHANGED(&to, 0, "moved from %s+0x%" PRIx64 " to %s+0x%" PRIx64, o->section, o->offset, n->section,
			n->offset);
	comparer__held(c, o->id, n->id, true, "", 0, &to);
	report(c, subject, &to);
	changes__free(&to);
}

/* The variable of the old build that this one continues: the first not taken of the same source file;
 * where only one is left on either side, that one. */
static const struct type_static *counterpart(const struct comparer *c, const struct type_static *olds, size_t n_olds,
					     bool *taken, const struct type_static *v, bool only)
{
	for (size_t i = 0; i < n_olds; i++) {
		if (taken[i] || (!only && !same_unit(c, olds[i].unit, v->unit)))
			continue;
		taken[i] = true;
		return &olds[i];
	}
	return NULL;
}

/* All variables of one name. */
static void compare_namesakes(struct comparer *c, const struct type_static *o, size_t n_o, const struct type_static *n,
			      size_t n_n)
{
	FREE_CLEANUP bool *taken = xcalloc(n_o + 1, sizeof(*taken));
	for (size_t k = 0; k < n_n && comparer__step(c); k++) {
		const struct type_static *was = counterpart(c, o, n_o, taken, &n[k], n_o == 1 && n_n == 1);
		if (was) {
			compare_variables(c, was, &n[k]);
			continue;
		}
		struct changes to = {0};
		FREE_CLEANUP char *subject = xasprintf("static %s (%s)", n[k].name, n[k].unit);
		CHANGED(&to, 0, "only the new build has it, at %s+0x%" PRIx64, n[k].section, n[k].offset);
		report(c, subject, &to);
		changes__free(&to);
	}
	for (size_t i = 0; i < n_o; i++)
		if (!taken[i])
			add_remark(c->out,
				   xasprintf("static %s (%s): only the old build has it", o[i].name, o[i].unit));
}

static size_t namesakes(const struct types *t, size_t start)
{
	size_t end = start;
	while (end < t->statics.n && strcmp(t->statics.items[start].name, t->statics.items[end].name) == 0)
		end++;
	return end;
}

struct err *types__compare_statics(const struct types *old, const struct types *new, struct types_report *out)
{
	struct comparer c;
	TRY(comparer__begin(&c, old, new, out));
	static const struct type_static nothing; /* an empty list's items are NULL, to which nothing may be added */
	const struct type_static *olds = old->statics.n ? old->statics.items : &nothing;
	const struct type_static *news = new->statics.n ? new->statics.items : &nothing;
	c.whole = true;
	size_t i = 0, k = 0;
	while ((i < old->statics.n || k < new->statics.n) && comparer__step(&c)) {
		const struct type_static *o = olds + i, *n = news + k;
		int order = i == old->statics.n ? 1 : k == new->statics.n ? -1 : strcmp(o->name, n->name);
		size_t i_end = order <= 0 ? namesakes(old, i) : i, k_end = order >= 0 ? namesakes(new, k) : k;
		compare_namesakes(&c, o, i_end - i, n, k_end - k);
		i = i_end;
		k = k_end;
	}
	return comparer__end(&c);
}

void types_report__free(struct types_report *r)
{
	for (size_t i = 0; i < r->differences.n; i++)
		free(r->differences.items[i]);
	for (size_t i = 0; i < r->remarks.n; i++)
		free(r->remarks.items[i]);
	vec__free(&r->differences);
	vec__free(&r->remarks);
}
