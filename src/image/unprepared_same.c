/* Is a function of a plain library the same in the next build? See unprepared.h. Where it cannot be told it is not:
 * then it moves, which is right as well. */
#include <string.h>

#include "arch/detail.h"
#include "image/unprepared_parts.h"

enum {
	OPERAND_MAX = 64, /* what one instruction reads at most (Intel SDM volume 1, 4.6) */
	AROUND = 256,  /* bytes in front of a constant that must be equal too: an array may be addressed by a place in
			  front of it */
	TABLE_MIN = 2, /* entries by which a table for switch is known */
};

static const struct patch *patch_at(const struct comparison *c, vaddr_t site)
{
	size_t lo = 0, hi = c->n_patches;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->patches[mid].site < site)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < c->n_patches && c->patches[lo].site == site ? &c->patches[lo] : NULL;
}

/* Does what next has at `site` lead to this place of vapi? */
static bool leads_to(const struct comparison *c, vaddr_t site, vaddr_t to)
{
	const struct patch *p = patch_at(c, site);
	return p && !p->own_got && p->to == to;
}

static bool read_word(const struct elf_file *e, vaddr_t a, int32_t *out)
{
	const uint8_t *p = elf_file__at(e, a, 4);
	if (p)
		memcpy(out, p, 4);
	return p != NULL;
}

static vaddr_t add(vaddr_t a, int32_t distance)
{
	return a + (vaddr_t)(int64_t)distance;
}

/* ---- places of code ---- */

static bool same_plt_entry(const struct comparison *c, vaddr_t a, vaddr_t b)
{
	const struct elf_reloc *ra = code__plt_reloc(c->a, a), *rb = code__plt_reloc(c->b, b);
	if (!ra || !rb || ra->type != rb->type)
		return false;
	if (ra->symbol || rb->symbol) {
		const struct elf_symbol *sa = &c->a->elf->symbols[ra->symbol], *sb = &c->b->elf->symbols[rb->symbol];
		return strcmp(sa->name, sb->name) == 0 && strcmp(sa->version, sb->version) == 0;
	}
	vaddr_t to_a = elf_file__behind_stub(c->a->elf, (vaddr_t)ra->addend);
	return to_a && match__successor(c->m, to_a) == elf_file__behind_stub(c->b->elf, (vaddr_t)rb->addend);
}

/* Data among the code, as assembly has it. */
static const struct gap *data_at(const struct code *c, vaddr_t a)
{
	for (size_t i = 0; i < c->data.n; i++)
		if (a - c->data.items[i].start < c->data.items[i].end - c->data.items[i].start)
			return &c->data.items[i];
	return NULL;
}

static bool same_data_in_code(const struct comparison *c, vaddr_t a, vaddr_t b)
{
	const struct gap *ga = data_at(c->a, a), *gb = data_at(c->b, b);
	if (!ga || !gb || a - ga->start != b - gb->start || ga->end - ga->start != gb->end - gb->start)
		return false;
	const uint8_t *pa = elf_file__at(c->a->elf, ga->start, ga->end - ga->start);
	const uint8_t *pb = elf_file__at(c->b->elf, gb->start, gb->end - gb->start);
	return pa && pb && memcmp(pa, pb, ga->end - ga->start) == 0;
}

static bool are_matched(const struct comparison *c, const struct function *fa, const struct function *fb)
{
	return fa && fb && c->m->a_to_b[index_of(c->a, fa)] == (int32_t)index_of(c->b, fb);
}

/* Do both mean the same function, and the same place of it? */
static bool same_place_of_code(const struct comparison *c, vaddr_t a, vaddr_t b)
{
	const struct function *fa = code__function_at(c->a, a), *fb = code__function_at(c->b, b);
	if (!fa && !fb)
		return same_data_in_code(c, a, b);
	if (fa && fb && (fa->plt || fb->plt))
		return fa->plt && fb->plt && same_plt_entry(c, a, b);
	return are_matched(c, fa, fb) && a - fa->start == b - fb->start;
}

/* ---- constants ---- */

/* The last address up to `a` that anything refers to, and the first behind it. */
static vaddr_t target_up_to(const vaddr_list *targets, vaddr_t a, vaddr_t *behind)
{
	size_t lo = 0, hi = targets->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (targets->items[mid] <= a)
			lo = mid + 1;
		else
			hi = mid;
	}
	*behind = lo < targets->n ? targets->items[lo] : UINT64_MAX;
	return lo ? targets->items[lo - 1] : 0;
}

/* A section of constants that holds `a`. */
static const struct elf_section *constants_at(const struct elf_file *e, vaddr_t a)
{
	const struct elf_section *s = elf_file__section_at(e, a);
	return s && s->data && !(s->h.sh_flags & (SHF_WRITE | SHF_EXECINSTR)) ? s : NULL;
}

/* The first table for switch behind `b`, and the end of the last one in front of it. */
static vaddr_t next_table(const struct comparison *c, vaddr_t b, vaddr_t *front)
{
	size_t lo = 0, hi = c->tables.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->tables.items[mid].start <= b)
			lo = mid + 1;
		else
			hi = mid;
	}
	*front = lo ? c->tables.items[lo - 1].end : 0;
	return lo < c->tables.n ? c->tables.items[lo].start : UINT64_MAX;
}

/* From `b` on, up to where are next's constants vapi's at `a`? Not looked at from `end` on. */
static vaddr_t agreement(struct comparison *c, const struct elf_section *sa, vaddr_t a, const struct elf_section *sb,
			 vaddr_t b, vaddr_t end)
{
	vaddr_t shift = b - a, at = b, end_a = sa->h.sh_addr + sa->h.sh_size + shift;
	end = end_a < end ? end_a : end;
	if (c->shift == shift && c->agree_from <= b && b < c->agree_to)
		return c->agree_to < end ? c->agree_to : end;
	while (at < end && sa->data[at - shift - sa->h.sh_addr] == sb->data[at - sb->h.sh_addr])
		at++;
	c->shift = shift;
	c->agree_from = b;
	c->agree_to = at;
	return at;
}

static bool same_section(const struct elf_section *a, const struct elf_section *b)
{
	return a->h.sh_addr == b->h.sh_addr && a->h.sh_size == b->h.sh_size &&
	       memcmp(a->data, b->data, a->h.sh_size) == 0;
}

/* Anything may be read by way of an address that was taken: where the constant ends is not known (constants.c), but
 * that it ends where a table for switch begins. */
static bool same_constants(struct comparison *c, vaddr_t a, vaddr_t b)
{
	const struct elf_section *sa = constants_at(c->a->elf, a), *sb = constants_at(c->b->elf, b);
	vaddr_t front;
	if (!sa || !sb)
		return false;
	if (constants__is_table_of_distances(c->x, b))
		return a == b && same_section(sa, sb);
	vaddr_t end = sb->h.sh_addr + sb->h.sh_size, table = next_table(c, b, &front), from = b - AROUND;
	from = b < AROUND || from < sb->h.sh_addr ? sb->h.sh_addr : from;
	from = from < front ? front : from;
	if (a - sa->h.sh_addr < b - from)
		from = b - (a - sa->h.sh_addr);
	if (from > b) /* within a table */
		return false;
	end = table < end ? table : end;
	return agreement(c, sa, a - (b - from), sb, from, end) == end;
}

/* BT, BTS, BTR, BTC with the bit's number in a register: far from the operand, too (Intel SDM volume 2, 0F A3, AB, B3,
 * BB). */
static bool is_bit_test(const uint8_t *code, const struct insn *i)
{
	return i->modrm >= 2 && code[i->modrm - 2] == 0x0f && (code[i->modrm - 1] & 0xe7) == 0xa3;
}

/* What one instruction reads at `b`. */
static bool same_operand(struct comparison *c, vaddr_t a, vaddr_t b, const struct ref *by)
{
	struct insn i;
	struct insn_detail d = {0};
	const uint8_t *code = elf_file__at(c->b->elf, by->insn, by->end - by->insn);
	if (!code || !insn__detail(code, by->end - by->insn, by->insn, &i, &d))
		return false;
	if (is_bit_test(code, &i))
		return same_constants(c, a, b);
	size_t len = d.has_mem && d.size && d.size <= OPERAND_MAX ? d.size : OPERAND_MAX;
	const uint8_t *pa = elf_file__at(c->a->elf, a, len), *pb = elf_file__at(c->b->elf, b, len);
	return constants_at(c->a->elf, a) && constants_at(c->b->elf, b) && pa && pb && memcmp(pa, pb, len) == 0;
}

/* What is behind a table, up to where something else begins for certain: it may be a part of it, if it is none. */
static bool same_rest(const struct comparison *c, vaddr_t a, vaddr_t end_a, vaddr_t b, vaddr_t end_b)
{
	const struct elf_section *sa = constants_at(c->a->elf, a), *sb = constants_at(c->b->elf, b);
	if (!sa || !sb || a >= end_a || b >= end_b)
		return true;
	end_a = end_a < sa->h.sh_addr + sa->h.sh_size ? end_a : sa->h.sh_addr + sa->h.sh_size;
	end_b = end_b < sb->h.sh_addr + sb->h.sh_size ? end_b : sb->h.sh_addr + sb->h.sh_size;
	size_t len = end_a - a < end_b - b ? end_a - a : end_b - b;
	return memcmp(sa->data + (a - sa->h.sh_addr), sb->data + (b - sb->h.sh_addr), len) == 0;
}

/* A table for switch, of distances to places of the function: *table says whether it is one, or would be in one of the
 * builds. */
static bool same_jump_table(const struct comparison *c, const struct function *fa, vaddr_t a, vaddr_t b, bool *table)
{
	vaddr_t end_a, end_b;
	size_t own = 0;
	vaddr_t n = 0;
	target_up_to(&c->targets_a, a, &end_a);
	target_up_to(&c->x->targets, b, &end_b);
	*table = false;
	for (; a + n < end_a || b + n < end_b; n += 4) {
		int32_t da, db;
		if (!read_word(c->a->elf, a + n, &da) || !read_word(c->b->elf, b + n, &db) ||
		    (!elf_file__is_code(c->a->elf, add(a, da)) && !elf_file__is_code(c->b->elf, add(b, db))))
			break;
		if (!same_place_of_code(c, add(a, da), add(b, db))) {
			*table = true;
			return false;
		}
		own += add(a, da) - fa->start < fa->end - fa->start;
	}
	*table = own >= TABLE_MIN && code__has_indirect_jump(c->a, fa);
	return *table && same_rest(c, a + n, end_a, b + n, end_b);
}

/* ---- references ---- */

/* An address that is taken within the function itself is a label; or one in front of a table elsewhere, indexed by what
 * is never small. */
static bool is_meant_as_code(const struct comparison *c, const struct function *f, const struct ref *r, vaddr_t to)
{
	return r->kind != REF_ADDRESS || to - f->start >= f->end - f->start || to == f->start ||
	       code__has_indirect_jump(c->a, f);
}

/* The address of an IFUNC of the library's own: a stub in the VAPI's file, and the PLT entry in next, which is bound to
 * the loaded library's. */
static bool same_ifunc(const struct comparison *c, const struct vapi_slot *slot, vaddr_t to_b)
{
	const struct elf_reloc *r = code__plt_reloc(c->b, to_b);
	return r && r->type == R_X86_64_IRELATIVE &&
	       c->x->p->slots[slot - c->a->elf->slots] == elf_file__behind_stub(c->b->elf, (vaddr_t)r->addend);
}

bool same__reference(struct comparison *c, const struct function *fa, const struct ref *ra, const struct ref *rb)
{
	const struct vapi_slot *slot = elf_file__slot_at(c->a->elf, ra->target);
	bool table;
	if (ra->kind != rb->kind || ra->size != rb->size)
		return false;
	if (slot && (slot->flags & VAPI_SLOT_IFUNC))
		return same_ifunc(c, slot, rb->target);
	vaddr_t to_a = elf_file__behind_stub(c->a->elf, ra->target);
	vaddr_t to_b = elf_file__behind_stub(c->b->elf, rb->target);
	bool code_a = elf_file__is_code(c->a->elf, to_a), code_b = elf_file__is_code(c->b->elf, to_b);
	if (code_a || code_b)
		return code_a && code_b && same_place_of_code(c, to_a, to_b) && is_meant_as_code(c, fa, ra, to_a);
	if (patch_at(c, rb->site))
		return leads_to(c, rb->site, to_a);
	if (layout__section(c->x, to_b))
		return false;
	if (ra->kind == REF_MEMORY)
		return same_operand(c, to_a, to_b, rb);
	bool same = same_jump_table(c, fa, to_a, to_b, &table);
	return table ? same : same_constants(c, to_a, to_b) && constants__may_keep(c->x, to_b, to_a);
}

/* ---- exceptions ---- */

static const struct fde *fde_of(const fde_list *l, const struct function *f)
{
	size_t lo = 0, hi = l->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (l->items[mid].start < f->start)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < l->n && l->items[lo].start == f->start ? &l->items[lo] : NULL;
}

/* Do the words at these places of the unwind tables lead to the same data? */
static bool same_unwind_word(const struct comparison *c, vaddr_t at_a, vaddr_t at_b)
{
	int32_t distance;
	return read_word(c->a->elf, at_a, &distance) && leads_to(c, at_b, add(at_a, distance));
}

static bool same_types(const struct comparison *c, vaddr_t a, vaddr_t b, size_t len)
{
	vaddr_list wa = {0}, wb = {0};
	bool same = lsda__references(c->a->elf, a, &wa) && lsda__references(c->b->elf, b, &wb) && wa.n == wb.n;
	FREE_CLEANUP uint8_t *pa = xmemdup(elf_file__at(c->a->elf, a, len), len);
	FREE_CLEANUP uint8_t *pb = xmemdup(elf_file__at(c->b->elf, b, len), len);
	for (size_t i = 0; same && i < wa.n; i++) {
		vaddr_t at = wa.items[i] - a;
		same = wb.items[i] - b == at && at <= len - 4 && same_unwind_word(c, wa.items[i], wb.items[i]);
		if (same) {
			memset(pa + at, 0, 4);
			memset(pb + at, 0, 4);
		}
	}
	same = same && memcmp(pa, pb, len) == 0;
	vec__free(&wa);
	vec__free(&wb);
	return same;
}

static bool same_lsda(const struct comparison *c, vaddr_t a, vaddr_t b)
{
	vaddr_t end_a = lsda__end(c->a->elf, a), end_b = lsda__end(c->b->elf, b);
	size_t len = end_a - a;
	return end_a && end_b && end_b - b == len && len >= 4 && elf_file__at(c->a->elf, a, len) &&
	       elf_file__at(c->b->elf, b, len) && same_types(c, a, b, len);
}

/* What happens to an exception that passes through: also how its frames are found, which for a part that was put
 * elsewhere depends on what is in front of it. */
static bool same_exceptions(const struct comparison *c, const struct function *fa, const struct function *fb)
{
	const struct fde *a = fde_of(&c->fdes_a, fa), *b = fde_of(&c->fdes_b, fb);
	if (!a || !b)
		return !a && !b;
	if (a->rules != b->rules || a->signal_frame != b->signal_frame || a->personality_enc != b->personality_enc ||
	    !a->personality_at != !b->personality_at || !a->lsda != !b->lsda)
		return false;
	if (a->personality_at && !same_unwind_word(c, a->personality_at, b->personality_at))
		return false;
	return !a->lsda || same_lsda(c, a->lsda, b->lsda);
}

bool same__any_handlers(const struct comparison *c, const struct function *fa, const struct function *fb)
{
	const struct fde *a = fde_of(&c->fdes_a, fa), *b = fb ? fde_of(&c->fdes_b, fb) : NULL;
	return (a && a->lsda) || (b && b->lsda);
}

/* ---- all of it ---- */

bool same__function(struct comparison *c, const struct function *fa, const struct function *fb)
{
	size_t len = fa->end - fa->start, done = 0;
	const uint8_t *pa = elf_file__at(c->a->elf, fa->start, len), *pb = elf_file__at(c->b->elf, fb->start, len);
	if (fb->end - fb->start != len || fa->n_refs != fb->n_refs || !pa || !pb)
		return false;
	for (uint32_t i = 0; i < fa->n_refs; i++) {
		const struct ref *ra = &c->a->refs.items[fa->first_ref + i];
		const struct ref *rb = &c->b->refs.items[fb->first_ref + i];
		size_t at = ra->site - fa->start;
		if (rb->site - fb->start != at || ra->size != rb->size || at < done || at + ra->size > len ||
		    memcmp(pa + done, pb + done, at - done) != 0)
			return false;
		done = at + ra->size;
	}
	if (memcmp(pa + done, pb + done, len - done) != 0)
		return false;
	for (uint32_t i = 0; i < fa->n_refs; i++)
		if (!same__reference(c, fa, &c->a->refs.items[fa->first_ref + i], &c->b->refs.items[fb->first_ref + i]))
			return false;
	return same_exceptions(c, fa, fb);
}

static void add_way(struct comparison *c, size_t from, vaddr_t to)
{
	struct way w = {(uint32_t)from, to};
	vec__push(&c->ways, w);
}

static int by_start(const void *a, const void *b)
{
	const struct vrange *x = a, *y = b;
	return (x->start > y->start) - (x->start < y->start);
}

/* Next's tables for switch: of words that lead into the function that takes their address. */
static void list_tables(struct comparison *c)
{
	for (size_t i = 0; i < c->b->functions.n; i++) {
		const struct function *f = &c->b->functions.items[i];
		for (uint32_t k = f->first_ref; k < f->first_ref + f->n_refs; k++) {
			const struct ref *r = &c->b->refs.items[k];
			struct vrange t = {r->target, r->target};
			vaddr_t end;
			int32_t d;
			if (r->kind != REF_ADDRESS || !constants_at(c->b->elf, r->target))
				continue;
			target_up_to(&c->x->targets, r->target, &end);
			while (t.end < end && read_word(c->b->elf, t.end, &d) &&
			       add(t.start, d) - f->start < f->end - f->start)
				t.end += 4;
			if (t.end - t.start >= (vaddr_t)4 * TABLE_MIN && code__has_indirect_jump(c->b, f))
				vec__push(&c->tables, t);
		}
	}
	if (c->tables.n)
		qsort(c->tables.items, c->tables.n, sizeof(c->tables.items[0]), by_start);
}

/* A table begins where an address is taken, and goes on as long as its words lead to code. */
static void list_table(struct comparison *c, size_t from, vaddr_t table)
{
	vaddr_t end;
	int32_t distance;
	target_up_to(&c->targets_a, table, &end);
	for (vaddr_t at = table; constants_at(c->a->elf, table) && at < end; at += 4) {
		if (!read_word(c->a->elf, at, &distance) || !elf_file__is_code(c->a->elf, add(table, distance)))
			return;
		add_way(c, from, add(table, distance));
	}
}

/* Do tables of this build lead to code that is in no function? (Bodies of cases in functions without unwind entries.)
 */
static bool tables_lead_to_gaps(const struct code *c, const vaddr_list *targets)
{
	for (size_t i = 0; i < c->refs.n; i++) {
		const struct ref *r = &c->refs.items[i];
		vaddr_t end;
		int32_t d;
		if (r->kind != REF_ADDRESS || !constants_at(c->elf, r->target))
			continue;
		target_up_to(targets, r->target, &end);
		for (vaddr_t at = r->target;
		     at < end && read_word(c->elf, at, &d) && elf_file__is_code(c->elf, add(r->target, d)); at += 4)
			if (data_at(c, add(r->target, d)))
				return true;
	}
	return false;
}

bool same__prepare(struct comparison *c)
{
	vaddr_list pads = {0};
	bool known = true;
	list_tables(c);
	if (tables_lead_to_gaps(c->a, &c->targets_a) || tables_lead_to_gaps(c->b, &c->x->targets)) {
		planner__refuse(c->x, "code-unknown", "a table for switch leads to code that no unwind entry covers");
		return true;
	}
	for (size_t i = 0; i < c->a->functions.n && known; i++) {
		const struct function *f = &c->a->functions.items[i];
		const struct fde *fde = fde_of(&c->fdes_a, f);
		for (uint32_t k = f->first_ref; k < f->first_ref + f->n_refs; k++)
			if (c->a->refs.items[k].kind == REF_ADDRESS)
				list_table(c, i, c->a->refs.items[k].target);
		pads.n = 0;
		known = !fde || !fde->lsda || lsda__landing_pads(c->a->elf, fde->lsda, f->start, &pads);
		for (size_t k = 0; k < pads.n; k++)
			if (pads.items[k] - f->start >= f->end - f->start)
				add_way(c, i, pads.items[k]);
	}
	vec__free(&pads);
	return known;
}
