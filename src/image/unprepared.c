/* See unprepared.h. */
#include "image/unprepared.h"

#include <string.h>

enum {
	OPERAND_MAX = 64, /* what one instruction reads at most (Intel SDM volume 1, 4.6) */
	GAP_MAX = 4,      /* pages */
	AROUND = 256, /* bytes in front of and behind a constant that must be equal too: an array may be addressed by
			 a place in front of it */
};

struct err *unprepared__vapi(struct elf_file *plain, struct elf_file **out)
{
	const struct split_options opt = {0};
	FREE_CLEANUP uint8_t *bytes = NULL;
	size_t size;
	struct err *e = split__make(plain, &opt, &bytes, &size);
	if (!e)
		e = elf_file__read_memory(bytes, size, plain->path, out);
	if (!e)
		(*out)->plain = plain;
	return e;
}

/* What is known while functions are compared. */
struct comparison {
	struct planner *x;
	const struct code *a, *b; /* of vapi, of next */
	const struct match *m;
	bool *moves;           /* by index into a's functions */
	struct patch *patches; /* by site */
	size_t n_patches;
};

static int by_site(const void *a, const void *b)
{
	const struct patch *x = a, *y = b;
	return (x->site > y->site) - (x->site < y->site);
}

static const struct patch *patch_at(const struct comparison *c, vaddr_t site)
{
	const struct patch key = {.site = site};
	return c->n_patches ? bsearch(&key, c->patches, c->n_patches, sizeof(key), by_site) : NULL;
}

static size_t index_of(const struct code *c, const struct function *f)
{
	return (size_t)(f - c->functions.items);
}

/* ---- is a function the same? ---- */

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

/* Do both mean the same function, and the same place of it? */
static bool same_place_of_code(const struct comparison *c, vaddr_t a, vaddr_t b)
{
	const struct function *fa = code__function_at(c->a, a), *fb = code__function_at(c->b, b);
	if (fa && fb && (fa->plt || fb->plt))
		return fa->plt && fb->plt && same_plt_entry(c, a, b);
	if (!fa || !fb || a - fa->start != b - fb->start)
		return false;
	return c->m->a_to_b[index_of(c->a, fa)] == (int32_t)index_of(c->b, fb);
}

/* The last address up to `b`, and the first behind it, that anything in next's constants is referred to by. */
static vaddr_t target_up_to(const struct planner *x, vaddr_t b, vaddr_t *behind)
{
	size_t lo = 0, hi = x->targets.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (x->targets.items[mid] <= b)
			lo = mid + 1;
		else
			hi = mid;
	}
	*behind = lo < x->targets.n ? x->targets.items[lo] : UINT64_MAX;
	return lo ? x->targets.items[lo - 1] : 0;
}

/* A distance from a table to a place of code, as compilers make for switch: are both such, of functions that
 * correspond? */
static bool same_distance(const struct comparison *c, vaddr_t table_a, int32_t a, vaddr_t table_b, int32_t b)
{
	const struct function *fa = code__function_at(c->a, table_a + (vaddr_t)(int64_t)a);
	const struct function *fb = code__function_at(c->b, table_b + (vaddr_t)(int64_t)b);
	return fa && fb && c->m->a_to_b[index_of(c->a, fa)] == (int32_t)index_of(c->b, fb);
}

/* Is the word at `b` of next's constants, which are `shift` bytes further than vapi's, the same? Or a distance, where
 * the constant is somebody else's. */
static bool same_word(const struct comparison *c, vaddr_t b, vaddr_t shift, bool foreign)
{
	const uint8_t *pa = elf_file__at(c->a->elf, b - shift, 4), *pb = elf_file__at(c->b->elf, b, 4);
	int32_t wa, wb;
	vaddr_t behind, table = target_up_to(c->x, b, &behind);
	if (!pa || !pb)
		return false;
	memcpy(&wa, pa, 4);
	memcpy(&wb, pb, 4);
	return wa == wb || (foreign && table % 4 == 0 && same_distance(c, table - shift, wa, table, wb));
}

/* A section of constants that holds `a`. */
static const struct elf_section *constants_at(const struct elf_file *e, vaddr_t a)
{
	const struct elf_section *s = elf_file__section_at(e, a);
	return s && s->data && !(s->h.sh_flags & SHF_EXECINSTR) ? s : NULL;
}

/* What is read at `b`, or (`around`) anywhere near it. */
static bool same_constants(const struct comparison *c, vaddr_t a, vaddr_t b, bool around)
{
	const struct elf_section *sa = constants_at(c->a->elf, a), *sb = constants_at(c->b->elf, b);
	vaddr_t behind;
	if (!sa || !sb || a % 4 != b % 4)
		return false;
	target_up_to(c->x, b, &behind);
	uint64_t front_a = a - sa->h.sh_addr, front_b = b - sb->h.sh_addr;
	uint64_t front = around ? AROUND : 0, back = behind - b;
	if (around)
		back += AROUND;
	else
		back = back < OPERAND_MAX ? back : OPERAND_MAX;
	front = front < front_a ? front : front_a;
	front = front < front_b ? front : front_b;
	uint64_t back_a = sa->h.sh_size - front_a, back_b = sb->h.sh_size - front_b;
	back = back < back_a ? back : back_a;
	back = back < back_b ? back : back_b;
	for (vaddr_t at = align_down(b - front, 4); at < b + back; at += 4)
		if (!same_word(c, at, b - a, at + 4 <= b || at >= behind))
			return false;
	return true;
}

/* A table of distances to places of code. */
static bool same_jump_table(const struct comparison *c, vaddr_t a, vaddr_t b)
{
	vaddr_t behind, n = 0;
	target_up_to(c->x, b, &behind);
	for (; b + 4 * n < behind; n++) {
		const uint8_t *pa = elf_file__at(c->a->elf, a + 4 * n, 4), *pb = elf_file__at(c->b->elf, b + 4 * n, 4);
		int32_t da, db;
		if (!pa || !pb)
			break;
		memcpy(&da, pa, 4);
		memcpy(&db, pb, 4);
		vaddr_t to_a = a + (vaddr_t)(int64_t)da, to_b = b + (vaddr_t)(int64_t)db;
		if (!elf_file__is_code(c->a->elf, to_a) && !elf_file__is_code(c->b->elf, to_b))
			break;
		if (!same_place_of_code(c, to_a, to_b))
			return false;
	}
	return n > 0;
}

/* The address of an IFUNC of the library's own: a stub in the VAPI's file, and the PLT entry in next, which is bound to
 * the loaded library's. */
static bool same_ifunc(const struct comparison *c, const struct vapi_slot *slot, vaddr_t to_b)
{
	const struct elf_reloc *r = code__plt_reloc(c->b, to_b);
	return r && r->type == R_X86_64_IRELATIVE &&
	       c->x->p->slots[slot - c->a->elf->slots] == elf_file__behind_stub(c->b->elf, (vaddr_t)r->addend);
}

static bool same_reference(const struct comparison *c, const struct ref *ra, const struct ref *rb)
{
	const struct vapi_slot *slot = elf_file__slot_at(c->a->elf, ra->target);
	if (slot && (slot->flags & VAPI_SLOT_IFUNC))
		return ra->kind == rb->kind && ra->size == rb->size && same_ifunc(c, slot, rb->target);
	vaddr_t to_a = elf_file__behind_stub(c->a->elf, ra->target);
	vaddr_t to_b = elf_file__behind_stub(c->b->elf, rb->target);
	bool code_a = elf_file__is_code(c->a->elf, to_a), code_b = elf_file__is_code(c->b->elf, to_b);
	if (ra->kind != rb->kind || ra->size != rb->size || code_a != code_b)
		return false;
	if (code_a)
		return same_place_of_code(c, to_a, to_b);
	const struct patch *p = patch_at(c, rb->site);
	if (p)
		return !p->own_got && p->to == to_a;
	if (layout__section(c->x, to_b))
		return false;
	if (ra->kind == REF_MEMORY)
		return same_constants(c, to_a, to_b, false);
	return same_jump_table(c, to_a, to_b) || same_constants(c, to_a, to_b, true);
}

static bool same_function(const struct comparison *c, const struct function *fa, const struct function *fb)
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
		    memcmp(pa + done, pb + done, at - done) != 0 || !same_reference(c, ra, rb))
			return false;
		done = at + ra->size;
	}
	return memcmp(pa + done, pb + done, len - done) == 0;
}

static const struct function *heir_of(const struct comparison *c, size_t i)
{
	int32_t k = c->m->a_to_b[i];
	return k < 0 ? NULL : &c->b->functions.items[k];
}

/* ---- what moves with it ---- */

/* Does control run out of the function's end into what follows? Behind a call nothing follows: it does not return. */
static bool falls_through(const struct comparison *c, const struct function *f)
{
	struct insn i = {.flow = FLOW_STOP};
	for (vaddr_t a = f->start; a < f->end; a += i.len) {
		const uint8_t *p = elf_file__at(c->a->elf, a, f->end - a);
		if (!p || !insn__decode(p, f->end - a, a, &i))
			return true;
	}
	return i.flow == FLOW_NEXT ? !i.is_nop : i.flow == FLOW_BRANCH;
}

/* A function that stays must not lead into the middle of one that moves, nor fall into it. */
static bool leads_into_moving(const struct comparison *c, const struct function *f)
{
	for (uint32_t i = f->first_ref; i < f->first_ref + f->n_refs; i++) {
		const struct ref *r = &c->a->refs.items[i];
		vaddr_t to = elf_file__behind_stub(c->a->elf, r->target);
		const struct function *g = code__function_at(c->a, to);
		if (g && g != f && to != g->start && c->moves[index_of(c->a, g)])
			return true;
	}
	size_t next = index_of(c->a, f) + 1;
	return next < c->a->functions.n && c->moves[next] && falls_through(c, f);
}

static void find_moving(struct comparison *c)
{
	for (size_t i = 0; i < c->a->functions.n; i++) {
		const struct function *f = &c->a->functions.items[i], *heir = heir_of(c, i);
		c->moves[i] = !f->plt && !(heir && same_function(c, f, heir));
	}
	for (bool more = true; more;) {
		more = false;
		for (size_t i = 0; i < c->a->functions.n; i++) {
			const struct function *f = &c->a->functions.items[i];
			if (!c->moves[i] && !f->plt && leads_into_moving(c, f))
				more = c->moves[i] = true;
		}
	}
}

/* ---- entries ---- */

static bool has_slot(const struct elf_file *vapi, vaddr_t function)
{
	for (uint32_t i = 0; i < vapi->vapi.n_used; i++)
		if (vapi->slots[i].function == function)
			return true;
	return false;
}

/* Can anybody come to the entry from outside of what moves? */
static void list_reachable(const struct comparison *c, bool *reachable)
{
	for (size_t i = 0; i < c->a->functions.n; i++) {
		const struct function *f = &c->a->functions.items[i];
		reachable[i] = reachable[i] || (c->moves[i] && has_slot(c->a->elf, f->start));
		for (uint32_t k = f->first_ref; !c->moves[i] && k < f->first_ref + f->n_refs; k++) {
			vaddr_t to = elf_file__behind_stub(c->a->elf, c->a->refs.items[k].target);
			const struct function *g = code__function_starting(c->a, to);
			if (g)
				reachable[index_of(c->a, g)] = true;
		}
	}
}

/* Is this byte padding between functions, which nobody reads or runs? */
static bool is_padding(const struct code *c, vaddr_t a, const struct elf_section *of)
{
	if (code__function_at(c, a) || elf_file__section_at(c->elf, a) != of)
		return false;
	for (size_t i = 0; i < c->data.n; i++)
		if (a >= c->data.items[i].start && a < c->data.items[i].end)
			return false;
	return true;
}

/* Where the jump goes; 0 when there is no room for it, not with the padding behind the function either. */
static vaddr_t place_of_jump(const struct comparison *c, const struct function *f)
{
	size_t len = f->end - f->start;
	const uint8_t *p = elf_file__at(c->a->elf, f->start, len);
	const struct elf_section *section = elf_file__section_at(c->a->elf, f->start);
	vaddr_t at = p ? f->start + arch_entry__jump(p, len) : 0;
	for (vaddr_t a = f->end; at && a < at + ARCH_JUMP_SIZE; a++)
		if (!is_padding(c->a, a, section))
			return 0;
	return at;
}

static void lay_jump(struct comparison *c, size_t i)
{
	const struct function *f = &c->a->functions.items[i], *heir = heir_of(c, i);
	FREE_CLEANUP char *name = code__describe(c->a, f->start);
	struct entry_jump m = {place_of_jump(c, f), heir ? heir->start : 0};
	if (f->signal_frame)
		planner__refuse(c->x, "entry", "%s changed, which the kernel and unwinders know by its bytes", name);
	else if (!heir)
		planner__refuse(c->x, "function-gone",
				"%s is not in the new build, and what did not change, or somebody outside, may call it",
				name);
	else if (!m.entry)
		planner__refuse(c->x, "entry", "%s changed, and is shorter than the jump that is to replace it", name);
	else
		vec__push(&c->x->p->jumps, m);
}

static void list_moves(struct comparison *c)
{
	FREE_CLEANUP bool *reachable = xcalloc(c->a->functions.n, sizeof(bool));
	list_reachable(c, reachable);
	for (size_t i = 0; i < c->a->functions.n; i++) {
		const struct function *f = &c->a->functions.items[i];
		if (!c->moves[i])
			continue;
		struct vrange r = {f->start, f->end};
		vec__push(&c->x->p->leaves, r);
		if (reachable[i])
			lay_jump(c, i);
	}
}

/* What is known by its address must be the function that code says it is. */
static void check_slots(const struct comparison *c)
{
	const struct plan *p = c->x->p;
	for (uint32_t i = 0; i < p->vapi->vapi.n_used; i++) {
		vaddr_t old = p->vapi->slots[i].function;
		const struct function *f = old ? code__function_at(c->a, old) : NULL;
		if (f && f->start != old && c->moves[index_of(c->a, f)]) {
			FREE_CLEANUP char *name = code__describe(c->a, old);
			planner__refuse(c->x, "entry", "%s is a second entry of a function that changed", name);
		}
		if (!old || !p->slots[i] || p->slots[i] == SLOT_HELD || match__successor(c->m, old) == p->slots[i])
			continue;
		FREE_CLEANUP char *name = code__describe(c->a, old);
		planner__refuse(c->x, "function-identity",
				"%s cannot be followed: by its name and by its code another function takes over", name);
	}
}

/* ---- old code that is left ---- */

/* Does a reference lead to the bytes of a jump? */
static bool meets_jump(const struct plan *p, vaddr_t to)
{
	size_t lo = 0, hi = p->jumps.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (p->jumps.items[mid].entry + ARCH_JUMP_SIZE <= to)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < p->jumps.n && p->jumps.items[lo].entry <= to;
}

/* Would code that moves, were somebody to go on in it, come to a jump? By a call, or by a branch of a loop that begins
 * with the function. */
static bool leads_to_jump(const struct comparison *c, const struct function *f)
{
	struct insn i = {.len = 1};
	for (vaddr_t a = f->start; a < f->end; a += i.len) {
		const uint8_t *p = elf_file__at(c->a->elf, a, f->end - a);
		if (!p || !insn__decode(p, f->end - a, a, &i))
			return true;
		if (!i.has_target || !i.is_branch)
			continue;
		/* a landing pad may be in front of the jump */
		const struct function *g = code__function_starting(c->a, i.target);
		if (meets_jump(c->x->p, i.target) || (g && meets_jump(c->x->p, place_of_jump(c, g))))
			return true;
	}
	return false;
}

/* Of code of an earlier update it is not known which calls lead to the loaded library's functions. */
static void look_for_entanglement(const struct comparison *c)
{
	c->x->p->entangled = c->x->p->live != c->x->p->vapi && c->x->p->jumps.n;
	for (size_t i = 0; i < c->a->functions.n && !c->x->p->entangled; i++)
		c->x->p->entangled = c->moves[i] && leads_to_jump(c, &c->a->functions.items[i]);
}

/* ---- references of the new code ---- */

static void bind_to_old_places(struct comparison *c)
{
	for (size_t i = 0; i < c->b->refs.n; i++) {
		const struct ref *r = &c->b->refs.items[i];
		const struct function *g = code__function_at(c->b, r->target);
		int32_t old = g ? c->m->b_to_a[index_of(c->b, g)] : -1;
		if ((r->kind != REF_CALL && r->kind != REF_JUMP) || r->size != 4 || old < 0 || g->plt || c->moves[old])
			continue;
		struct patch p = {
		    .site = r->site, .from = r->end, .to = c->a->functions.items[old].start + (r->target - g->start)};
		vec__push(&c->x->p->patches, p);
	}
}

/* ---- pages ---- */

vaddr_t unprepared__beacon(const struct elf_file *vapi, const struct entry_jump *jumps, size_t n)
{
	if (n)
		return align_down(jumps[0].entry, LLU_PAGE);
	for (size_t i = 0; i < vapi->n_phdrs; i++)
		if (vapi->phdrs[i].p_type == PT_LOAD && (vapi->phdrs[i].p_flags & PF_X))
			return align_down(vapi->phdrs[i].p_vaddr, LLU_PAGE);
	return 0;
}

static int by_address(const void *a, const void *b)
{
	vaddr_t x = *(const vaddr_t *)a, y = *(const vaddr_t *)b;
	return (x > y) - (x < y);
}

/* The pages of code that are to change: where there are jumps now, or are to be. */
static void list_pages(const struct comparison *c)
{
	struct plan *p = c->x->p;
	const struct live_map *m = c->x->map;
	vaddr_list all = {0};
	vaddr_t beacon = unprepared__beacon(p->vapi, p->jumps.items, p->jumps.n);
	vec__push(&all, beacon);
	for (size_t i = 0; i < p->jumps.n + (m ? m->n_jumps : 0); i++) {
		vaddr_t at = i < p->jumps.n ? p->jumps.items[i].entry : m->jumps[i - p->jumps.n].entry;
		vec__push(&all, align_down(at, LLU_PAGE));
		vec__push(&all, align_down(at + ARCH_JUMP_SIZE - 1, LLU_PAGE));
	}
	if (all.n)
		qsort(all.items, all.n, sizeof(vaddr_t), by_address);
	for (size_t i = 0; i < all.n; i++) {
		vaddr_t last = i ? all.items[i - 1] : 0;
		if (i && all.items[i] == last)
			continue;
		/* pages in between go with them: a mapping costs more than a page of a shared file */
		for (vaddr_t a = last + LLU_PAGE;
		     i && all.items[i] - last <= GAP_MAX * (vaddr_t)LLU_PAGE && a < all.items[i]; a += LLU_PAGE)
			vec__push(&p->pages, a);
		vec__push(&p->pages, all.items[i]);
	}
	vec__free(&all);
}

static void compare(struct comparison *c)
{
	struct plan *p = c->x->p;
	c->moves = xcalloc(c->a->functions.n, sizeof(bool));
	c->n_patches = p->patches.n;
	c->patches = p->patches.n ? xmemdup(p->patches.items, p->patches.n * sizeof(struct patch)) : NULL;
	if (c->n_patches)
		qsort(c->patches, c->n_patches, sizeof(struct patch), by_site);
	find_moving(c);
	check_slots(c);
	list_moves(c);
	look_for_entanglement(c);
	list_pages(c);
	bind_to_old_places(c);
	free(c->patches);
	free(c->moves);
}

void unprepared__settle(struct planner *x)
{
	struct plan *p = x->p;
	struct comparison c = {.x = x, .a = p->live_code, .b = p->next_code, .m = p->match};
	if (p->live == p->vapi) {
		compare(&c);
		return;
	}
	/* what runs now is of an earlier update: what stays is a matter of the loaded file and the next */
	struct match *m = match__make(x->vapi_code, p->next_code);
	c.a = x->vapi_code;
	c.m = m;
	compare(&c);
	match__free(m);
}
