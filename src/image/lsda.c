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

static void skip_encoded(struct cursor *c, uint8_t enc)
{
	size_t n = 0;
	switch (enc & 0x0f) {
	case DW_EH_PE_uleb128:
		get_uleb(c);
		return;
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
		return;
	}
	if ((size_t)(c->end - c->p) < n)
		c->bad = true;
	else
		c->p += n;
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

bool lsda__references(const struct elf_file *e, vaddr_t lsda, vaddr_list *out)
{
	const struct elf_section *s = elf_file__section_at(e, lsda);
	if (!s || !s->data || (s->h.sh_flags & SHF_WRITE))
		return false;
	struct cursor c = {s->data + (lsda - s->h.sh_addr), s->data + s->h.sh_size, false};
	uint8_t start_enc = get8(&c);
	if (start_enc != DW_EH_PE_omit)
		skip_encoded(&c, start_enc);
	uint8_t type_enc = get8(&c);
	const uint8_t *types = NULL;
	if (type_enc != DW_EH_PE_omit) {
		uint64_t offset = get_uleb(&c);
		if (c.bad || offset > (uint64_t)(c.end - c.p))
			return false;
		types = c.p + offset;
	}
	uint8_t site_enc = get8(&c);
	uint64_t sites_len = get_uleb(&c);
	if (c.bad || sites_len > (uint64_t)(c.end - c.p))
		return false;
	const uint8_t *actions = c.p + sites_len;
	int64_t max = 0;
	bool bad = false;
	struct cursor site = {c.p, actions, false};
	while (site.p < site.end && !site.bad) {
		for (int i = 0; i < 3; i++) /* start, length, landing pad: distances within the code */
			skip_encoded(&site, site_enc);
		uint64_t action = get_uleb(&site);
		int64_t m = action && types ? max_filter(actions, types, action - 1, &bad) : 0;
		max = m > max ? m : max;
	}
	if (site.bad || bad)
		return false;
	if (max == 0)
		return true;
	if ((type_enc & 0x0f) != DW_EH_PE_sdata4 && (type_enc & 0x0f) != DW_EH_PE_udata4)
		return false;
	if ((type_enc & 0x70) != DW_EH_PE_pcrel || max * 4 > types - actions)
		return false;
	for (int64_t i = 1; i <= max; i++) {
		const uint8_t *at = types - 4 * i;
		static const uint8_t zero[4];
		if (memcmp(at, zero, 4) != 0) /* zero: catch (...) */
			vec__push(out, s->h.sh_addr + (vaddr_t)(at - s->data));
	}
	return true;
}
