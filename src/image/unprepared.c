/* See unprepared.h. */
#include "image/tail.h"
#include "image/unprepared_parts.h"

#include <string.h>

enum { GAP_MAX = 4 /* pages */ };

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

static const struct function *heir_of(const struct comparison *c, size_t i)
{
	int32_t k = c->m->a_to_b[i];
	return k < 0 ? NULL : &c->b->functions.items[k];
}

/* ---- what moves with it ---- */

/* Does a call return? Not when nothing in the function that is called does, or leads out of it (what is imported and
 * called last, like abort(3), does not). RET: Intel SDM volume 2, C3 and C2. */
static bool may_come_back(const struct code *c, const struct insn *call)
{
	const struct function *f = call->flow == FLOW_CALL ? code__function_at(c, call->target) : NULL;
	struct insn i;
	if (!f || f->plt)
		return false;
	for (vaddr_t a = f->start; a < f->end; a += i.len) {
		const uint8_t *p = elf_file__at(c->elf, a, f->end - a);
		if (!p || !insn__decode(p, f->end - a, a, &i))
			return true;
		bool out = i.is_branch && i.flow != FLOW_CALL && i.target - f->start >= f->end - f->start;
		if (out || (i.flow == FLOW_STOP && (p[0] == 0xc3 || p[0] == 0xc2)))
			return true;
	}
	return code__has_indirect_jump(c, f);
}

/* Does control run out of the function's end into what follows? */
static bool falls_through(const struct comparison *c, const struct function *f)
{
	struct insn i = {.flow = FLOW_STOP}, last = i;
	for (vaddr_t a = f->start; a < f->end; a += i.len) {
		const uint8_t *p = elf_file__at(c->a->elf, a, f->end - a);
		if (!p || !insn__decode(p, f->end - a, a, &i))
			return true;
		if (!i.is_nop)
			last = i;
	}
	return last.flow == FLOW_NEXT || last.flow == FLOW_BRANCH || may_come_back(c->a, &last);
}

/* Index of the first of its ways, if it has any. */
static size_t first_way(const struct comparison *c, const struct function *f)
{
	size_t lo = 0, hi = c->ways.n, from = index_of(c->a, f);
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->ways.items[mid].from < from)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
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
	for (size_t i = first_way(c, f); i < c->ways.n && c->ways.items[i].from == index_of(c->a, f); i++) {
		const struct function *g = code__function_at(c->a, c->ways.items[i].to);
		if (g && g != f && c->ways.items[i].to != g->start && c->moves[index_of(c->a, g)])
			return true;
	}
	size_t next = index_of(c->a, f) + 1;
	return next < c->a->functions.n && c->moves[next] && falls_through(c, f);
}

/* Where a function goes on behind its end, it must be what its successor goes on in. */
static bool same_behind(const struct comparison *c, const struct function *f, const struct function *heir)
{
	size_t i = index_of(c->a, f) + 1, k = index_of(c->b, heir) + 1;
	if (!falls_through(c, f))
		return true;
	return i < c->a->functions.n && k < c->b->functions.n && c->m->a_to_b[i] == (int32_t)k &&
	       c->a->functions.items[i].start - f->end == c->b->functions.items[k].start - heir->end;
}

static void find_moving(struct comparison *c)
{
	for (size_t i = 0; i < c->a->functions.n; i++) {
		const struct function *f = &c->a->functions.items[i], *heir = heir_of(c, i);
		c->moves[i] = !f->plt && !(heir && same__function(c, f, heir) && same_behind(c, f, heir));
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

/* Bytes among the code that may be code: if they are, what do they call or jump to? (Intel SDM volume 2: E8, E9, 0F 80
 * to 8F.) */
static void list_reachable_from_gap(const struct comparison *c, const struct gap *gap, bool *reachable)
{
	for (vaddr_t a = gap->start; a + 5 <= gap->end; a++) {
		const uint8_t *p = elf_file__at(c->a->elf, a, 5);
		int32_t distance;
		if (!p || !((p[0] & 0xfe) == 0xe8 || (p[0] & 0xf0) == 0x80))
			continue;
		memcpy(&distance, p + 1, 4);
		const struct function *g = code__function_starting(c->a, a + 5 + (vaddr_t)(int64_t)distance);
		if (g)
			reachable[index_of(c->a, g)] = true;
	}
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
	for (size_t i = 0; i < c->ways.n; i++) {
		const struct function *g = code__function_starting(c->a, c->ways.items[i].to);
		if (g && !c->moves[c->ways.items[i].from])
			reachable[index_of(c->a, g)] = true;
	}
	for (size_t i = 0; i < c->a->data.n; i++)
		list_reachable_from_gap(c, &c->a->data.items[i], reachable);
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
vaddr_t unprepared__jump_place(const struct comparison *c, const struct function *f)
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
	struct entry_jump m = {unprepared__jump_place(c, f), heir ? heir->start : 0};
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

static bool same_reference(void *context, const struct function *fa, const struct ref *ra, const struct ref *rb)
{
	return same__reference(context, fa, ra, rb);
}

/* What is left calls what moves by its jump. By any other way out the frame might be handed on (to a part that the
 * compiler put elsewhere), which is the old build's. */
static bool is_reached_by_jump(void *context, const struct ref *r, vaddr_t to)
{
	const struct comparison *c = context;
	const struct function *g = code__function_at(c->a, to);
	if (!g || !c->moves[index_of(c->a, g)])
		return true;
	return r->kind != REF_JUMP && to == g->start && heir_of(c, index_of(c->a, g)) && unprepared__jump_place(c, g);
}

/* What nobody may be in of a function that moves: all but its tails (tail.h). What those lead to is marked in
 * `reached`. */
static void list_leaves(struct comparison *c, const struct function *f, bool *reached)
{
	enum { ENTRY_MAX = 16 }; /* bytes of an entry that a jump may touch */
	const struct tail_rules rules = {c->a, c->b, c->m, same_reference, is_reached_by_jump, ENTRY_MAX, c};
	const struct function *heir = heir_of(c, index_of(c->a, f));
	struct tail t = {0};
	if (heir && !same__any_handlers(c, f, heir))
		tail__find(&rules, f, heir, &t);
	struct vrange r = {f->start, f->start};
	while (r.end < f->end) {
		size_t at = r.end - f->start;
		if (!t.next || !t.next[at]) {
			r.end++;
			continue;
		}
		if (r.start < r.end)
			vec__push(&c->x->p->leaves, r);
		r.start = r.end = r.end + t.len[at];
	}
	if (r.start < r.end)
		vec__push(&c->x->p->leaves, r);
	for (uint32_t i = f->first_ref; t.next && i < f->first_ref + f->n_refs; i++) {
		const struct ref *ref = &c->a->refs.items[i];
		const struct function *g = code__function_starting(c->a, elf_file__behind_stub(c->a->elf, ref->target));
		if (g && t.next[ref->insn - f->start])
			reached[index_of(c->a, g)] = true;
	}
	tail__free(&t);
}

static void list_moves(struct comparison *c)
{
	FREE_CLEANUP bool *reachable = xcalloc(c->a->functions.n, sizeof(bool));
	for (size_t i = 0; i < c->a->functions.n; i++) {
		if (c->moves[i])
			list_leaves(c, &c->a->functions.items[i], reachable);
	}
	list_reachable(c, reachable);
	for (size_t i = 0; i < c->a->functions.n; i++) {
		c->x->p->n_moved += c->moves[i];
		if (c->moves[i] && reachable[i])
			lay_jump(c, i);
	}
}

/* Whoever may call what is exported without being called a function is not known (assembly without `.type`). */
static void check_exports(const struct comparison *c)
{
	const struct elf_file *const builds[] = {c->a->elf, c->b->elf};
	for (size_t k = 0; k < 2; k++)
		for (size_t i = 1; i < builds[k]->n_symbols; i++) {
			const struct elf_symbol *s = &builds[k]->symbols[i];
			uint8_t type = ELF64_ST_TYPE(s->s.st_info);
			if (s->s.st_shndx == SHN_UNDEF || s->s.st_shndx == SHN_ABS || type == STT_FUNC ||
			    type == STT_GNU_IFUNC || !elf_file__is_code(builds[k], s->s.st_value))
				continue;
			planner__refuse(c->x, "code-unknown", "%s is exported from code, and not as a function",
					s->name);
			return;
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

/* Pointers in data to places within functions: whoever goes there would be in the old code. */
static void check_labels(const struct comparison *c)
{
	const struct elf_file *e = c->a->elf;
	for (size_t i = 0; i < e->relocs.n; i++) {
		const struct elf_reloc *r = &e->relocs.items[i];
		vaddr_t to = r->type == R_X86_64_RELATIVE ? elf_file__behind_stub(e, (vaddr_t)r->addend) : 0;
		const struct function *f = to ? code__function_at(c->a, to) : NULL;
		if (!f || f->start == to || f->plt || !c->moves[index_of(c->a, f)])
			continue;
		FREE_CLEANUP char *name = code__describe(c->a, f->start);
		planner__refuse(c->x, "code-labels",
				"%s changed, and data of the loaded library leads into the middle of it", name);
		return;
	}
}

/* What goes by the library that calls it: the annex is none. */
static bool goes_by_caller(const char *import)
{
	static const char *const names[] = {"dlsym", "dlvsym", "dlopen", "dlmopen"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(import, names[i]) == 0)
			return true;
	return false;
}

static void check_callers(const struct comparison *c)
{
	for (size_t i = 0; i < c->b->functions.n; i++) {
		const struct function *f = &c->b->functions.items[i];
		int32_t old = c->m->b_to_a[i];
		if (f->plt || (old >= 0 && !c->moves[old]))
			continue;
		for (uint32_t k = f->first_ref; k < f->first_ref + f->n_refs; k++) {
			const struct elf_symbol *import = code__import(c->b, &c->b->refs.items[k]);
			if (!import || !goes_by_caller(import->name))
				continue;
			FREE_CLEANUP char *name = code__describe(c->b, f->start);
			planner__refuse(c->x, "caller",
					"%s changed, and calls %s(3), which goes by the library that it is called from",
					name, import->name);
			break;
		}
	}
}

/* ---- old code that is left ---- */

static bool is_in_jump(const struct entry_jump *jumps, size_t n, vaddr_t to)
{
	size_t lo = 0, hi = n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (jumps[mid].entry + ARCH_JUMP_SIZE <= to)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && jumps[lo].entry <= to;
}

/* Does a reference lead to the bytes of a jump that runs now? */
static bool meets_live_jump(const struct comparison *c, vaddr_t to)
{
	const struct live_map *m = c->x->map;
	return m && is_in_jump(m->jumps, m->n_jumps, to);
}

/* To those of one that is to be written, or goes another way afterwards? */
static bool meets_jump(const struct comparison *c, vaddr_t to)
{
	return is_in_jump(c->x->p->jumps.items, c->x->p->jumps.n, to) || meets_live_jump(c, to);
}

/* A landing pad of an indirect branch may be in front of the jump. */
static bool comes_to_jump(const struct comparison *c, vaddr_t to)
{
	const struct function *g = code__function_starting(c->a, to);
	return meets_jump(c, to) || (g && meets_jump(c, unprepared__jump_place(c, g)));
}

/* Does a function that stays lead to a jump, by what has been found so far? */
static bool passes_on(const struct comparison *c, const bool *leads, vaddr_t to)
{
	const struct function *g = code__function_at(c->a, to);
	return comes_to_jump(c, to) || (g && !c->moves[index_of(c->a, g)] && leads[index_of(c->a, g)]);
}

/* By a branch of a loop that begins with the function? */
static bool loops_to_jump(const struct comparison *c, const struct function *f)
{
	struct insn i = {.len = 1};
	for (vaddr_t a = f->start; a < f->end; a += i.len) {
		const uint8_t *p = elf_file__at(c->a->elf, a, f->end - a);
		if (!p || !insn__decode(p, f->end - a, a, &i) ||
		    (i.has_target && i.is_branch && comes_to_jump(c, i.target)))
			return true;
	}
	return false;
}

/* By a call or a branch out of it, through functions that stay as well? */
static bool leads_to_jump(const struct comparison *c, const bool *leads, const struct function *f)
{
	for (uint32_t i = f->first_ref; i < f->first_ref + f->n_refs; i++) {
		const struct ref *r = &c->a->refs.items[i];
		if ((r->kind == REF_CALL || r->kind == REF_JUMP) && passes_on(c, leads, r->target))
			return true;
	}
	for (size_t k = first_way(c, f); k < c->ways.n && c->ways.items[k].from == index_of(c->a, f); k++)
		if (passes_on(c, leads, c->ways.items[k].to))
			return true;
	return false;
}

/* Does a call come back into the bytes of a jump? Somebody may be parked there. */
static bool any_return_into_jump(const struct comparison *c)
{
	for (size_t i = 0; i < c->a->functions.n; i++) {
		const struct function *f = &c->a->functions.items[i];
		struct insn n = {.len = 1};
		for (vaddr_t a = f->start; c->moves[i] && a < f->end && a < f->start + (vaddr_t)2 * ARCH_JUMP_SIZE;
		     a += n.len) {
			const uint8_t *p = elf_file__at(c->a->elf, a, f->end - a);
			if (!p || !insn__decode(p, f->end - a, a, &n))
				return true;
			if ((n.flow == FLOW_CALL || n.flow == FLOW_CALL_INDIRECT) && meets_jump(c, a + n.len))
				return true;
		}
	}
	return false;
}

/* Would code of an earlier update, were somebody to go on in it, come to a jump by a function of vapi that it calls at
 * its old place? What vapi has not, and what moved with it, it calls directly. */
static bool earlier_leads_to_jump(const struct comparison *c, const bool *leads)
{
	const struct plan *p = c->x->p;
	bool found = false;
	if (p->live == p->vapi)
		return false;
	struct match *m = match__make(c->a, p->live_code);
	for (size_t i = 0; i < p->live_code->refs.n && !found; i++) {
		const struct ref *r = &p->live_code->refs.items[i];
		vaddr_t to = elf_file__behind_stub(p->live, r->target);
		const struct function *g = code__function_at(p->live_code, to);
		int32_t old = g ? m->b_to_a[index_of(p->live_code, g)] : -1;
		if ((r->kind == REF_CALL || r->kind == REF_JUMP) && old >= 0)
			found =
			    leads[old] && !meets_live_jump(c, unprepared__jump_place(c, &c->a->functions.items[old]));
	}
	match__free(m);
	return found;
}

/* Would old code, were somebody to go on in it, come to a jump? */
static void look_for_entanglement(struct comparison *c)
{
	struct plan *p = c->x->p;
	FREE_CLEANUP bool *leads = xcalloc(c->a->functions.n, sizeof(bool));
	bool any = p->jumps.n || (c->x->map && c->x->map->n_jumps);
	p->entangled = any_return_into_jump(c);
	for (bool more = any; more;) {
		more = false;
		for (size_t i = 0; i < c->a->functions.n; i++) {
			const struct function *f = &c->a->functions.items[i];
			if (!leads[i] && !f->plt && leads_to_jump(c, leads, f))
				more = leads[i] = true;
		}
	}
	c->earlier_leads = earlier_leads_to_jump(c, leads);
	p->entangled = p->entangled || c->earlier_leads;
	for (size_t i = 0; i < c->a->functions.n && !p->entangled; i++)
		p->entangled = c->moves[i] && (leads[i] || loops_to_jump(c, &c->a->functions.items[i]));
}

/* A function that only an older image has is called by whoever has its address, at any time, and calls old places: also
 * such as are to become jumps. */
static void check_held(const struct comparison *c)
{
	const struct plan *p = c->x->p;
	for (uint32_t i = 0; i < p->vapi->vapi.n_slots && (p->jumps.n || c->earlier_leads); i++)
		if (p->slots[i] == SLOT_HELD) {
			planner__refuse(
			    c->x, "function-held",
			    "a function that an earlier update brought, and that this build does not have, may be "
			    "called yet, and may call what changed");
			return;
		}
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
	vaddr_list__sort(&all);
	for (size_t i = 0; i < all.n; i++) {
		vaddr_t last = i ? all.items[i - 1] : 0;
		if (i && all.items[i] == last)
			continue;
		/* pages of code in between go with them: a mapping costs more than a page of a shared file */
		bool near = i && all.items[i] - last <= GAP_MAX * (vaddr_t)LLU_PAGE &&
			    elf_file__segment(p->vapi, last) == elf_file__segment(p->vapi, all.items[i]);
		for (vaddr_t a = last + LLU_PAGE; near && a < all.items[i]; a += LLU_PAGE)
			vec__push(&p->pages, a);
		vec__push(&p->pages, all.items[i]);
	}
	vec__free(&all);
}

static struct err *read_tables(struct comparison *c)
{
	TRY(fdes__read(c->a->elf, &c->fdes_a));
	TRY(fdes__read(c->b->elf, &c->fdes_b));
	constants__list_targets_of(c->a, &c->targets_a);
	return same__prepare(c) ? NULL
				: err__new(ERR_UNREADABLE, 0, c->a->elf->path, NULL,
					   "an exception table of the loaded library is not understood");
}

static int by_site(const void *a, const void *b)
{
	const struct patch *x = a, *y = b;
	return (x->site > y->site) - (x->site < y->site);
}

static void compare(struct comparison *c)
{
	struct plan *p = c->x->p;
	c->moves = xcalloc(c->a->functions.n, sizeof(bool));
	c->n_patches = p->patches.n;
	c->patches = p->patches.n ? xmemdup(p->patches.items, p->patches.n * sizeof(struct patch)) : NULL;
	if (c->n_patches)
		qsort(c->patches, c->n_patches, sizeof(struct patch), by_site);
	ERR_CLEANUP struct err *e = read_tables(c);
	if (e)
		planner__refuse(c->x, "unwind", "%s", err__text(e));
	find_moving(c);
	check_slots(c);
	list_moves(c);
	check_exports(c);
	check_labels(c);
	check_callers(c);
	private__list(c->x->p, c->a, c->b, c->m, c->moves);
	look_for_entanglement(c);
	check_held(c);
	list_pages(c);
	bind_to_old_places(c);
	vec__free(&c->fdes_a);
	vec__free(&c->fdes_b);
	vec__free(&c->targets_a);
	vec__free(&c->ways);
	vec__free(&c->tables);
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
