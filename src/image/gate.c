/* See gate.h. What counts as a sign of change, in code that is not the same in both builds:
 *
 *     moved      corresponding instructions use different offsets into an object, unchanged code does not show
 *                that the old offset is still in use, and not each of them is in the other function as well
 *     new bytes  code touches bytes of an object that no old code touches: a field was added, also into
 *                former padding, or became wider
 *     size       the constant that is the size of an allocation, or of a block that is set or copied, differs
 *     stride     the distance between the elements of an array differs
 *     bits       masks and shifts of what was loaded from memory differ: bit-fields moved, or an array whose index
 *                is masked has grown
 *
 * Other constants say nothing: comparisons, and above all __LINE__, which changes wherever a line was added above.
 * An address whose object cannot be told, or of which old code shows one field at most, counts against the update
 * only where its offset is not used with that width anywhere in the old build.
 *
 * A sign in an object that lies on stacks of the library's own functions alone (objects.h) does not count against the
 * update. But then no call may be under way: the plan lets nobody go on in the middle of a function.
 */
#include "image/gate.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "arch/detail.h"
#include "image/objects.h"

enum {
	SIGNS_SHOWN = 6,
	ACCESS_MAX = 64, /* bytes, of the widest operand */
	NEAR = 32,       /* bytes */
};

/* An instruction that seems to use another field than before. */
struct move {
	uint32_t class;
	int64_t from, to;
	vaddr_t insn;
};

struct gate {
	struct planner *x;
	struct objects o;
	struct access *by_insn, *old_by_insn; /* accesses of new and old code, sorted by instruction */
	VEC(struct access) fields;            /* what old code accesses, each once: sorted by class, offset, size */
	struct access *old_by_offset;         /* old accesses, sorted by offset and size */
	size_t n_old_by_offset;
	struct bits_picked *old_bits_by_offset;
	vaddr_list picks; /* instructions of new code that pick bits out of what was loaded, sorted */
	VEC(struct move) moves;
	size_t changed, unclear;
	size_t on_stacks;               /* signs in objects that do not outlive a call */
	const struct function *fa, *fb; /* being compared */
	bool proved;                    /* what they work with is */
	bool near;                      /* only fields that moved a little count */
	vaddr_list paired_a, paired_b;  /* their instructions that have a counterpart, sorted */
	vaddr_list insns_a, insns_b;    /* their instructions, hashed: sorted */
	vaddr_list sizes_a, sizes_b;    /* values that may be sizes: sorted */
};

static void sign(struct gate *g, size_t *count, const char *code, char *text)
{
	if (++*count <= SIGNS_SHOWN)
		planner__refuse(g->x, code, "%s", text);
	free(text);
}

static bool is_same_code(const struct gate *g, int32_t new_function)
{
	return g->x->p->match->same_code[new_function];
}

/* Do types say what this function of the new build works with? Then only sizes are compared. */
static bool is_proved(const struct gate *g, int32_t new_function)
{
	return g->x->p->layout == LAYOUT_PROVED && !g->x->unproved[new_function];
}

static bool old_is_same_code(const struct gate *g, int32_t old_function)
{
	int32_t n = g->x->p->match->a_to_b[old_function];
	return n >= 0 && is_same_code(g, n);
}

/* ---- new bytes ---- */

static int by_offset(const void *a, const void *b)
{
	const struct access *x = a, *y = b;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return (x->size > y->size) - (x->size < y->size);
}

static int bits_by_offset(const void *a, const void *b)
{
	const struct bits_picked *x = a, *y = b;
	return (x->offset > y->offset) - (x->offset < y->offset);
}

static void list_fields(struct gate *g)
{
	const struct access *all = g->o.old.items, *last = NULL;
	for (size_t i = 0; all && i < g->o.old.n; i++) {
		const struct access *a = &all[i];
		if (a->forms_address ||
		    (last && last->class == a->class && last->offset == a->offset && last->size == a->size))
			continue;
		vec__push(&g->fields, *a);
		last = a;
	}
}

static void list_bits(struct gate *g)
{
	size_t n = g->o.old_bits.n;
	g->old_bits_by_offset = xcalloc(n, sizeof(struct bits_picked));
	for (size_t i = 0; i < n; i++)
		g->old_bits_by_offset[i] = g->o.old_bits.items[i];
	qsort(g->old_bits_by_offset, n, sizeof(struct bits_picked), bits_by_offset);
	n = g->o.new_bits.n;
	for (size_t i = 0; i < n; i++)
		vec__push(&g->picks, g->o.new_bits.items[i].insn);
	vaddr_list__sort(&g->picks);
}

static void list_by_offset(struct gate *g)
{
	g->old_by_offset = xcalloc(g->o.old.n, sizeof(struct access));
	for (size_t i = 0; i < g->o.old.n; i++)
		if (!g->o.old.items[i].forms_address)
			g->old_by_offset[g->n_old_by_offset++] = g->o.old.items[i];
	qsort(g->old_by_offset, g->n_old_by_offset, sizeof(struct access), by_offset);
}

/* The first access of a class at or behind an offset in a sorted list. */
static size_t first_at(const struct access *list, size_t n, uint32_t class, int64_t offset)
{
	size_t lo = 0, hi = n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (list[mid].class < class || (list[mid].class == class && list[mid].offset < offset))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool is_at(const struct access *list, size_t n, size_t i, uint32_t class, int64_t offset)
{
	return i < n && list[i].class == class && list[i].offset == offset;
}

static size_t first_of(const struct access *list, size_t n, uint32_t class)
{
	return first_at(list, n, class, INT64_MIN);
}

/* Is there a sign, in an old access, of a field that a new access of `size` bytes at `offset` may be to?
 * Copies of whole objects and wide stores that clear several fields touch padding too: what starts in front of
 * the new access speaks for it only when it is narrow enough to be one field (flags are tested by the byte). */
static bool speaks_for(const struct access *old, int64_t offset, unsigned size)
{
	if (size > 8)
		return true;
	return old->size <= 8 && (old->offset >= offset || old->size <= 4);
}

/* Does old code show anything of such objects? One field alone says nothing of what else there is. */
static bool is_known(const struct gate *g, uint32_t class)
{
	size_t i = first_of(g->fields.items, g->fields.n, class);
	return i + 1 < g->fields.n && g->fields.items[i].class == class && g->fields.items[i + 1].class == class;
}

/* Are all bytes of [offset, offset + size) in fields that old accesses of the class show? */
static bool covered(const struct gate *g, uint32_t class, int64_t offset, unsigned size, bool *any)
{
	const struct access *old = g->fields.items;
	size_t n = g->fields.n;
	int64_t at = offset;
	bool more = true;
	*any = is_known(g, class);
	while (more && at < offset + size) {
		more = false;
		for (size_t i = first_at(old, n, class, at - ACCESS_MAX + 1);
		     i < n && old[i].class == class && old[i].offset <= at && !more; i++)
			if (speaks_for(&old[i], offset, size) && old[i].offset + old[i].size > at) {
				at = old[i].offset + old[i].size;
				more = true;
			}
	}
	return at >= offset + size;
}

/* Is it the one field that is known, and more? */
static bool is_widened(const struct gate *g, const struct access *a)
{
	size_t i = first_of(g->fields.items, g->fields.n, a->class);
	if (a->class == CLASS_UNKNOWN || i == g->fields.n || g->fields.items[i].class != a->class)
		return false;
	const struct access *field = &g->fields.items[i];
	return field->offset < a->offset + a->size && a->offset < field->offset + field->size;
}

/* Does any old code use this offset with this width, into whatever object? */
static bool used_somewhere(const struct gate *g, const struct access *a)
{
	return g->n_old_by_offset && bsearch(a, g->old_by_offset, g->n_old_by_offset, sizeof(*a), by_offset);
}

/* Too small to tell one object from another; and lea and add serve for sums of numbers and for steps through
 * text as well. */
static bool is_small(int64_t v)
{
	return v > -16 && v < 16;
}

/* Do both builds take the same bytes for an address, and the same ones for a number? */
static bool is_other_kind(const struct gate *g, const struct access *a)
{
	const struct access *old = g->fields.items;
	size_t n = g->fields.n;
	bool same = false, pointer = false, other = false;
	for (size_t i = first_at(old, n, a->class, a->offset - 7);
	     i < n && old[i].class == a->class && old[i].offset < a->offset + a->size; i++) {
		if (old[i].size > 8 || old[i].offset + old[i].size <= a->offset)
			continue;
		same = same || (old[i].offset == a->offset && old[i].size == a->size);
		pointer = pointer || old[i].holds_pointer;
		other = true;
	}
	return other && !same && a->size <= 8 && (pointer || a->holds_pointer);
}

/* Is the array stepped through in another way, as far as an index with a scale tells? */
static bool is_other_array(const struct gate *g, const struct access *a)
{
	const struct access *old = g->o.old.items;
	size_t n = g->o.old.n;
	bool any = false;
	if (a->scale <= 1)
		return false;
	for (size_t i = first_at(old, n, a->class, a->offset); is_at(old, n, i, a->class, a->offset); i++) {
		if (!old[i].scale || old[i].forms_address)
			continue;
		if (old[i].size == a->size && (old[i].scale == a->scale || old[i].scale == 1))
			return false;
		any = true;
	}
	return any;
}

/* Is a sign in an object where it does not count? */
static bool is_on_stack(struct gate *g, uint32_t class)
{
	const struct access *of = g->o.new.items;
	size_t i = first_of(of, g->o.new.n, class);
	bool is = i < g->o.new.n &&of[i].class == class &&of[i].call_local;
	g->on_stacks += is;
	return is;
}

static void judge_kind(struct gate *g, const struct access *a)
{
	bool kind = is_other_kind(g, a);
	if ((!kind && !is_other_array(g, a)) || is_on_stack(g, a->class))
		return;
	FREE_CLEANUP char *where = code__describe(g->x->p->next_code, a->insn);
	sign(g, &g->unclear, "layout-unclear",
	     kind ? xasprintf(
			"%s uses %u bytes at offset 0x%lx of an object, where an address is in one build and none in "
			"the other",
			where, a->size, a->offset)
		  : xasprintf("%s uses elements of %u bytes at offset 0x%lx of an object, where old code uses others",
			      where, a->size, a->offset));
}

static void judge_access(struct gate *g, const struct access *a)
{
	bool any;
	if (a->class != CLASS_UNKNOWN)
		judge_kind(g, a);
	if (covered(g, a->class, a->offset, a->size, &any) && a->class != CLASS_UNKNOWN)
		return;
	/* at offset 0 nearly every object has something */
	if ((a->class == CLASS_UNKNOWN || (!any && !is_widened(g, a))) && (a->offset == 0 || used_somewhere(g, a)))
		return;
	if (is_on_stack(g, a->class))
		return;
	FREE_CLEANUP char *where = code__describe(g->x->p->next_code, a->insn);
	if (a->class != CLASS_UNKNOWN && any)
		sign(g, &g->changed, "layout-changed",
		     xasprintf("%s uses %u bytes at offset 0x%lx of an object, which no old code uses", where, a->size,
			       a->offset));
	else
		sign(g, &g->unclear, "layout-unclear",
		     xasprintf("%s uses %u bytes at offset 0x%lx of an object that is not known, an offset that no old "
			       "code uses",
			       where, a->size, a->offset));
}

static void judge_accesses(struct gate *g)
{
	const struct access *all = g->o.new.items;
	for (size_t i = 0; all && i < g->o.new.n; i++) {
		const struct access *a = &all[i];
		if (!is_same_code(g, a->function) && !is_proved(g, a->function) && !a->forms_address)
			judge_access(g, a);
	}
}

/* ---- corresponding instructions that differ ---- */

static int by_insn(const void *a, const void *b)
{
	const struct access *x = a, *y = b;
	return (x->insn > y->insn) - (x->insn < y->insn);
}

static struct access *sorted_by_insn(const struct access *list, size_t n)
{
	struct access *copy = xcalloc(n, sizeof(*copy));
	for (size_t i = 0; i < n; i++)
		copy[i] = list[i];
	qsort(copy, n, sizeof(*copy), by_insn);
	return copy;
}

static const struct access *access_at(const struct gate *g, vaddr_t insn)
{
	struct access key = {.insn = insn};
	return g->o.new.n ? bsearch(&key, g->by_insn, g->o.new.n, sizeof(key), by_insn) : NULL;
}

static bool is_size(const struct gate *g, vaddr_t insn)
{
	size_t lo = 0, hi = g->o.sizes.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (g->o.sizes.items[mid].insn < insn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < g->o.sizes.n && g->o.sizes.items[lo].insn == insn;
}

static bool is_loaded(const struct gate *g, vaddr_t insn)
{
	return vaddr_list__has(&g->picks, insn);
}

/* The bits of one byte of an object that old code picks out; of any object when it cannot be told. */
static uint8_t old_bits_at(const struct gate *g, uint32_t class, int64_t at)
{
	bool any = class == CLASS_UNKNOWN;
	const struct bits_picked *list = any ? g->old_bits_by_offset : g->o.old_bits.items;
	size_t lo = 0, hi = g->o.old_bits.n;
	uint8_t bits = 0;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if ((any || list[mid].class == class) ? list[mid].offset < at - 7 : list[mid].class < class)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < g->o.old_bits.n && (any || list[lo].class == class) && list[lo].offset <= at; lo++)
		bits |= (uint8_t)(list[lo].bits >> (8 * (at - list[lo].offset)));
	return bits;
}

/* Does old code pick any bits out of the same word? */
static bool picks_any(const struct gate *g, const struct bits_picked *b)
{
	for (int k = 0; k < 8; k++)
		if (old_bits_at(g, b->class, b->offset + k))
			return true;
	return false;
}

/* Where old code picks bits out of a byte, new code must pick the same. */
static void judge_bits(struct gate *g)
{
	for (size_t i = 0; i < g->o.new_bits.n; i++) {
		const struct bits_picked *b = &g->o.new_bits.items[i];
		/* an object that cannot be told: the same offset must do, but offset 0 is mostly text */
		if (is_same_code(g, b->function) || is_proved(g, b->function) ||
		    (b->class == CLASS_UNKNOWN && b->offset == 0))
			continue;
		for (int k = 0; k < 8; k++) {
			uint8_t bits = (uint8_t)(b->bits >> (8 * k));
			uint8_t old = bits ? old_bits_at(g, b->class, b->offset + k) : 0;
			/* what is cleared is a field among others, wherever in the word they are */
			bool fields = old || (b->clears && b->class != CLASS_UNKNOWN && picks_any(g, b));
			if (!(fields && (bits & ~old)) || is_on_stack(g, b->class))
				continue;
			FREE_CLEANUP char *where = code__describe(g->x->p->next_code, b->insn);
			sign(g, &g->unclear, "layout-unclear",
			     xasprintf("%s uses bits 0x%x of the byte at offset 0x%lx of an object, of which old code "
				       "uses 0x%x alone",
				       where, bits, b->offset + k, old));
			break;
		}
	}
}

/* Is there any access through addresses of this class? If not, it may be numbers that are added. */
static bool is_accessed(const struct access *list, size_t n, uint32_t class)
{
	for (size_t i = first_of(list, n, class); i < n && list[i].class == class; i++)
		if (!list[i].forms_address)
			return true;
	return false;
}

/* Unchanged code still uses the old offset of such an object, and used the new one before: the changed function
 * merely works with another field. */
static bool other_field(const struct gate *g, uint32_t class, int64_t from, int64_t to)
{
	bool from_stays = false, to_was = false;
	const struct access *new = g->o.new.items, *old = g->o.old.items;
	for (size_t i = first_at(new, g->o.new.n, class, from); is_at(new, g->o.new.n, i, class, from); i++)
		from_stays = from_stays || is_same_code(g, new[i].function);
	for (size_t i = first_at(old, g->o.old.n, class, to); is_at(old, g->o.old.n, i, class, to); i++)
		to_was = to_was || old_is_same_code(g, old[i].function);
	return from_stays && to_was;
}

/* ---- what each of the two functions has, wherever it stands ---- */

/* The value that an instruction sets or adds: a size, if it is handed over as one. */
static int64_t size_of(const struct insn_detail *d)
{
	return d->op == OP_ADDRESS ? d->disp : d->imm;
}

static bool may_be_size(const struct insn_detail *d)
{
	return !d->rip && (d->op == OP_SET || d->op == OP_ADD || d->op == OP_ADDRESS);
}

/* Equal for what is the same in both builds, but for relative values. */
static uint64_t hash_of(const uint8_t *p, const struct insn *i)
{
	return insn__hash(HASH_START, p, i, true, INSN_ALL);
}

static void look_at(const struct code *c, const struct function *f, vaddr_list *insns, vaddr_list *sizes)
{
	const uint8_t *p = elf_file__at(c->elf, f->start, f->end - f->start);
	insns->n = sizes->n = 0;
	for (vaddr_t at = f->start; p && at < f->end;) {
		struct insn i;
		struct insn_detail d;
		if (!insn__detail(p + (at - f->start), f->end - at, at, &i, &d))
			break;
		vec__push(insns, hash_of(p + (at - f->start), &i));
		if (may_be_size(&d))
			vec__push(sizes, (vaddr_t)size_of(&d));
		at += i.len;
	}
	vaddr_list__sort(insns);
	vaddr_list__sort(sizes);
}

/* ---- corresponding instructions ---- */

/* Something was put in, taken out or put in another order, and what seems to correspond by its shape does not: each
 * of the two instructions is in the other function too. Where a field moved, not all can be: the last one in the
 * chain of what became what is not in the old function. */
static bool are_both_there(const struct gate *g, const uint8_t *a, const struct insn *ia, const uint8_t *b,
			   const struct insn *ib)
{
	return vaddr_list__has(&g->insns_b, hash_of(a, ia)) && vaddr_list__has(&g->insns_a, hash_of(b, ib));
}

/* Counts of calloc() and the like. */
static bool is_count(int64_t v)
{
	return v == 0 || v == 1;
}

/* Both sizes are used by both functions: calls were put in another order, or arguments were. */
static bool are_both_used(const struct gate *g, int64_t a, int64_t b)
{
	return (is_count(b) || vaddr_list__has(&g->sizes_a, (uint64_t)b)) &&
	       (is_count(a) || vaddr_list__has(&g->sizes_b, (uint64_t)a));
}

static bool is_stored(const struct access *list, size_t n, const struct function *f, uint32_t class, int64_t offset)
{
	size_t lo = 0, hi = n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (list[mid].insn < f->start)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < n && list[lo].insn < f->end; lo++)
		if (list[lo].stores && list[lo].class == class && list[lo].offset == offset)
			return true;
	return false;
}

/* Both functions fill both fields, in another order. What reads them would still show a field that moved. */
static bool is_reordered_store(const struct gate *g, vaddr_t at_a, const struct access *x, int64_t from)
{
	const struct access *old = g->old_by_insn, *new = g->by_insn;
	const struct access key = {.insn = at_a};
	const struct access *was = g->o.old.n ? bsearch(&key, old, g->o.old.n, sizeof(key), by_insn) : NULL;
	return was && was->stores && x->stores && was->class != CLASS_UNKNOWN && x->class != CLASS_UNKNOWN &&
	       is_stored(old, g->o.old.n, g->fa, was->class, x->offset) &&
	       is_stored(new, g->o.new.n, g->fb, x->class, from);
}

/* Fields changed places where what one instruction left is what another one took. */
static void judge_moves(struct gate *g)
{
	const struct move *m = g->moves.items;
	for (size_t i = 0; i < g->moves.n; i++) {
		bool meets = false;
		for (size_t k = 0; k < g->moves.n && !meets; k++)
			meets = m[k].class == m[i].class && m[k].from == m[i].to;
		if (!meets || is_on_stack(g, m[i].class))
			continue;
		FREE_CLEANUP char *where = code__describe(g->x->p->next_code, m[i].insn);
		sign(g, &g->changed, "layout-changed",
		     xasprintf(
			 "%s uses offset 0x%lx of an object where the old build uses 0x%lx, and other code the other "
			 "way round",
			 where, m[i].to, m[i].from));
	}
}

static void compare_offsets(struct gate *g, const struct insn_detail *da, const struct insn_detail *db, vaddr_t at_a,
			    vaddr_t at_b, const char *where)
{
	const struct access *x = access_at(g, at_b);
	int64_t from = x ? x->offset - db->disp + da->disp : 0;
	bool sum = x && x->forms_address &&
		   (x->class == CLASS_UNKNOWN ? is_small(from) && is_small(x->offset)
					      : !is_accessed(g->o.old.items, g->o.old.n, x->class) &&
						    !is_accessed(g->o.new.items, g->o.new.n, x->class));
	if (!x || sum || (g->near && (from - x->offset > NEAR || x->offset - from > NEAR)) ||
	    is_reordered_store(g, at_a, x, from))
		return;
	if (other_field(g, x->class, from, x->offset)) {
		struct move m = {x->class, from, x->offset, at_b};
		vec__push(&g->moves, m);
		return;
	}
	if (is_on_stack(g, x->class))
		return;
	sign(g, x->class ? &g->changed : &g->unclear, x->class ? "layout-changed" : "layout-unclear",
	     xasprintf("%s uses offset 0x%lx of an object where the old build uses 0x%lx", where, x->offset, from));
}

static void compare_insns(void *context, vaddr_t at_a, vaddr_t at_b)
{
	struct gate *g = context;
	const struct plan *p = g->x->p;
	const uint8_t *a = elf_file__at(p->live, at_a, g->fa->end - at_a),
		      *b = elf_file__at(p->next, at_b, g->fb->end - at_b);
	struct insn ia, ib;
	struct insn_detail da, db;
	if (!a || !b || !insn__detail(a, g->fa->end - at_a, at_a, &ia, &da) ||
	    !insn__detail(b, g->fb->end - at_b, at_b, &ib, &db))
		return;
	if ((da.imm == db.imm && (db.rip || da.disp == db.disp)) || are_both_there(g, a, &ia, b, &ib))
		return;
	FREE_CLEANUP char *where = code__describe(p->next_code, at_b);
	if (db.has_mem && !db.rip && da.disp != db.disp && !g->proved)
		compare_offsets(g, &da, &db, at_a, at_b, where);
	int64_t size_a = size_of(&da), size_b = size_of(&db);
	if (size_a != size_b && may_be_size(&db) && is_size(g, at_b) && !are_both_used(g, size_a, size_b))
		sign(g, &g->changed, "layout-changed",
		     xasprintf("%s gives 0x%lx as a size where the old build gives 0x%lx", where, size_b, size_a));
	if (g->proved)
		return;
	if (da.imm != db.imm && db.picks_bits && is_loaded(g, at_b))
		sign(g, &g->unclear, "layout-unclear",
		     xasprintf(
			 "%s picks other bits (0x%lx) than the old build (0x%lx): a bit-field or an array may have "
			 "changed",
			 where, db.imm, da.imm));
	if (da.imm != db.imm && db.scales && !(is_small(da.imm) && is_small(db.imm)))
		sign(g, &g->unclear, "layout-unclear",
		     xasprintf("%s steps by 0x%lx where the old build steps by 0x%lx", where, db.imm, da.imm));
}

static void note_pair(void *context, vaddr_t at_a, vaddr_t at_b)
{
	struct gate *g = context;
	vec__push(&g->paired_a, at_a);
	vec__push(&g->paired_b, at_b);
	compare_insns(g, at_a, at_b);
}

/* What has no counterpart of its shape: a field that moves to or from offset 0, or beyond 127, is addressed by an
 * instruction of another length. What is
 * left over has often nothing else in common, so that a long way is no sign. */
static void note_form(void *context, vaddr_t at_a, vaddr_t at_b)
{
	struct gate *g = context;
	g->near = true;
	if (!vaddr_list__has(&g->paired_a, at_a) && !vaddr_list__has(&g->paired_b, at_b))
		compare_insns(g, at_a, at_b);
	g->near = false;
}

static void align(struct gate *g)
{
	const struct plan *p = g->x->p;
	g->paired_a.n = g->paired_b.n = 0;
	match__align(p->live_code, g->fa, p->next_code, g->fb, INSN_SHAPE, note_pair, g);
	vaddr_list__sort(&g->paired_a);
	vaddr_list__sort(&g->paired_b);
	match__align(p->live_code, g->fa, p->next_code, g->fb, INSN_FORM, note_form, g);
}

static void compare_functions(struct gate *g)
{
	const struct plan *p = g->x->p;
	for (size_t i = 0; i < p->next_code->functions.n; i++) {
		int32_t old = p->match->b_to_a[i];
		if (old < 0 || p->match->same_code[i] || p->next_code->functions.items[i].plt)
			continue;
		g->fa = &p->live_code->functions.items[old];
		g->fb = &p->next_code->functions.items[i];
		g->proved = is_proved(g, (int32_t)i);
		look_at(p->live_code, g->fa, &g->insns_a, &g->sizes_a);
		look_at(p->next_code, g->fb, &g->insns_b, &g->sizes_b);
		align(g);
	}
}

/* ---- the verdict ---- */

/* Is there code that changed and that the types say nothing about? */
static bool any_unproved(const struct planner *x)
{
	bool any = x->p->layout != LAYOUT_PROVED;
	for (size_t i = 0; i < x->p->next_code->functions.n && !any; i++)
		any = x->unproved[i];
	return any;
}

void gate__judge(struct planner *x)
{
	struct gate g = {.x = x};
	bool proved = !any_unproved(x);
	if (x->p->counts.changed + x->p->counts.added == 0) { /* no code that could use objects in another way */
		x->p->layout = proved ? LAYOUT_PROVED : LAYOUT_NO_SIGN;
		return;
	}
	objects__find(x, &g.o);
	g.by_insn = sorted_by_insn(g.o.new.items, g.o.new.n);
	g.old_by_insn = sorted_by_insn(g.o.old.items, g.o.old.n);
	list_by_offset(&g);
	list_fields(&g);
	list_bits(&g);
	compare_functions(&g);
	judge_moves(&g);
	judge_accesses(&g);
	judge_bits(&g);
	if (g.on_stacks) {
		x->stack_objects = true;
		planner__remark(
		    x, "objects on the stacks of the library's own functions changed: while a thread is in one of "
		       "them, the process cannot be updated");
	}
	size_t hidden = (g.changed > SIGNS_SHOWN ? g.changed - SIGNS_SHOWN : 0) +
			(g.unclear > SIGNS_SHOWN ? g.unclear - SIGNS_SHOWN : 0);
	if (hidden)
		planner__refuse(x, g.changed ? "layout-changed" : "layout-unclear", "%zu more signs of changed objects",
				hidden);
	x->p->layout = g.changed   ? LAYOUT_CHANGED
		       : g.unclear ? LAYOUT_UNCLEAR
		       : proved    ? LAYOUT_PROVED
				   : LAYOUT_NO_SIGN;
	free(g.by_insn);
	free(g.old_by_insn);
	free(g.old_by_offset);
	free(g.old_bits_by_offset);
	vec__free(&g.picks);
	vec__free(&g.paired_a);
	vec__free(&g.paired_b);
	vec__free(&g.insns_a);
	vec__free(&g.insns_b);
	vec__free(&g.sizes_a);
	vec__free(&g.sizes_b);
	vec__free(&g.fields);
	vec__free(&g.moves);
	objects__free(&g.o);
}

const char *layout_verdict__name(enum layout_verdict v)
{
	static const char *const names[] = {
	    [LAYOUT_NOT_JUDGED] = "not judged",
	    [LAYOUT_PROVED] = "proved by debug information",
	    [LAYOUT_NO_SIGN] = "no sign of change in the code",
	    [LAYOUT_UNCLEAR] = "unclear",
	    [LAYOUT_CHANGED] = "changed",
	    [LAYOUT_OVERRULED] = "overruled by the administrator",
	};
	return names[v];
}
