/* Constants with an identity.
 *
 * Programs keep pointers to constants and compare them: an empty string that stands for "unset", a
 * default table that must not be freed. So where new code takes the address of a constant that the
 * old build has too, with the same contents, it is given the old address; only what is new or
 * changed lives in the new image. Reading a constant needs no such care: only lea and pointers in
 * data can let an address escape.
 *
 * "The same" must not be fooled: where an object ends is not written anywhere, since code may refer to places within
 * it as well; and an address is not always the start of one (a table indexed from 'A' may be addressed 65 elements
 * before its start). Hence one of:
 *
 *   - a symbol of the same name and size at both addresses, with the same contents
 *   - a string literal that reaches to the next address that is referred to, and that nothing is added to, with all
 *     texts right behind it, since rows of a table look like literals
 *   - the same contents, from somewhere in front of it to the end of the section
 *
 * and if it may be a table of distances to other constants, the same section.
 *
 * Where contents agree, but not to the end, it may be another constant that changed, or a part of this one. Then new
 * code gets the new contents; and if code compares the address with another one, so that it matters whose it is,
 * nothing is decided and the update is refused.
 */
#include <string.h>

#include "arch/detail.h"
#include "base/hash.h"
#include "image/planner.h"

enum { MEMBERS_MAX = 64 }; /* bytes of an object, within which pointers belong together */
enum { AROUND = 256 };     /* bytes before and behind that must agree as well */
#define REFUSED UINT64_MAX /* among homes: no older one could be decided */

static bool is_constant(const struct elf_file *e, vaddr_t a)
{
	const struct elf_section *s = elf_file__section_at(e, a);
	return s && s->data && !(s->h.sh_flags & (SHF_WRITE | SHF_EXECINSTR)) && a < elf_file__end(e);
}

void constants__list_targets_of(const struct code *c, vaddr_list *out)
{
	for (size_t i = 0; i < c->refs.n; i++)
		if (is_constant(c->elf, c->refs.items[i].target))
			vec__push(out, c->refs.items[i].target);
	for (size_t i = 0; i < c->elf->relocs.n; i++)
		if (c->elf->relocs.items[i].type == R_X86_64_RELATIVE &&
		    is_constant(c->elf, (vaddr_t)c->elf->relocs.items[i].addend))
			vec__push(out, (vaddr_t)c->elf->relocs.items[i].addend);
	vaddr_list__sort(out);
}

void constants__list_targets(struct planner *x)
{
	vaddr_list *l = &x->targets;
	constants__list_targets_of(x->p->next_code, l);
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++)
		if (n == 0 || l->items[n - 1] != l->items[i])
			l->items[n++] = l->items[i];
	l->n = n;
	x->target_homes = xcalloc(n, sizeof(vaddr_t));
	x->target_lives = xcalloc(n, sizeof(vaddr_t));
}

/* What was decided for the constant at `a` before; every constant asked for is a target. */
static vaddr_t *decided(const struct planner *x, vaddr_t a)
{
	size_t i = vaddr_list__from(&x->targets, a);
	return i < x->targets.n && x->targets.items[i] == a ? &x->target_homes[i] : NULL;
}

/* Bytes from `a` to the next address that anything refers to, or to the end of the section. */
static size_t extent(const struct planner *x, vaddr_t a, const struct elf_section *s)
{
	size_t i = vaddr_list__from(&x->targets, a + 1);
	vaddr_t end = s->h.sh_addr + s->h.sh_size;
	return (i < x->targets.n && x->targets.items[i] < end ? x->targets.items[i] : end) - a;
}

/* A table of distances to code, as compilers make for switch: its contents mean places of the image. */
static bool is_jump_table(const struct elf_file *e, const uint8_t *p, size_t room, vaddr_t a)
{
	int32_t d;
	if (room < 4 || a % 4)
		return false;
	memcpy(&d, p, 4);
	return elf_file__is_code(e, a + (vaddr_t)(int64_t)d);
}

static bool is_text(uint8_t c)
{
	return c >= 0x20 || c == '\n' || c == '\t' || c == '\r';
}

/* Length with the final zero of a string of text that starts at p; 0 when it is none. */
static size_t string_len(const struct elf_section *s, uint64_t at)
{
	const uint8_t *p = s->data + at;
	size_t room = s->h.sh_size - at, n = 0;
	if (at > 0 && p[-1] != 0)
		return 0;
	while (n < room && is_text(p[n]))
		n++;
	return n > 0 && n < room && p[n] == 0 ? n + 1 : 0;
}

static bool same_bytes(const struct elf_section *a, uint64_t at_a, const struct elf_section *b, uint64_t at_b, size_t n)
{
	return n <= a->h.sh_size - at_a && n <= b->h.sh_size - at_b && memcmp(a->data + at_a, b->data + at_b, n) == 0;
}

/* ---- what symbols say ---- */

static void know_symbols(struct planner *x)
{
	if (!x->symbols_known) {
		types__constants(x->p->next, &x->symbols);
		types__constants(x->p->live, &x->live_symbols);
	}
	x->symbols_known = true;
}

/* The object that `a` is in, or NULL. */
static const struct constant_symbol *object_at(const constant_symbols *l, vaddr_t a)
{
	size_t lo = 0, hi = l->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (l->items[mid].at + l->items[mid].size > a)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo < l->n && l->items[lo].at <= a ? &l->items[lo] : NULL;
}

static bool same_object(const struct planner *x, const struct constant_symbol *m, const struct constant_symbol *n)
{
	if (!m || !n || strcmp(m->name, n->name) != 0 || m->size != n->size)
		return false;
	const struct elf_section *a = elf_file__section_at(x->p->next, m->at);
	const struct elf_section *b = elf_file__section_at(x->p->live, n->at);
	return same_bytes(a, m->at - a->h.sh_addr, b, n->at - b->h.sh_addr, m->size);
}

/* Is it the same place of the same object? */
static bool same_in_object(const struct planner *x, vaddr_t next, vaddr_t live)
{
	const struct constant_symbol *m = object_at(&x->symbols, next), *n = object_at(&x->live_symbols, live);
	return same_object(x, m, n) && next - m->at == live - n->at;
}

/* Does an object end there that changed, from whose end code may count back? */
static bool is_changed_end(const struct planner *x, vaddr_t next, vaddr_t live)
{
	const struct constant_symbol *m = object_at(&x->symbols, next - 1), *n = object_at(&x->live_symbols, live - 1);
	bool indexed = vaddr_list__has(&x->uses.indexed, next) || vaddr_list__has(&x->live_uses.indexed, live);
	return indexed && m && m->at + m->size == next && !same_object(x, m, n);
}

/* Is it the end of the same object, where no other begins? */
static bool same_end(const struct planner *x, vaddr_t next, vaddr_t live)
{
	const struct constant_symbol *m = object_at(&x->symbols, next - 1), *n = object_at(&x->live_symbols, live - 1);
	return same_object(x, m, n) && next == m->at + m->size && live == n->at + n->size &&
	       !object_at(&x->symbols, next) && !object_at(&x->live_symbols, live);
}

static uint64_t min3(uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t m = a < b ? a : b;
	return m < c ? m : c;
}

static bool same_around(const struct elf_section *a, uint64_t at_a, const struct elf_section *b, uint64_t at_b,
			size_t n)
{
	uint64_t before = min3(at_a, at_b, AROUND);
	uint64_t behind = min3(a->h.sh_size - at_a - n, b->h.sh_size - at_b - n, AROUND);
	return memcmp(a->data + at_a - before, b->data + at_b - before, before + n + behind) == 0;
}

/* ---- what code does with addresses ---- */

/* What a register holds: an address that this build's code has formed, from that of a constant (or 0), or a negative
 * number; or what a call found that was given such an address. */
struct formed {
	bool any, negative, found;
	vaddr_t from;
};

static struct formed held_by(const struct formed *reg, int r)
{
	return r == REG_NONE ? (struct formed){0} : reg[r];
}

static struct formed formed_by(const struct formed *reg, const struct insn *i, const struct insn_detail *d)
{
	if (d->op == OP_COPY)
		return reg[d->src];
	if (d->op == OP_ADD)
		return reg[d->dst];
	if (d->op == OP_SET)
		return (struct formed){.negative = d->imm < 0};
	if (d->op != OP_ADDRESS)
		return (struct formed){0};
	if (i->takes_address)
		return (struct formed){.any = true, .from = i->target};
	struct formed base = held_by(reg, d->base);
	return base.any ? base : held_by(reg, d->index);
}

static void step(struct formed *reg, const struct insn *i, const struct insn_detail *d)
{
	struct formed now = d->dst == REG_NONE ? (struct formed){0} : formed_by(reg, i, d);
	bool call = i->flow == FLOW_CALL || i->flow == FLOW_CALL_INDIRECT, given = false;
	for (size_t k = 0; call && k < sizeof(arch_abi.arg) / sizeof(arch_abi.arg[0]); k++)
		given = given || reg[arch_abi.arg[k]].any;
	uint16_t lost = d->written | (call ? arch_abi.lost_by_calls : 0);
	bool ends = i->flow == FLOW_JUMP || i->flow == FLOW_STOP; /* what follows is come to from elsewhere */
	for (int r = 0; r < REG_COUNT; r++)
		if (ends || (lost >> r & 1))
			reg[r] = r == d->dst ? now : (struct formed){0};
	if (given)
		reg[arch_abi.result].found = true;
}

static void note_use(const struct formed *reg, const struct insn_detail *d, struct uses *u)
{
	bool all = !d->has_mem; /* a loop over a table compares with its end, which was formed in the same way */
	bool difference = d->written != 0; /* of what was found in a table: its index. Compared, it may be another's. */
	for (int r = 0; r < REG_COUNT; r++)
		all = all && (!(d->read >> r & 1) || reg[r].any || (difference && reg[r].found));
	for (int r = 0; r < REG_COUNT; r++) {
		bool in_address =
		    d->has_mem && d->base != REG_NONE && d->index != REG_NONE && (r == d->base || r == d->index);
		if (!reg[r].from)
			continue;
		if (d->compares && !all && (d->read >> r & 1))
			vec__push(&u->compared, reg[r].from);
		if (in_address || (d->adds && (d->read >> r & 1)))
			vec__push(&u->indexed, reg[r].from);
	}
}

/* Is what lies at the address accessed, or behind it? Not so with an end, from which one counts back. */
static bool is_start_in(const struct formed *reg, const struct insn_detail *d, vaddr_t a)
{
	bool base = d->base != REG_NONE && reg[d->base].from == a;
	bool index = d->index != REG_NONE && reg[d->index].from == a;
	if (!d->has_mem || d->op == OP_ADDRESS || d->disp < 0 || !(base || index))
		return false;
	int other = base ? d->index : d->base;
	return other == REG_NONE || !reg[other].negative;
}

enum use { USE_START, USE_RETURNED, USE_OTHER };

/* From where `a` was taken on, as far as is known of the register. */
static enum use use_of(const struct code *c, const struct function *f, vaddr_t taken, vaddr_t a)
{
	struct formed reg[REG_COUNT] = {0};
	struct insn i;
	struct insn_detail d;
	bool held = true;
	for (vaddr_t at = taken; at < f->end && held; at += i.len) {
		const uint8_t *p = elf_file__at(c->elf, at, f->end - at);
		if (!p || !insn__detail(p, f->end - at, at, &i, &d))
			return USE_OTHER;
		if (is_start_in(reg, &d, a))
			return USE_START;
		if (i.flow == FLOW_STOP && reg[arch_abi.result].from == a)
			return USE_RETURNED;
		step(reg, &i, &d);
		held = false;
		for (int r = 0; r < REG_COUNT; r++)
			held = held || reg[r].from == a;
	}
	return USE_OTHER;
}

/* ---- what may be a start and its end ---- */

static void add_pair(struct uses *u, vaddr_t a, vaddr_t b)
{
	struct vrange r = {a < b ? a : b, a < b ? b : a};
	if (a != b)
		vec__push(&u->pairs, r);
}

/* Each that may be an end, and the last one in front of it; and all that are next to each other. */
static void pair_up(struct uses *u, vaddr_list *taken, vaddr_list *ends)
{
	vaddr_list__sort(taken);
	for (size_t i = 1; i < taken->n; i++) {
		struct vrange r = {taken->items[i - 1], taken->items[i]};
		if (r.end != r.start)
			vec__push(&u->together, r);
	}
	for (size_t i = 0; i < ends->n; i++) {
		size_t k = vaddr_list__from(taken, ends->items[i]);
		if (k > 0)
			add_pair(u, taken->items[k - 1], ends->items[i]);
	}
	taken->n = ends->n = 0;
}

bool constants__is_jump_table(const struct elf_file *e, vaddr_t a)
{
	const struct elf_section *s = is_constant(e, a) ? elf_file__section_at(e, a) : NULL;
	uint64_t at = s ? a - s->h.sh_addr : 0;
	return s && is_jump_table(e, s->data + at, s->h.sh_size - at, a);
}

/* Of all whose address a function takes; and of those that functions return, as begin() and end() do. */
static void list_pairs_in(const struct code *c, const struct function *f, struct uses *u, vaddr_list *returned)
{
	vaddr_list taken = {0}, ends = {0};
	bool switches = code__has_indirect_jump(c, f);
	for (uint32_t k = f->first_ref; k < f->first_ref + f->n_refs; k++) {
		const struct ref *r = &c->refs.items[k];
		if (r->kind != REF_ADDRESS || !is_constant(c->elf, r->target))
			continue;
		if (switches && constants__is_jump_table(c->elf, r->target)) { /* it has no end that anybody takes */
			vec__push(&u->taken, r->target);
			continue;
		}
		enum use use = use_of(c, f, r->insn, r->target);
		vec__push(&u->taken, r->target);
		vec__push(&taken, r->target);
		if (use != USE_START)
			vec__push(&ends, r->target);
		if (use == USE_RETURNED)
			vec__push(returned, r->target);
	}
	pair_up(u, &taken, &ends);
	vec__free(&taken);
	vec__free(&ends);
}

/* Pointers in data, of which one may be another's end: near each other, as the members of an object are. */
static void list_pairs_of_words(const struct elf_file *e, struct uses *u)
{
	for (size_t i = 0; i < e->relocs.n; i++) {
		const struct elf_reloc *r = &e->relocs.items[i];
		if (r->type != R_X86_64_RELATIVE || !is_constant(e, (vaddr_t)r->addend))
			continue;
		vec__push(&u->taken, (vaddr_t)r->addend);
		vaddr_t before = 0, behind = UINT64_MAX;
		for (size_t k = i; k-- > 0 && r->where - e->relocs.items[k].where <= MEMBERS_MAX;) {
			vaddr_t a = (vaddr_t)e->relocs.items[k].addend;
			if (e->relocs.items[k].type != R_X86_64_RELATIVE || !is_constant(e, a))
				continue;
			before = a < (vaddr_t)r->addend && a > before ? a : before;
			behind = a > (vaddr_t)r->addend && a < behind ? a : behind;
		}
		if (before)
			add_pair(u, before, (vaddr_t)r->addend);
		if (behind != UINT64_MAX)
			add_pair(u, (vaddr_t)r->addend, behind);
	}
}

static void list_uses_in(const struct code *c, const struct function *f, struct uses *u)
{
	struct formed reg[REG_COUNT] = {0};
	struct insn i;
	struct insn_detail d;
	for (vaddr_t at = f->start; at < f->end; at += i.len) {
		const uint8_t *p = elf_file__at(c->elf, at, f->end - at);
		if (!p || !insn__detail(p, f->end - at, at, &i, &d))
			return;
		note_use(reg, &d, u);
		step(reg, &i, &d);
	}
}

static void list_uses(const struct code *c, struct uses *u)
{
	vaddr_list returned = {0}, ends = {0};
	for (size_t i = 0; i < c->functions.n; i++) {
		const struct function *f = &c->functions.items[i];
		bool any = false;
		for (uint32_t k = f->first_ref; k < f->first_ref + f->n_refs && !any; k++)
			any = c->refs.items[k].kind == REF_ADDRESS && is_constant(c->elf, c->refs.items[k].target);
		if (!any)
			continue;
		list_uses_in(c, f, u);
		list_pairs_in(c, f, u, &returned);
	}
	list_pairs_of_words(c->elf, u);
	for (size_t i = 0; i < returned.n; i++)
		vec__push(&ends, returned.items[i]);
	pair_up(u, &returned, &ends);
	vec__free(&returned);
	vec__free(&ends);
	vaddr_list__sort(&u->taken);
	vaddr_list__sort(&u->compared);
	vaddr_list__sort(&u->indexed);
}

static void free_uses(struct uses *u)
{
	vec__free(&u->compared);
	vec__free(&u->indexed);
	vec__free(&u->taken);
	vec__free(&u->pairs);
	vec__free(&u->together);
}

void constants__free(struct planner *x)
{
	free_uses(&x->uses);
	free_uses(&x->live_uses);
	constant_symbols__free(&x->symbols);
	constant_symbols__free(&x->live_symbols);
}

static void know_uses(struct planner *x)
{
	if (!x->uses_known) {
		list_uses(x->p->next_code, &x->uses);
		list_uses(x->p->live_code, &x->live_uses);
	}
	x->uses_known = true;
}

static bool is_compared(const struct planner *x, vaddr_t next, vaddr_t live)
{
	return vaddr_list__has(&x->uses.compared, next) || vaddr_list__has(&x->live_uses.compared, live);
}

/* ---- are two the same? ---- */

/* Length of a string literal from `at` on, with what pads it up to the next one; 0 when that is not certainly one.
 * Nothing else is between it and what is referred to next. Literals of which one is the end of the other are one. Long
 * ones are aligned (gcc, config/i386/i386.cc: ix86_constant_alignment), and with `arrays` any that are as arrays of
 * characters are (ix86_data_alignment). */
static size_t literal_len(const struct planner *x, const struct elf_section *s, uint64_t at, bool arrays)
{
	enum { LONG = 31, ALIGNMENT = 8, ALIGNMENT_MAX = 32 };
	size_t room = s->h.sh_size - at, len = 0;
	uint64_t start = at, base = s->h.sh_addr;
	while (len < room && is_text(s->data[at + len]))
		len++;
	while (start > 0 && is_text(s->data[start - 1]))
		start--;
	if (len == room || s->data[at + len++] != 0 || (start > 0 && s->data[start - 1] != 0))
		return 0;
	size_t padding = extent(x, base + at + len - 1, s) - 1;
	bool padded = false;
	for (size_t i = 0; i < padding; i++)
		if (s->data[at + len + i] != 0)
			return 0;
	for (uint64_t n = ALIGNMENT; n <= (arrays ? ALIGNMENT_MAX : ALIGNMENT); n *= 2)
		padded = padded || (padding < n && (base + start) % n == 0 && (base + at + len + padding) % n == 0);
	return padding == 0 || (padded && (arrays || at + len - start >= LONG)) ? len + padding : 0;
}

/* How far the sections agree from these places on. Many constants are at the same distance from their older ones, one
 * behind the other. */
static uint64_t agreement(struct planner *x, const struct elf_section *a, uint64_t at_a, const struct elf_section *b,
			  uint64_t at_b)
{
	vaddr_t next = a->h.sh_addr + at_a, shift = next - (b->h.sh_addr + at_b);
	uint64_t room = min3(a->h.sh_size - at_a, b->h.sh_size - at_b, UINT64_MAX), n = 0;
	struct agreement *known = &x->agreement;
	if (known->any && known->shift == shift && known->from <= next && next < known->to)
		return known->to - next;
	while (n < room && a->data[at_a + n] == b->data[at_b + n])
		n++;
	*known = (struct agreement){true, shift, next, next + n};
	return n;
}

/* Where the run of texts at `at` ends, each with its final zero, one behind the other: no table of rows of text goes
 * further. Many literals are in one run. */
static vaddr_t end_of_texts(struct planner *x, const struct elf_section *s, uint64_t at)
{
	vaddr_t a = s->h.sh_addr + at;
	uint64_t end = at;
	if (a - x->texts.start < x->texts.end - x->texts.start)
		return x->texts.end;
	while (end < s->h.sh_size &&
	       (is_text(s->data[end]) || (s->data[end] == 0 && end > at && s->data[end - 1] != 0)))
		end++;
	x->texts = (struct vrange){a, s->h.sh_addr + end};
	return x->texts.end;
}

/* Tables that no code refers to. */
static bool is_for_unwinders(const struct elf_file *e, vaddr_t a)
{
	static const char *const names[] = {".eh_frame", ".eh_frame_hdr", ".gcc_except_table"};
	const struct elf_section *s = elf_file__section_at(e, a);
	for (size_t i = 0; s && i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(s->name, names[i]) == 0)
			return true;
	return false;
}

/* A table of distances to other constants, as clang makes of a switch that chooses among them: its first words lead to
 * some, outside of themselves. Those may be referred to by nothing else. Numbers may look like that too. */
static bool is_table_of_distances(const struct planner *x, const struct elf_section *s, uint64_t at, size_t n)
{
	vaddr_t a = s->h.sh_addr + at;
	size_t looked_at = n < 8 ? n / 4 * 4 : 8;
	for (size_t i = 0; i < looked_at; i += 4) {
		int32_t d;
		memcpy(&d, s->data + at + i, 4);
		vaddr_t to = a + (vaddr_t)(int64_t)d;
		if (to - a < looked_at || !is_constant(x->p->next, to) || is_for_unwinders(x->p->next, to))
			return false;
	}
	return looked_at > 0 && a % 4 == 0;
}

/* Does each word of a table, the same in both builds, lead to a text, and to the same? */
static bool leads_to_same_texts(const struct planner *x, const struct elf_section *a, uint64_t at_a,
				const struct elf_section *b, uint64_t at_b, size_t n)
{
	vaddr_t next = a->h.sh_addr + at_a, live = b->h.sh_addr + at_b;
	for (size_t i = 0; i + 4 <= n; i += 4) {
		int32_t d;
		memcpy(&d, a->data + at_a + i, 4);
		vaddr_t to = next + (vaddr_t)(int64_t)d, was = live + (vaddr_t)(int64_t)d;
		if (!is_constant(x->p->next, to) || !is_constant(x->p->live, was))
			return false;
		const struct elf_section *s = elf_file__section_at(x->p->next, to);
		const struct elf_section *t = elf_file__section_at(x->p->live, was);
		size_t len = 0, at = to - s->h.sh_addr, room = s->h.sh_size - at;
		while (len < room && is_text(s->data[at + len]))
			len++;
		if (len == room || s->data[at + len] != 0 || !same_bytes(s, at, t, was - t->h.sh_addr, len + 1))
			return false;
	}
	return true;
}

bool constants__is_table_of_distances(struct planner *x, vaddr_t next)
{
	const struct elf_section *s = is_constant(x->p->next, next) ? elf_file__section_at(x->p->next, next) : NULL;
	know_uses(x);
	return s && is_table_of_distances(x, s, next - s->h.sh_addr, extent(x, next, s));
}

static bool same_section(struct planner *x, const struct elf_section *a, uint64_t at_a, const struct elf_section *b,
			 uint64_t at_b)
{
	return at_a == at_b && a->h.sh_size == b->h.sh_size && agreement(x, a, 0, b, 0) == a->h.sh_size;
}

enum sameness {
	DIFFERENT, /* or it does not matter: a copy will do */
	SAME,
	UNCLEAR,
};

/* `n` is how far it is to what the new build refers to next. */
static enum sameness compare(struct planner *x, const struct elf_section *a, uint64_t at_a, const struct elf_section *b,
			     uint64_t at_b, size_t n)
{
	vaddr_t next = a->h.sh_addr + at_a, live = b->h.sh_addr + at_b;
	bool indexed = vaddr_list__has(&x->uses.indexed, next) || vaddr_list__has(&x->live_uses.indexed, live);
	bool compared = is_compared(x, next, live);
	size_t literal = indexed ? 0 : literal_len(x, a, at_a, compared);
	if (!same_bytes(a, at_a, b, at_b, literal > n ? literal : n))
		return compared ? UNCLEAR : DIFFERENT;
	uint64_t agree = agreement(x, a, at_a, b, at_b);
	/* of an empty one there is little to go by; one that is not compared may have a copy */
	if (literal && (a->data[at_a] ? compared || next + agree >= end_of_texts(x, a, at_a)
				      : compared && same_around(a, at_a, b, at_b, literal)))
		return SAME;
	if (same_around(a, at_a, b, at_b, n) && agree == a->h.sh_size - at_a)
		return SAME;
	return compared ? UNCLEAR : DIFFERENT;
}

static int by_at(const void *a, const void *b)
{
	const struct live_const *x = a, *y = b;
	return (x->at > y->at) - (x->at < y->at);
}

static vaddr_t home_of_live(const struct planner *x, vaddr_t live)
{
	const struct live_map *m = x->map;
	struct live_const key = {live, 0}, *known = NULL;
	if (m && m->n_consts)
		known = bsearch(&key, m->consts, m->n_consts, sizeof(key), by_at);
	return known ? known->home : (m ? m->base : 0) + live;
}

vaddr_t constants__place_of_live(const struct planner *x, vaddr_t live)
{
	return is_constant(x->p->live, live) ? home_of_live(x, live) : 0;
}

static int by_hash(const void *a, const void *b)
{
	const struct known_string *x = a, *y = b;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (x->at > y->at) - (x->at < y->at);
}

/* The strings whose address the old build's code takes. */
static void list_strings(struct planner *x)
{
	const struct code *c = x->p->live_code;
	for (size_t i = 0; i < c->refs.n; i++) {
		vaddr_t t = c->refs.items[i].target;
		if (c->refs.items[i].kind != REF_ADDRESS || !is_constant(c->elf, t))
			continue;
		const struct elf_section *s = elf_file__section_at(c->elf, t);
		size_t n = string_len(s, t - s->h.sh_addr);
		if (n) {
			struct known_string k = {hash__bytes(HASH_START, s->data + (t - s->h.sh_addr), n), t};
			vec__push(&x->strings, k);
		}
	}
	if (x->strings.n)
		qsort(x->strings.items, x->strings.n, sizeof(x->strings.items[0]), by_hash);
}

/* A string of the old build with the same text that is referred to at one address only. */
static vaddr_t only_string(struct planner *x, const struct elf_section *a, uint64_t at)
{
	vaddr_t found = 0;
	size_t n = string_len(a, at);
	if (!n)
		return 0;
	if (x->strings.n == 0)
		list_strings(x);
	uint64_t hash = hash__bytes(HASH_START, a->data + at, n);
	size_t lo = 0, hi = x->strings.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (x->strings.items[mid].hash < hash)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < x->strings.n && x->strings.items[lo].hash == hash; lo++) {
		vaddr_t t = x->strings.items[lo].at;
		const struct elf_section *b = elf_file__section_at(x->p->live, t);
		if (t == found || !same_bytes(a, at, b, t - b->h.sh_addr, n))
			continue;
		if (found)
			return 0;
		found = t;
	}
	return found;
}

/* An end is only compared with: what lies behind does not matter. Else the end of a table would be somewhere else than
 * the table. */
static bool is_kept_end(struct planner *x, vaddr_t next, vaddr_t live)
{
	if (!live || !is_constant(x->p->live, live))
		return false;
	know_symbols(x);
	return is_compared(x, next, live) && same_end(x, next, live);
}

static vaddr_t keep(struct planner *x, vaddr_t next, vaddr_t live)
{
	x->target_lives[decided(x, next) - x->target_homes] = live;
	return home_of_live(x, live);
}

static void refuse(struct planner *x, vaddr_t next)
{
	planner__refuse(x, "constant-unclear",
			"the address of a constant at 0x%lx of the new build is compared with others, and whether it "
			"changed cannot be told",
			next);
}

vaddr_t constants__home(struct planner *x, vaddr_t next, vaddr_t live)
{
	const struct elf_file *n = x->p->next, *l = x->p->live;
	if (!is_constant(n, next))
		return 0;
	const struct elf_section *a = elf_file__section_at(n, next);
	uint64_t at_a = next - a->h.sh_addr;
	vaddr_t *home = decided(x, next);
	if (!home || *home || x->constants_settled)
		return home && *home != REFUSED ? *home : 0;
	know_uses(x);
	if (is_kept_end(x, next, live))
		return *home = keep(x, next, live);
	if (is_jump_table(n, a->data + at_a, a->h.sh_size - at_a, next) && !(live && is_compared(x, next, live)))
		return 0;
	if (!live)
		live = only_string(x, a, at_a);
	if (!live || !is_constant(l, live))
		return 0;
	const struct elf_section *b = elf_file__section_at(l, live);
	uint64_t at_b = live - b->h.sh_addr;
	know_symbols(x);
	size_t n_bytes = extent(x, next, a);
	enum sameness same = same_in_object(x, next, live) && !is_changed_end(x, next, live)
				 ? SAME
				 : compare(x, a, at_a, b, at_b, n_bytes);
	if (same == SAME && is_table_of_distances(x, a, at_a, n_bytes) && !same_section(x, a, at_a, b, at_b) &&
	    !leads_to_same_texts(x, a, at_a, b, at_b, n_bytes))
		same = is_compared(x, next, live) ? UNCLEAR : DIFFERENT;
	if (same == UNCLEAR) {
		*home = REFUSED;
		refuse(x, next);
	}
	if (same != SAME)
		return 0;
	return *home = keep(x, next, live);
}

/* ---- one with its neighbours ---- */

/* May the constant that begins at target i reach to `next`, the next one whose address is taken? Then the address of
 * that one may stand for the end, or for a place within. */
static bool may_reach(struct planner *x, size_t i, size_t next)
{
	vaddr_t a = x->targets.items[i], b = x->targets.items[next];
	const struct elf_section *s = elf_file__section_at(x->p->next, a);
	const struct constant_symbol *o = object_at(&x->symbols, a);
	if (o)
		return o->at + o->size >= b;
	return vaddr_list__has(&x->uses.indexed, a) || !literal_len(x, s, a - s->h.sh_addr, true);
}

static bool has_home(const struct planner *x, size_t i)
{
	return x->target_homes[i] && x->target_homes[i] != REFUSED;
}

static bool go_together(const struct planner *x, size_t i, size_t k)
{
	const vaddr_t *t = x->targets.items, *home = x->target_homes;
	return has_home(x, i) == has_home(x, k) && (!has_home(x, i) || home[k] - home[i] == t[k] - t[i]);
}

/* The next one whose address is taken. */
static size_t next_of(const struct planner *x, size_t i)
{
	size_t k = i + 1;
	while (k < x->targets.n && !vaddr_list__has(&x->uses.taken, x->targets.items[k]))
		k++;
	return k;
}

/* What may be the start of a table and its end go together, with all in between, unless something ends there. */
static void tie(struct planner *x, struct vrange pair)
{
	size_t first = vaddr_list__from(&x->targets, pair.start), last = vaddr_list__from(&x->targets, pair.end);
	const struct constant_symbol *o = object_at(&x->symbols, pair.start);
	if (o && o->at + o->size < pair.end)
		return;
	for (size_t i = first; i < last; i = next_of(x, i))
		if (!may_reach(x, i, next_of(x, i)))
			return;
	for (size_t i = first; i < last; i = next_of(x, i))
		x->target_ends[i] = next_of(x, i);
}

static void give_copy(struct planner *x, size_t i)
{
	if (!has_home(x, i))
		return;
	if (is_compared(x, x->targets.items[i], x->target_lives[i])) {
		refuse(x, x->targets.items[i]);
		x->target_homes[i] = REFUSED;
	} else {
		x->target_homes[i] = 0;
	}
}

void constants__settle(struct planner *x)
{
	size_t n = x->targets.n;
	size_t *end = x->target_ends = xcalloc(n + 1, sizeof(size_t));
	for (size_t i = 0; i < n; i++)
		(void)constants__home(x, x->targets.items[i], 0);
	know_symbols(x);
	know_uses(x);
	for (size_t i = 0; i < x->uses.pairs.n; i++)
		tie(x, x->uses.pairs.items[i]);
	for (size_t i = 0; i < x->uses.together.n; i++) {
		struct vrange r = x->uses.together.items[i];
		const struct constant_symbol *o = object_at(&x->symbols, r.start);
		if (o && o->at + o->size > r.end)
			tie(x, r);
	}
	/* up and down: what is given a copy takes its neighbours with it */
	for (int pass = 0; pass < 2; pass++)
		for (size_t k = 0; k < n; k++) {
			size_t i = pass ? n - 1 - k : k;
			if (end[i] && !go_together(x, i, end[i])) {
				give_copy(x, i);
				give_copy(x, end[i]);
			}
		}
	for (size_t i = 0; i < n; i++)
		if (has_home(x, i)) {
			struct live_const kept = {x->targets.items[i], x->target_homes[i]};
			vec__push(&x->p->consts, kept);
		}
	x->constants_settled = true;
}

bool constants__may_keep(const struct planner *x, vaddr_t next, vaddr_t older)
{
	const struct elf_file *v = x->p->vapi, *n = x->p->next;
	size_t i = vaddr_list__from(&x->targets, next), before = i;
	if (build_id__equal(v->build_id, v->build_id_len, n->build_id, n->build_id_len))
		return true; /* nothing moves */
	if (i == x->targets.n || x->targets.items[i] != next)
		return false;
	while (before > 0 && !vaddr_list__has(&x->uses.taken, x->targets.items[before - 1]))
		before--;
	return x->target_homes[i] == older || !(x->target_ends[i] || (before > 0 && x->target_ends[before - 1] == i));
}
