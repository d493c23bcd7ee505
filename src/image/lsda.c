/* Language-specific data of C++ and C functions that unwind (.gcc_except_table): header, call sites,
 * actions, types, as GCC and clang write it (GCC libgcc/unwind-pe.h and libstdc++-v3/libsupc++/eh_personality.cc).
 * The type table holds pc-relative references to data, which must be rebound like those of code. */
#include <dwarf.h>
#include <string.h>

#include "image/planner.h"

struct cursor {
	const uint8_t *p, *end;
	bool bad;
};

static uint8_t get8(struct cursor *c)
{
	if (c->p >= c->end) {
		c->bad = true;
		return 0;
	}
	return *c->p++;
}

static uint64_t get_uleb(struct cursor *c)
{
	uint64_t v = 0;
	for (int shift = 0; shift < 63; shift += 7) {
		uint8_t b = get8(c);
		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return v;
	}
	c->bad = true;
	return 0;
}

static int64_t get_sleb(struct cursor *c)
{
	uint64_t v = 0;
	for (int shift = 0; shift < 63; shift += 7) {
		uint8_t b = get8(c);
		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return (int64_t)(b & 0x40 ? v | ~0ULL << (shift + 7) : v);
	}
	c->bad = true;
	return 0;
}

static uint64_t get_encoded(struct cursor *c, uint8_t enc)
{
	size_t n = 0;
	uint64_t v = 0;
	switch (enc & 0x0f) {
	case DW_EH_PE_uleb128:
		return get_uleb(c);
	case DW_EH_PE_udata4:
	case DW_EH_PE_sdata4:
		n = 4;
		break;
	case DW_EH_PE_absptr:
	case DW_EH_PE_udata8:
	case DW_EH_PE_sdata8:
		n = 8;
		break;
	default:
		c->bad = true;
		return 0;
	}
	if ((size_t)(c->end - c->p) < n) {
		c->bad = true;
		return 0;
	}
	memcpy(&v, c->p, n);
	c->p += n;
	return v;
}

/* The highest type that the actions from `offset` on name. */
static int64_t max_filter(const uint8_t *actions, const uint8_t *end, uint64_t offset, bool *bad)
{
	int64_t max = 0;
	if (offset >= (uint64_t)(end - actions)) {
		*bad = true;
		return 0;
	}
	const uint8_t *at = actions + offset;
	for (int steps = 0; steps < 4096; steps++) {
		struct cursor c = {at, end, false};
		int64_t filter = get_sleb(&c);
		const uint8_t *from = c.p;
		int64_t next = get_sleb(&c);
		if (c.bad || filter < 0) { /* a negative filter is an exception specification: not understood here */
			*bad = true;
			return 0;
		}
		if (filter > max)
			max = filter;
		if (next == 0)
			return max;
		if (next > end - from || next < actions - from) {
			*bad = true;
			return 0;
		}
		at = from + next;
	}
	*bad = true;
	return 0;
}

struct lsda {
	const struct elf_section *section;
	bool own_start; /* landing pads are not counted from the function's start */
	uint8_t site_enc, type_enc;
	struct cursor sites;
	const uint8_t *actions, *types; /* types lie in front of where they are counted from; NULL: none */
};

static bool open_lsda(const struct elf_file *e, vaddr_t at, struct lsda *out)
{
	const struct elf_section *s = elf_file__section_at(e, at);
	if (!s || !s->data || (s->h.sh_flags & SHF_WRITE))
		return false;
	struct cursor c = {s->data + (at - s->h.sh_addr), s->data + s->h.sh_size, false};
	uint8_t start_enc = get8(&c);
	*out = (struct lsda){.section = s, .own_start = start_enc != DW_EH_PE_omit};
	if (out->own_start)
		get_encoded(&c, start_enc);
	out->type_enc = get8(&c);
	if (out->type_enc != DW_EH_PE_omit) {
		uint64_t offset = get_uleb(&c);
		if (c.bad || offset > (uint64_t)(c.end - c.p))
			return false;
		out->types = c.p + offset;
	}
	out->site_enc = get8(&c);
	uint64_t sites_len = get_uleb(&c);
	if (c.bad || sites_len > (uint64_t)(c.end - c.p))
		return false;
	out->actions = c.p + sites_len;
	out->sites = (struct cursor){c.p, out->actions, false};
	return true;
}

/* One call site: where it goes on, and the highest type that its actions name. */
static bool next_site(struct lsda *l, uint64_t *pad, int64_t *max)
{
	bool bad = false;
	get_encoded(&l->sites, l->site_enc);
	get_encoded(&l->sites, l->site_enc);
	*pad = get_encoded(&l->sites, l->site_enc);
	uint64_t action = get_uleb(&l->sites);
	*max = action && l->types && !l->sites.bad ? max_filter(l->actions, l->types, action - 1, &bad) : 0;
	return !l->sites.bad && !bad;
}

bool lsda__references(const struct elf_file *e, vaddr_t lsda, vaddr_list *out)
{
	struct lsda l;
	int64_t max = 0, m;
	uint64_t pad;
	if (!open_lsda(e, lsda, &l))
		return false;
	while (l.sites.p < l.sites.end) {
		if (!next_site(&l, &pad, &m))
			return false;
		max = m > max ? m : max;
	}
	if (max == 0)
		return true;
	if ((l.type_enc & 0x0f) != DW_EH_PE_sdata4 && (l.type_enc & 0x0f) != DW_EH_PE_udata4)
		return false;
	if ((l.type_enc & 0x70) != DW_EH_PE_pcrel || max * 4 > l.types - l.actions)
		return false;
	for (int64_t i = 1; i <= max; i++) {
		const uint8_t *at = l.types - 4 * i;
		static const uint8_t zero[4];
		if (memcmp(at, zero, 4) != 0) /* zero: catch (...) */
			vec__push(out, l.section->h.sh_addr + (vaddr_t)(at - l.section->data));
	}
	return true;
}

bool lsda__landing_pads(const struct elf_file *e, vaddr_t lsda, vaddr_t function, vaddr_list *out)
{
	struct lsda l;
	int64_t max;
	uint64_t pad;
	if (!open_lsda(e, lsda, &l) || l.own_start)
		return false;
	while (l.sites.p < l.sites.end) {
		if (!next_site(&l, &pad, &max))
			return false;
		if (pad)
			vec__push(out, function + pad);
	}
	return true;
}

vaddr_t lsda__end(const struct elf_file *e, vaddr_t lsda)
{
	struct lsda l;
	int64_t max;
	uint64_t pad;
	if (!open_lsda(e, lsda, &l))
		return 0;
	const uint8_t *end = l.types ? l.types : l.actions;
	while (l.sites.p < l.sites.end)
		if (!next_site(&l, &pad, &max))
			return 0;
	return l.section->h.sh_addr + (vaddr_t)(end - l.section->data);
}
