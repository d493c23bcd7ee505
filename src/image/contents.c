/* Initial contents of static data: what live's file says, and what next's says for the same objects.
 *
 * Writable data keeps the values that the process has. So contents speak of layout first: pointers at the same
 * offsets, to the same things, and the same bytes between them. A value that differs is only noted where it is certain
 * that it is the same variable with another initial value, and not another variable (contents__settle()):
 *     unchanged code of a function that is certainly the same accesses just that value in both builds, all other code
 *     accesses it as a whole too, and nobody takes its address; or
 *     debug information proved that static variables have the same types, and a symbol of the same name and size
 *     covers it at the same offset in both builds
 *
 * Data that is read-only after relocation takes next's contents. Values may differ there; but old pointers may lead to
 * its elements, so elements must not move: where a value that changed turns up at another place that changed, a table
 * was sorted anew, or something was inserted, and that is refused. Without symbols pointers must be at the same places
 * too: else a table may have grown into the padding behind it.
 */
#include <string.h>

#include "arch/decode.h"
#include "arch/detail.h"
#include "base/hash.h"
#include "image/planner.h"

enum { VALUES_MAX = 64 }; /* so many initial values may change; more are no small fix */

/* A stretch of both builds' data that corresponds. */
struct stretch {
	const struct state_section *s; /* of next */
	const struct elf_section *a, *b;
	vaddr_t live, next;
	uint64_t len;
	bool object; /* exactly one object, by its symbol */
};

/* What one word means, comparable between the builds. */
struct meaning {
	enum { PLAIN, CODE, DATA, TEXT, NUMBERS, NOTHING } kind;
	uint64_t value; /* plain; a function of next; VAPI space; a hash of a string, or of the first bytes */
};

struct change {
	vaddr_t next;
	struct meaning old, new;
};

struct comparison {
	struct planner *x;
	VEC(struct change) changes; /* of one stretch */
	VEC(struct relro_word) words;
};

/* ---- messages ---- */

/* "name+0x8 (.data+0x28)", or without a symbol ".data+0x28"; the caller frees it. */
static char *describe(const struct comparison *c, const struct stretch *t, vaddr_t next)
{
	vaddr_t start = 0;
	uint64_t size, offset = next - t->s->start;
	const char *name = statics__symbol(c->x->p->next, next, &start, &size);
	if (!name)
		return xasprintf("%s+0x%lx", t->s->name, offset);
	return next == start ? xasprintf("%s (%s+0x%lx)", name, t->s->name, offset)
			     : xasprintf("%s+0x%lx (%s+0x%lx)", name, next - start, t->s->name, offset);
}

static void refuse(struct comparison *c, const struct stretch *t, vaddr_t next, const char *code, const char *what)
{
	FREE_CLEANUP char *where = describe(c, t, next);
	planner__refuse(c->x, code, "%s %s", where, what);
}

/* ---- what a word means ---- */

static uint64_t hash_text(const struct elf_file *e, vaddr_t a, bool *text)
{
	const struct elf_section *s = elf_file__section_at(e, a);
	uint64_t h = 0x811c9dc5;
	*text = false;
	if (!s || !s->data)
		return 0;
	for (uint64_t i = a - s->h.sh_addr; i < s->h.sh_size; i++) {
		if (s->data[i] == 0) {
			*text = true;
			return h;
		}
		if (s->data[i] < 0x20 && !strchr("\n\t\r", s->data[i]))
			return 0;
		h = hash__bytes(h, &s->data[i], 1);
	}
	return 0;
}

static struct meaning constant(const struct elf_file *e, vaddr_t a)
{
	enum { FIRST_BYTES = 32 };
	bool text;
	uint64_t h = hash_text(e, a, &text);
	for (size_t n = text ? 0 : FIRST_BYTES; n > 0; n--) {
		const uint8_t *p = elf_file__at(e, a + n - 1, 1);
		h = hash__bytes(h, p ? p : (const uint8_t *)"", 1);
	}
	return (struct meaning){text ? TEXT : NUMBERS, h};
}

/* Code is named by next's function, data by its home; a function without a successor means nothing. */
static struct meaning meaning_of_old(struct planner *x, vaddr_t to)
{
	const struct elf_file *e = x->p->live;
	to = elf_file__behind_stub(e, to);
	if (elf_file__is_code(e, to)) {
		vaddr_t next = match__successor(x->p->match, to);
		return next ? (struct meaning){CODE, next} : (struct meaning){NOTHING, to};
	}
	return elf_file__is_data(e, to) ? (struct meaning){DATA, layout__meant_by_live(x, to)} : constant(e, to);
}

/* `old`: what live's word leads to, or 0. */
static struct meaning meaning_of_new(struct planner *x, vaddr_t to, vaddr_t old)
{
	const struct elf_file *e = x->p->next;
	to = elf_file__behind_stub(e, to);
	if (elf_file__is_code(e, to))
		return (struct meaning){CODE, to};
	return elf_file__is_data(e, to) ? (struct meaning){DATA, layout__decide(x, to, old)} : constant(e, to);
}

static struct meaning plain(const uint8_t *p, size_t n)
{
	struct meaning m = {PLAIN, 0};
	memcpy(&m.value, p, n);
	return m;
}

static bool same_meaning(struct meaning a, struct meaning b)
{
	return a.kind == b.kind && a.value == b.value;
}

/* ---- pointers ---- */

static bool same_symbol(const struct elf_file *a, uint32_t i, const struct elf_file *b, uint32_t k)
{
	const struct elf_symbol *s = &a->symbols[i], *t = &b->symbols[k];
	return strcmp(s->name, t->name) == 0 && strcmp(s->version, t->version) == 0;
}

static bool same_function(const struct planner *x, vaddr_t live, vaddr_t next)
{
	vaddr_t to = match__successor(x->p->match, elf_file__behind_stub(x->p->live, live));
	return to && to == elf_file__behind_stub(x->p->next, next);
}

/* What only the loader can settle must be the same; true when that is the case. */
static bool same_bound(struct comparison *c, const struct stretch *t, const struct elf_reloc *a,
		       const struct elf_reloc *b)
{
	const struct elf_file *live = c->x->p->live, *next = c->x->p->next;
	if (a->type != b->type)
		refuse(c, t, b->where, "state-pointers", "is another kind of pointer in the new build");
	else if (!same_symbol(live, a->symbol, next, b->symbol))
		refuse(c, t, b->where, "state-pointers", "points to another symbol in the new build");
	else if (a->type == R_X86_64_IRELATIVE ? !same_function(c->x, (vaddr_t)a->addend, (vaddr_t)b->addend)
					       : a->addend != b->addend)
		refuse(c, t, b->where, "state-pointers", "has another offset in the new build");
	else
		return true;
	return false;
}

static bool is_relative(const struct elf_reloc *r)
{
	return r->type == R_X86_64_RELATIVE;
}

static bool is_label(const struct code *code, const struct elf_reloc *r)
{
	vaddr_t to = elf_file__behind_stub(code->elf, (vaddr_t)r->addend);
	return elf_file__is_code(code->elf, to) && !code__function_starting(code, to);
}

static void add_change(struct comparison *c, vaddr_t next, struct meaning old, struct meaning new)
{
	vec__push(&c->changes, ((struct change){next, old, new}));
}

static void note_value(struct comparison *c, vaddr_t live, vaddr_t next, uint64_t size)
{
	vec__push(&c->x->changed_values, ((struct changed_value){live, next, size}));
}

/* Where a pointer leads to another function than before, it speaks against what pointers say about which function
 * is which; so that must be known from elsewhere: by name, or by code that did not change. */
static bool is_certain(const struct planner *x, vaddr_t next)
{
	const struct match *m = x->p->match;
	const struct function *f = code__function_starting(m->b, next);
	size_t i = f ? (size_t)(f - m->b->functions.items) : 0;
	return f && (m->b_to_a[i] < 0 || m->how[i] == MATCH_NAME || (m->how[i] >= MATCH_CONTENT && m->same_code[i]));
}

static bool is_other_function(const struct planner *x, struct meaning old, struct meaning new)
{
	return (old.kind != CODE || is_certain(x, old.value)) && (new.kind != CODE || is_certain(x, new.value));
}

static void compare_pointer(struct comparison *c, const struct stretch *t, const struct elf_reloc *a,
			    const struct elf_reloc *b)
{
	struct planner *x = c->x;
	if (!is_relative(a) || !is_relative(b)) {
		same_bound(c, t, a, b);
		return;
	}
	if (is_label(x->p->live_code, a) || is_label(x->p->next_code, b)) {
		refuse(c, t, b->where, "code-labels", "points into the middle of a function");
		return;
	}
	struct meaning old = meaning_of_old(x, (vaddr_t)a->addend);
	struct meaning new = meaning_of_new(x, (vaddr_t)b->addend, (vaddr_t)a->addend);
	if (new.kind == DATA &&new.value == 0) {
		refuse(c, t, b->where, "state-pointers", "points to data whose place cannot be told");
		return;
	}
	bool numbers = old.kind == NUMBERS && new.kind == NUMBERS; /* the table's contents may have changed */
	if (same_meaning(old, new) || (numbers && !t->s->refreshed))
		return;
	if (!is_other_function(x, old, new)) {
		refuse(c, t, b->where, "state-pointers",
		       "points to another function, or to one that was taken for another");
		return;
	}
	add_change(c, b->where, old, new);
	if (t->s->refreshed)
		return;
	if (old.kind != new.kind || old.value == 0)
		refuse(c, t, b->where, "state-pointers", "points to something else in the new build");
	else
		note_value(c, a->where, b->where, 8);
}

/* ---- plain bytes ---- */

/* Is what lies at `i` the lower half of a small negative number of 4 bytes? */
static bool is_negative(const uint8_t *p, uint64_t i, uint64_t n)
{
	return i % 4 == 0 && i + 4 <= n && p[i + 2] == 0xff && p[i + 3] == 0xff;
}

/* Is there a number of 2, 4 or 8 bytes that changed and may be the size of an object? Tables of methods say how much to
 * allocate, and then objects that exist are of another size. */
static bool may_be_size(const uint8_t *a, const uint8_t *b, uint64_t n)
{
	enum { LEAST = 8, MOST = 1 << 24 };
	for (uint64_t width = 2; width <= 8; width *= 2)
		for (uint64_t i = 0; i + width <= n; i += width) {
			uint64_t x = 0, y = 0;
			memcpy(&x, a + i, width);
			memcpy(&y, b + i, width);
			if (x != y && x >= LEAST && x < MOST && y >= LEAST && y < MOST &&
			    !(width == 2 && is_negative(a, i, n) && is_negative(b, i, n)))
				return true;
		}
	return false;
}

/* One word, or what there is of it between two pointers. */
static void compare_word(struct comparison *c, const struct stretch *t, uint64_t from, uint64_t to)
{
	const uint8_t *a = t->a->data + (t->live - t->a->h.sh_addr), *b = t->b->data + (t->next - t->b->h.sh_addr);
	if (memcmp(a + from, b + from, to - from) == 0)
		return;
	add_change(c, t->next + from, plain(a + from, to - from), plain(b + from, to - from));
	if (t->s->refreshed && may_be_size(a + from, b + from, to - from)) {
		refuse(c, t, t->next + from, "state-contents",
		       "holds another number, which may be the size of objects");
	} else if (t->s->refreshed) {
		struct relro_word w = {.where = layout__home(c->x, t->next + from), .plain = (uint8_t)(to - from)};
		memcpy(&w.value, b + from, to - from);
		vec__push(&c->words, w);
	}
	if (t->s->refreshed)
		return;
	for (uint64_t i = from; i < to; i++) { /* at most 4 bytes at a time: two of them may be two variables */
		uint64_t n = i + 1, end = align_up(t->next + i + 1, 4) - t->next;
		if (a[i] == b[i])
			continue;
		while (n < to && n < end && a[n] != b[n])
			n++;
		note_value(c, t->live + i, t->next + i, n - i);
		i = n - 1;
	}
}

static void compare_plain(struct comparison *c, const struct stretch *t, uint64_t from, uint64_t to)
{
	if (!t->a->data || !t->b->data)
		return;
	while (from < to) {
		uint64_t end = align_up(t->next + from + 1, 8) - t->next;
		end = end < to ? end : to;
		compare_word(c, t, from, end);
		from = end;
	}
}

/* A pointer in one build only. A pointer of next is written with all others (refresh_words() of rebind.c). */
static void compare_lone(struct comparison *c, const struct stretch *t, const struct elf_reloc *a,
			 const struct elf_reloc *b, uint64_t offset)
{
	vaddr_t next = t->next + offset;
	bool known = (!a || is_relative(a)) && (!b || is_relative(b));
	if (!t->s->refreshed || !t->object || !known || t->len - offset < 8 || !t->a->data || !t->b->data) {
		refuse(c, t, next, "state-pointers", "is a pointer in one build only");
		return;
	}
	const uint8_t *old = t->a->data + (t->live - t->a->h.sh_addr) + offset;
	const uint8_t *new = t->b->data + (t->next - t->b->h.sh_addr) + offset;
	struct meaning was = a ? meaning_of_old(c->x, (vaddr_t)a->addend) : plain(old, 8);
	struct meaning is = b ? meaning_of_new(c->x, (vaddr_t)b->addend, 0) : plain(new, 8);
	if (b && (is_label(c->x->p->next_code, b) || (is.kind == DATA && !is.value))) {
		refuse(c, t, next, "state-pointers", "points to a place that cannot be told");
		return;
	}
	if (!is_other_function(c->x, was, is)) {
		refuse(c, t, next, "state-pointers", "points to a function that cannot be told from another");
		return;
	}
	add_change(c, next, was, is);
	if (!b) {
		struct relro_word w = {.where = layout__home(c->x, next), .plain = 8};
		memcpy(&w.value, new, 8);
		vec__push(&c->words, w);
	}
}

/* ---- elements that moved ---- */

static int by_old(const void *a, const void *b)
{
	const struct change *x = a, *y = b;
	if (x->old.kind != y->old.kind)
		return x->old.kind < y->old.kind ? -1 : 1;
	return (x->old.value > y->old.value) - (x->old.value < y->old.value);
}

/* A value of a word that changed, found in another word that changed: moved, not replaced. */
static bool moved(const struct comparison *c, const struct change *one)
{
	struct change key = {.old = one->new};
	bool nothing = one->new.kind == NOTHING || (one->new.kind == PLAIN && one->new.value == 0);
	return !nothing && bsearch(&key, c->changes.items, c->changes.n, sizeof(key), by_old) != NULL;
}

static void check_moved(struct comparison *c, const struct stretch *t)
{
	if (c->changes.n)
		qsort(c->changes.items, c->changes.n, sizeof(c->changes.items[0]), by_old);
	for (size_t i = 0; i < c->changes.n; i++)
		if (moved(c, &c->changes.items[i])) {
			refuse(c, t, c->changes.items[i].next, "state-contents",
			       "holds what the old build has elsewhere: entries moved, or were inserted");
			return;
		}
	if (t->s->refreshed && c->changes.n)
		planner__remark(c->x, "%zu words of %s have other contents in the new build", c->changes.n, t->s->name);
}

/* ---- stretches ---- */

/* The first relocation at or behind `a`. */
static size_t first_reloc(const struct elf_file *e, vaddr_t a)
{
	size_t lo = 0, hi = e->relocs.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (e->relocs.items[mid].where < a)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool lies_in(const struct elf_section *s, vaddr_t a, uint64_t len)
{
	return s && a - s->h.sh_addr <= s->h.sh_size && len <= s->h.sh_size - (a - s->h.sh_addr);
}

static void compare_stretch(struct comparison *c, const struct stretch *t)
{
	if (!lies_in(t->a, t->live, t->len) || !lies_in(t->b, t->next, t->len)) {
		refuse(c, t, t->next, "state-shape", "reaches beyond its section in one of the builds");
		return;
	}
	const struct elf_file *live = c->x->p->live, *next = c->x->p->next;
	size_t i = first_reloc(live, t->live), k = first_reloc(next, t->next);
	uint64_t done = 0;
	for (;;) {
		const struct elf_reloc *a = i < live->relocs.n ? &live->relocs.items[i] : NULL;
		const struct elf_reloc *b = k < next->relocs.n ? &next->relocs.items[k] : NULL;
		uint64_t oa = a ? a->where - t->live : UINT64_MAX, ob = b ? b->where - t->next : UINT64_MAX;
		uint64_t at = oa < ob ? oa : ob;
		if (at >= t->len)
			break;
		if (at > done)
			compare_plain(c, t, done, at);
		if (oa == ob)
			compare_pointer(c, t, a, b);
		else
			compare_lone(c, t, oa < ob ? a : NULL, ob < oa ? b : NULL, at);
		i += oa == at;
		k += ob == at;
		done = at + 8;
	}
	if (done < t->len)
		compare_plain(c, t, done, t->len);
	check_moved(c, t);
	c->changes.n = 0;
}

static void compare_objects(struct comparison *c, struct stretch t)
{
	for (size_t i = 0; i < c->x->objects.n; i++) {
		const struct static_object *o = &c->x->objects.items[i];
		t.next = o->at;
		t.live = o->live;
		t.len = o->size;
		t.object = true;
		if (o->live && o->at >= t.s->start && o->at < t.s->end)
			compare_stretch(c, &t);
	}
}

static bool is_linker_made(const char *name)
{
	return strncmp(name, ".got", 4) == 0 || strcmp(name, ".dynamic") == 0;
}

/* New threads get their thread-local variables from the file that the process loaded: nothing may differ. */
static void compare_tdata(struct comparison *c)
{
	const struct elf_section *a = elf_file__section(c->x->p->live, ".tdata");
	const struct elf_section *b = elf_file__section(c->x->p->next, ".tdata");
	size_t before = c->x->changed_values.n;
	if (!a || !b || a->h.sh_size != b->h.sh_size)
		return; /* refused by size */
	const struct state_section s = {.name = ".tdata", .start = b->h.sh_addr, .end = b->h.sh_addr + b->h.sh_size};
	const struct stretch t = {
	    .s = &s, .a = a, .b = b, .live = a->h.sh_addr, .next = b->h.sh_addr, .len = b->h.sh_size};
	compare_stretch(c, &t);
	for (size_t i = before; i < c->x->changed_values.n; i++)
		refuse(c, &t, c->x->changed_values.items[i].next, "state-contents", "has another initial value");
	c->x->changed_values.n = before;
}

/* Words of objects that went back to a place that the build had before any update. */
static void restore_objects(struct comparison *c)
{
	const struct elf_file *next = c->x->p->next;
	for (size_t i = 0; i < c->x->objects.n; i++) {
		const struct static_object *o = &c->x->objects.items[i];
		for (uint64_t k = 0; !o->live && o->home < HOME_OWN && k < o->size; k += 8) {
			size_t n = o->size - k < 8 ? o->size - k : 8;
			struct relro_word w = {.where = o->home + k, .plain = (uint8_t)n};
			const uint8_t *from = elf_file__at(next, o->at + k, n);
			const struct state_section *s = layout__section(c->x, o->at);
			if (!from || !s || !s->refreshed || elf_file__reloc_at(next, o->at + k))
				continue;
			memcpy(&w.value, from, n);
			vec__push(&c->words, w);
		}
	}
}

void contents__compare(struct planner *x)
{
	struct comparison c = {.x = x};
	for (size_t i = 0; i < x->state.n; i++) {
		const struct state_section *s = &x->state.items[i];
		struct stretch t = {
		    .s = s, .a = elf_file__section(x->p->live, s->name), .b = elf_file__section(x->p->next, s->name)};
		if (!s->live || is_linker_made(s->name))
			continue;
		t.live = s->live;
		t.next = s->start;
		t.len = s->end - s->start;
		if (s->by_object)
			compare_objects(&c, t);
		else if (t.a && t.b && t.a->h.sh_size == t.b->h.sh_size)
			compare_stretch(&c, &t);
	}
	restore_objects(&c);
	compare_tdata(&c);
	for (size_t i = 0; i < c.words.n; i++)
		vec__push(&x->p->words, c.words.items[i]);
	vec__free(&c.words);
	vec__free(&c.changes);
}

/* ---- initial values that changed ---- */

static bool is_same_variable(const struct planner *x, const struct ref *live, const struct ref *next)
{
	vaddr_t home = layout__home(x, next->target);
	return home && home == layout__meant_by(x, live);
}

/* The bytes that an instruction accesses. */
static uint64_t width(const struct code *c, const struct ref *r)
{
	struct insn i;
	struct insn_detail d;
	const uint8_t *p = elf_file__at(c->elf, r->insn, r->end - r->insn);
	return p && insn__detail(p, r->end - r->insn, r->insn, &i, &d) && d.has_mem && d.rip ? d.size : 0;
}

/* A reference of code that is certainly the same to one value around `v`, alike in both builds; NULL: none. */
static const struct ref *certain_use(const struct planner *x, const struct changed_value *v)
{
	const struct match *m = x->p->match;
	for (size_t f = 0; f < m->b->functions.n; f++) {
		const struct function *fn = &m->b->functions.items[f];
		if (!m->same_code[f] || m->how[f] < MATCH_CONTENT)
			continue;
		for (uint32_t i = fn->first_ref; i < fn->first_ref + fn->n_refs; i++) {
			const struct ref *r = &m->b->refs.items[i];
			uint64_t before = v->next - r->target;
			if (m->ref_b_to_a[i] < 0 || r->kind != REF_MEMORY || before >= 8)
				continue;
			const struct ref *old = &m->a->refs.items[m->ref_b_to_a[i]];
			uint64_t size = width(m->b, r);
			if (size <= 8 && before + v->size <= size && old->target == v->live - before &&
			    is_same_variable(x, old, r))
				return r;
		}
	}
	return NULL;
}

/* Is [at, at + size) one value in this build: used as a whole or from its start on, its address not taken? */
static bool is_one_value(const struct code *c, vaddr_t at, uint64_t size)
{
	for (size_t i = 0; i < c->refs.n; i++) {
		const struct ref *r = &c->refs.items[i];
		if (r->target - at < size && (r->kind != REF_MEMORY || r->target != at))
			return false;
	}
	for (size_t i = 0; i < c->elf->relocs.n; i++)
		if (c->elf->relocs.items[i].type == R_X86_64_RELATIVE &&
		    (vaddr_t)c->elf->relocs.items[i].addend - at < size)
			return false;
	return true;
}

/* Wherever instructions correspond, they agree on what lies in [next, next + size). */
static bool uses_agree(const struct planner *x, vaddr_t live, vaddr_t next, uint64_t size)
{
	const struct match *m = x->p->match;
	for (size_t i = 0; i < m->b->refs.n; i++) {
		const struct ref *r = &m->b->refs.items[i];
		if (m->ref_b_to_a[i] < 0 || r->kind == REF_CALL || r->kind == REF_JUMP)
			continue;
		const struct ref *old = &m->a->refs.items[m->ref_b_to_a[i]];
		if ((r->target - next < size || old->target - live < size) && !is_same_variable(x, old, r))
			return false;
	}
	return true;
}

static bool proved_by_code(const struct planner *x, const struct changed_value *v)
{
	const struct ref *r = certain_use(x, v);
	if (!r)
		return false;
	uint64_t size = width(x->p->next_code, r);
	vaddr_t live = v->live - (v->next - r->target);
	return is_one_value(x->p->next_code, r->target, size) && is_one_value(x->p->live_code, live, size) &&
	       uses_agree(x, live, r->target, size);
}

static bool proved_by_types(const struct planner *x, const struct changed_value *v)
{
	vaddr_t a, b;
	uint64_t size_a, size_b;
	const char *old = statics__symbol(x->p->live, v->live, &a, &size_a);
	const char *new = statics__symbol(x->p->next, v->next, &b, &size_b);
	return x->p->layout == LAYOUT_PROVED && old && new &&strcmp(old, new) == 0 && size_a == size_b &&
	       v->live - a == v->next - b &&uses_agree(x, a, b, size_a);
}

void contents__settle(struct planner *x)
{
	struct comparison c = {.x = x};
	if (x->changed_values.n > VALUES_MAX)
		planner__refuse(x, "state-contents", "the initial contents of writable data differ at %zu places",
				x->changed_values.n);
	for (size_t i = 0; i < x->changed_values.n && x->changed_values.n <= VALUES_MAX; i++) {
		const struct changed_value *v = &x->changed_values.items[i];
		struct stretch t = {.s = layout__section(x, v->next)};
		FREE_CLEANUP char *where = describe(&c, &t, v->next);
		if (proved_by_types(x, v) || proved_by_code(x, v))
			planner__remark(x, "the initial value of %s changed; the value that the process has stays",
					where);
		else
			planner__refuse(x, "state-contents",
					"the initial contents differ at %s, and may be those of another variable",
					where);
	}
}
