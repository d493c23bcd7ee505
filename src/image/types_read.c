/* Debug information into the model of types_model.h, read with libdw (elfutils/libdw.h; DWARF 5,
 * chapters 3 and 5; DWARF 4, 5.5.6 for the older bit-fields). Everything is copied. Units are read one
 * by one: all of the file, and of a supplementary file (dwz) those that something refers to, for the
 * others belong to other libraries. */
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "image/types_read.h"

/* Beyond these a file is damaged, or made to keep us busy. */
enum { NODES_MAX = 1 << 25, PARTS_MAX = 1 << 27, RANGES_MAX = 1 << 20, ALIAS_MAX = 100 };

/* From an address in libdw's memory to a number; addresses are never NULL. */
struct map {
	const void **keys;
	uint32_t *values;
	size_t n, cap;
};

struct reader {
	struct types *t;
	const struct elf_file *e;
	struct map ids;         /* type DIE -> node */
	struct map seen;        /* unit DIE -> 1 */
	VEC(Dwarf_Die) units;   /* to be read, and read */
	const Dwarf_CU *cu;     /* being read */
	uintptr_t last;         /* the entry that was read last: they are read in the order of the file */
	uint32_t unit;          /* index of its name */
	bool knows_types;       /* it was compiled with more than line numbers */
	const char *bad;        /* what is wrong with the file; set once */
	const char *incomplete; /* why it is as good as none */
};

/* Where in the source a DIE is: what qualified names begin with. */
struct scope {
	const char *types;   /* namespaces and classes: "ns::" */
	const char *statics; /* functions too */
	unsigned depth;
};

static void bad(struct reader *r, const char *what)
{
	if (!r->bad)
		r->bad = what;
}

/* --- the map --- */

static size_t map__slot(const struct map *m, const void *key)
{
	size_t i = (size_t)(((uint64_t)(uintptr_t)key * 0x9e3779b97f4a7c15u) >> 20) & (m->cap - 1);
	while (m->keys[i] && m->keys[i] != key)
		i = (i + 1) & (m->cap - 1);
	return i;
}

static void map__free(struct map *m)
{
	free(m->keys);
	free(m->values);
}

/* The value of the key; 0 when it is new, to be filled in by the caller. */
static uint32_t *map__at(struct map *m, const void *key)
{
	if (m->n * 2 >= m->cap) {
		struct map bigger = {.n = m->n, .cap = m->cap ? m->cap * 2 : 1024};
		bigger.keys = xcalloc(bigger.cap, sizeof(*bigger.keys));
		bigger.values = xcalloc(bigger.cap, sizeof(*bigger.values));
		for (size_t i = 0; i < m->cap; i++) {
			if (!m->keys[i])
				continue;
			size_t slot = map__slot(&bigger, m->keys[i]);
			bigger.keys[slot] = m->keys[i];
			bigger.values[slot] = m->values[i];
		}
		map__free(m);
		*m = bigger;
	}
	size_t i = map__slot(m, key);
	if (!m->keys[i]) {
		m->keys[i] = key;
		m->n++;
	}
	return &m->values[i];
}

/* --- attributes --- */

static bool flag_of(Dwarf_Die *die, unsigned name)
{
	Dwarf_Attribute a;
	bool v = false;
	return dwarf_attr(die, name, &a) && dwarf_formflag(&a, &v) == 0 && v;
}

static bool number_of(Dwarf_Die *die, unsigned name, uint64_t *out)
{
	Dwarf_Attribute a;
	Dwarf_Word v = 0;
	if (!dwarf_attr(die, name, &a) || dwarf_formudata(&a, &v) != 0)
		return false;
	*out = v;
	return true;
}

static const char *string_of(Dwarf_Die *die, unsigned name)
{
	Dwarf_Attribute a;
	return dwarf_attr_integrate(die, name, &a) ? dwarf_formstring(&a) : NULL;
}

static void queue_unit(struct reader *r, Dwarf_Die *unit)
{
	uint32_t *seen = map__at(&r->seen, unit->addr);
	if (*seen)
		return;
	*seen = 1;
	vec__push(&r->units, *unit);
}

/* The DIE that an attribute refers to; its unit will be read. */
static bool refer(struct reader *r, Dwarf_Die *die, unsigned name, Dwarf_Die *out)
{
	Dwarf_Attribute a;
	if (!dwarf_attr(die, name, &a))
		return false;
	if (!dwarf_formref_die(&a, out)) {
		bad(r, "a reference leads nowhere");
		return false;
	}
	if (out->cu != r->cu) {
		Dwarf_Die unit;
		if (!dwarf_diecu(out, &unit, NULL, NULL)) {
			bad(r, "a reference leads out of every unit");
			return false;
		}
		queue_unit(r, &unit);
	}
	return true;
}

/* The node of a type DIE, read or yet to be read. */
static uint32_t id_of(struct reader *r, const Dwarf_Die *die)
{
	uint32_t *id = map__at(&r->ids, die->addr);
	if (*id == 0) {
		if (r->t->nodes.n >= NODES_MAX) {
			bad(r, "too many types");
			return 0;
		}
		*id = (uint32_t)r->t->nodes.n;
		vec__push(&r->t->nodes, (struct type_node){.kind = TYPE_UNKNOWN, .unit = r->unit});
	}
	return *id;
}

static uint32_t type_of(struct reader *r, Dwarf_Die *die, unsigned name)
{
	Dwarf_Die type;
	return refer(r, die, name, &type) ? id_of(r, &type) : 0;
}

/* The first child, then the next sibling; false at the end. DW_AT_sibling must lead onwards. */
static bool first_child(struct reader *r, Dwarf_Die *die, Dwarf_Die *child)
{
	int rc = dwarf_child(die, child);
	if (rc < 0)
		bad(r, "the tree of entries is damaged");
	return rc == 0 && !r->bad;
}

static bool next_sibling(struct reader *r, Dwarf_Die *die)
{
	Dwarf_Die next;
	int rc = dwarf_siblingof(die, &next);
	if (rc < 0 || (rc == 0 && (uintptr_t)next.addr <= (uintptr_t)die->addr))
		bad(r, "the tree of entries is damaged");
	if (rc == 0)
		*die = next;
	return rc == 0 && !r->bad;
}

/* --- parts of types --- */

/* Where a member is, in bytes. A place that must be computed in the object (a virtual base class) is
 * told by a hash of how. */
static uint64_t member_offset(struct reader *r, Dwarf_Die *die)
{
	Dwarf_Attribute a;
	Dwarf_Word v = 0;
	Dwarf_Op *ops = NULL;
	size_t n = 0;
	if (!dwarf_attr(die, DW_AT_data_member_location, &a))
		return 0;
	if (dwarf_formudata(&a, &v) == 0)
		return v;
	if (dwarf_getlocation(&a, &ops, &n) == 0 && n == 1 && ops[0].atom == DW_OP_plus_uconst)
		return ops[0].number;
	Dwarf_Block block;
	if (dwarf_formblock(&a, &block) == 0)
		return hash__bytes(HASH_START, block.data, block.length) >> 8;
	bad(r, "a member's place cannot be read");
	return 0;
}

/* Size of the integer that an old-style bit-field lies in. */
static uint64_t storage_size(Dwarf_Die *die)
{
	uint64_t size = 0;
	Dwarf_Die at = *die;
	for (int i = 0; i < ALIAS_MAX; i++) {
		Dwarf_Attribute a;
		Dwarf_Die next;
		if (number_of(&at, DW_AT_byte_size, &size))
			return size;
		if (!dwarf_attr(&at, DW_AT_type, &a) || !dwarf_formref_die(&a, &next))
			return 0;
		at = next;
	}
	return 0;
}

static void place_member(struct reader *r, Dwarf_Die *die, struct type_part *p)
{
	uint64_t bits = 0, bit_offset = 0;
	p->at = member_offset(r, die) * 8;
	if (number_of(die, DW_AT_bit_size, &bits))
		p->bits = bits > UINT32_MAX ? UINT32_MAX : (uint32_t)bits;
	if (number_of(die, DW_AT_data_bit_offset, &bit_offset))
		p->at = bit_offset;
	else if (number_of(die, DW_AT_bit_offset, &bit_offset)) /* counted from the most significant bit */
		p->at += storage_size(die) * 8 - bit_offset - bits;
}

/* A virtual function's slot; false when the function is not virtual, or not one that the source
 * declares: implicit destructors are described only where they are used. */
static bool virtual_slot(Dwarf_Die *die, uint64_t *slot)
{
	uint64_t virtuality = DW_VIRTUALITY_none;
	Dwarf_Attribute a;
	Dwarf_Op *ops = NULL;
	size_t n = 0;
	if (!number_of(die, DW_AT_virtuality, &virtuality) || virtuality == DW_VIRTUALITY_none ||
	    flag_of(die, DW_AT_artificial))
		return false;
	*slot = COUNT_OPEN;
	if (number_of(die, DW_AT_vtable_elem_location, slot))
		return true;
	if (dwarf_attr(die, DW_AT_vtable_elem_location, &a) && dwarf_getlocation(&a, &ops, &n) == 0 && n == 1) {
		if (ops[0].atom >= DW_OP_lit0 && ops[0].atom <= DW_OP_lit31)
			*slot = ops[0].atom - DW_OP_lit0;
		else
			*slot = ops[0].number;
	}
	return true;
}

/* Number of elements in one dimension. */
static uint64_t dimension(Dwarf_Die *die)
{
	uint64_t lower = 0, upper = 0, count = 0;
	if (number_of(die, DW_AT_count, &count))
		return count == 0 ? COUNT_OPEN : count; /* x[0] and x[] take the same room: none */
	number_of(die, DW_AT_lower_bound, &lower);
	if (!number_of(die, DW_AT_upper_bound, &upper) || upper + 1 == lower)
		return COUNT_OPEN;
	return upper - lower + 1;
}

static bool read_part(struct reader *r, Dwarf_Die *die, struct type_part *p)
{
	*p = (struct type_part){.name = types__intern(r->t, dwarf_diename(die))};
	switch (dwarf_tag(die)) {
	case DW_TAG_member:
		if (flag_of(die, DW_AT_external) || flag_of(die, DW_AT_declaration))
			return false; /* a static member, before DWARF 5 */
		p->what = PART_MEMBER;
		p->type = type_of(r, die, DW_AT_type);
		place_member(r, die, p);
		return true;
	case DW_TAG_inheritance:
		p->what = PART_BASE;
		p->type = type_of(r, die, DW_AT_type);
		p->at = member_offset(r, die) * 8;
		return true;
	case DW_TAG_subprogram: {
		if (!virtual_slot(die, &p->at))
			return false;
		const char *linkage = string_of(die, DW_AT_linkage_name);
		p->what = PART_VIRTUAL;
		if (linkage)
			p->name = types__intern(r->t, linkage);
		return true;
	}
	case DW_TAG_enumerator:
		p->what = PART_ENUMERATOR;
		if (!number_of(die, DW_AT_const_value, &p->at))
			p->what = PART_STRANGE;
		return true;
	case DW_TAG_subrange_type:
		p->what = PART_DIMENSION;
		p->at = dimension(die);
		return true;
	case DW_TAG_formal_parameter:
	case DW_TAG_unspecified_parameters:
		p->what = PART_PARAMETER;
		p->type = type_of(r, die, DW_AT_type);
		p->name = dwarf_tag(die) == DW_TAG_formal_parameter ? NULL : types__intern(r->t, "...");
		return true;
	case DW_TAG_variant_part:
	case DW_TAG_generic_subrange:
		p->what = PART_STRANGE;
		return true;
	default:
		return false;
	}
}

static void read_parts(struct reader *r, Dwarf_Die *die, uint32_t id)
{
	Dwarf_Die child;
	size_t first = r->t->parts.n;
	for (bool more = first_child(r, die, &child); more; more = next_sibling(r, &child)) {
		struct type_part p;
		if (r->t->nodes.items[id].kind == TYPE_ARRAY && dwarf_tag(&child) == DW_TAG_enumeration_type)
			p = (struct type_part){.what = PART_STRANGE}; /* an array indexed by an enumeration */
		else if (!read_part(r, &child, &p))
			continue;
		vec__push(&r->t->parts, p);
		if (r->t->parts.n - first > TYPE_PARTS_MAX || r->t->parts.n > PARTS_MAX) {
			bad(r, "a type has too many parts");
			return;
		}
	}
	r->t->nodes.items[id].first = (uint32_t)first;
	r->t->nodes.items[id].n = (uint32_t)(r->t->parts.n - first);
}

/* --- types --- */

static enum type_kind kind_of(int tag)
{
	switch (tag) {
	case DW_TAG_base_type:
	case DW_TAG_unspecified_type: /* decltype(nullptr) */
		return TYPE_BASE;
	case DW_TAG_pointer_type:
		return TYPE_POINTER;
	case DW_TAG_reference_type:
		return TYPE_REFERENCE;
	case DW_TAG_rvalue_reference_type:
		return TYPE_RVALUE_REFERENCE;
	case DW_TAG_ptr_to_member_type:
		return TYPE_MEMBER_POINTER;
	case DW_TAG_structure_type:
	case DW_TAG_class_type:
	case DW_TAG_interface_type:
		return TYPE_STRUCT;
	case DW_TAG_union_type:
		return TYPE_UNION;
	case DW_TAG_enumeration_type:
		return TYPE_ENUM;
	case DW_TAG_array_type:
		return TYPE_ARRAY;
	case DW_TAG_subroutine_type:
		return TYPE_FUNCTION;
	case DW_TAG_typedef:
	case DW_TAG_template_alias:
	case DW_TAG_const_type:
	case DW_TAG_volatile_type:
	case DW_TAG_restrict_type:
	case DW_TAG_atomic_type:
	case DW_TAG_immutable_type:
	case DW_TAG_packed_type:
	case DW_TAG_shared_type:
		return TYPE_ALIAS;
	default:
		return TYPE_UNKNOWN;
	}
}

/* Makes a node stand for another type DIE: what is described elsewhere (a type unit, an abstract
 * instance of a function). */
static bool is_elsewhere(struct reader *r, Dwarf_Die *die, uint32_t id)
{
	static const unsigned attributes[] = {DW_AT_signature, DW_AT_abstract_origin};
	for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++) {
		if (!dwarf_hasattr(die, attributes[i]))
			continue;
		uint32_t target = type_of(r, die, attributes[i]);
		r->t->nodes.items[id].kind = TYPE_ALIAS;
		r->t->nodes.items[id].target = target;
		return true;
	}
	return false;
}

/* A qualified name. A definition outside of its class has the name of the declaration that it completes. */
static const char *qualified(struct reader *r, Dwarf_Die *die, const char *prefix)
{
	Dwarf_Die declaration;
	if (refer(r, die, DW_AT_specification, &declaration)) {
		const char *known = r->t->nodes.items[id_of(r, &declaration)].name;
		if (known)
			return known;
	}
	const char *name = string_of(die, DW_AT_name);
	if (!name || !*prefix)
		return types__intern(r->t, name);
	FREE_CLEANUP char *whole = xasprintf("%s%s", prefix, name);
	return types__intern(r->t, whole);
}

static const char *read_type(struct reader *r, Dwarf_Die *die, const struct scope *s)
{
	int tag = dwarf_tag(die);
	enum type_kind kind = kind_of(tag);
	uint32_t id = id_of(r, die);
	uint64_t v = 0;
	if (r->bad || is_elsewhere(r, die, id))
		return NULL;
	uint32_t target = type_of(r, die, kind == TYPE_MEMBER_POINTER ? DW_AT_containing_type : DW_AT_type);
	const char *name = qualified(r, die, s->types);
	struct type_node *n = &r->t->nodes.items[id];
	*n = (struct type_node){.kind = (uint8_t)kind, .unit = r->unit, .target = target, .name = name};
	n->is_class = tag == DW_TAG_class_type;
	n->declaration = flag_of(die, DW_AT_declaration);
	if (number_of(die, DW_AT_byte_size, &n->size) && kind == TYPE_BASE && number_of(die, DW_AT_encoding, &v))
		n->encoding = (uint8_t)v;
	if (kind == TYPE_POINTER || kind == TYPE_REFERENCE || kind == TYPE_RVALUE_REFERENCE)
		n->size = sizeof(vaddr_t);
	if (number_of(die, DW_AT_alignment, &v))
		n->align = v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
	if (kind >= TYPE_STRUCT && kind <= TYPE_FUNCTION)
		read_parts(r, die, id);
	return name;
}

/* --- variables and code --- */

/* The place of a variable that is nothing but an address, or an offset in the TLS block. */
static bool read_place(Dwarf_Die *die, uint64_t *at, bool *tls)
{
	Dwarf_Attribute a, address;
	Dwarf_Op *ops = NULL;
	size_t n = 0;
	if (!dwarf_attr(die, DW_AT_location, &a) || dwarf_getlocation(&a, &ops, &n) != 0 || n == 0 || n > 2)
		return false;
	*tls = n == 2 && (ops[1].atom == DW_OP_GNU_push_tls_address || ops[1].atom == DW_OP_form_tls_address);
	if (n == 2 && !*tls)
		return false;
	*at = ops[0].number;
	switch (ops[0].atom) {
	case DW_OP_addr:
		return true;
	case DW_OP_const4u:
	case DW_OP_const8u:
	case DW_OP_constu:
		return *tls;
	case DW_OP_addrx:
	case DW_OP_constx:
	case DW_OP_GNU_addr_index:
	case DW_OP_GNU_const_index:
		return dwarf_getlocation_attr(&a, &ops[0], &address) == 0 && dwarf_formaddr(&address, at) == 0;
	default:
		return false;
	}
}

/* The source file that a variable is in: with link-time optimisation its place is described apart. */
static const char *source_of(struct reader *r, Dwarf_Die *die)
{
	Dwarf_Die origin, unit;
	if (!refer(r, die, DW_AT_abstract_origin, &origin) || !dwarf_diecu(&origin, &unit, NULL, NULL))
		return r->t->units.items[r->unit];
	const char *name = string_of(&unit, DW_AT_name);
	return types__intern(r->t, name ? name : "");
}

static void read_variable(struct reader *r, Dwarf_Die *die, const struct scope *s)
{
	struct type_static v = {.unit = NULL};
	Dwarf_Attribute a;
	Dwarf_Die type;
	bool tls = false;
	if (!read_place(die, &v.at, &tls))
		return;
	v.offset = v.at;
	v.section = types__intern(r->t, "TLS");
	if (!tls) {
		const struct elf_section *sec = elf_file__section_at(r->e, v.at);
		if (!sec || !(sec->h.sh_flags & SHF_WRITE))
			return;
		v.section = types__intern(r->t, sec->name);
		v.offset = v.at - sec->h.sh_addr;
	}
	v.unit = source_of(r, die);
	const char *name = string_of(die, DW_AT_name);
	const char *linkage = dwarf_hasattr(die, DW_AT_specification) ? string_of(die, DW_AT_linkage_name) : NULL;
	FREE_CLEANUP char *whole =
	    linkage ? xstrdup(linkage) : xasprintf("%s%s", s->statics, name ? name : "(unnamed)");
	v.name = types__intern(r->t, whole);
	if (dwarf_attr_integrate(die, DW_AT_type, &a)) {
		Dwarf_Die unit;
		if (!dwarf_formref_die(&a, &type) || !dwarf_diecu(&type, &unit, NULL, NULL)) {
			bad(r, "a variable's type leads nowhere");
			return;
		}
		queue_unit(r, &unit);
		v.id = id_of(r, &type);
	}
	vec__push(&r->t->statics, v);
}

static void read_function(struct reader *r, Dwarf_Die *die)
{
	Dwarf_Addr base = 0, start = 0, end = 0;
	Dwarf_Attribute a;
	if (!r->knows_types || (!dwarf_attr_integrate(die, DW_AT_decl_file, &a) && !flag_of(die, DW_AT_artificial)))
		return;
	ptrdiff_t at = 0;
	for (size_t n = 0; n < RANGES_MAX && (at = dwarf_ranges(die, at, &base, &start, &end)) > 0; n++)
		if (end > start)
			vec__push(&r->t->code, (struct vrange){start, end});
}

/* --- the tree --- */

static const char *extend(struct reader *r, const char *prefix, const char *name)
{
	FREE_CLEANUP char *s = xasprintf("%s%s::", prefix, name);
	return types__intern(r->t, s);
}

static void read_children(struct reader *r, Dwarf_Die *die, const struct scope *s);

static void read_die(struct reader *r, Dwarf_Die *die, const struct scope *s)
{
	struct scope inner = *s;
	const char *name = NULL;
	Dwarf_Die unit;
	int tag = dwarf_tag(die);
	if (kind_of(tag) != TYPE_UNKNOWN) {
		name = read_type(r, die, s);
		if (dwarf_haschildren(die) > 0) {
			if (name)
				inner.types = inner.statics = extend(r, "", name);
			read_children(r, die, &inner);
		}
		return;
	}
	switch (tag) {
	case DW_TAG_invalid:
		bad(r, "an entry cannot be read");
		return;
	case DW_TAG_variable:
		read_variable(r, die, s);
		return;
	case DW_TAG_imported_unit:
		refer(r, die, DW_AT_import, &unit);
		return;
	case DW_TAG_member:
	case DW_TAG_formal_parameter:
	case DW_TAG_enumerator:
	case DW_TAG_subrange_type:
	case DW_TAG_call_site:
	case DW_TAG_GNU_call_site:
	case DW_TAG_label:
		return;
	case DW_TAG_namespace:
		name = string_of(die, DW_AT_name);
		name = name ? name : "(anonymous namespace)";
		inner.types = extend(r, s->types, name);
		inner.statics = extend(r, s->statics, name);
		break;
	case DW_TAG_subprogram:
		read_function(r, die);
		/* fall through */
	case DW_TAG_inlined_subroutine:
		if (dwarf_haschildren(die) > 0 && (name = string_of(die, DW_AT_name)))
			inner.statics = extend(r, s->types, name);
		break;
	default:
		break;
	}
	if (dwarf_haschildren(die) > 0)
		read_children(r, die, &inner);
}

// NOLINTNEXTLINE(misc-no-recursion): as deep as TYPE_DEPTH_MAX
static void read_children(struct reader *r, Dwarf_Die *die, const struct scope *s)
{
	struct scope inner = *s;
	Dwarf_Die child;
	if (++inner.depth > TYPE_DEPTH_MAX) {
		bad(r, "entries are nested too deep");
		return;
	}
	for (bool more = first_child(r, die, &child); more; more = next_sibling(r, &child)) {
		/* A sibling inside of its sibling's children would have them read twice, at each level. */
		if ((uintptr_t)child.addr <= r->last) {
			bad(r, "the tree of entries is damaged");
			return;
		}
		r->last = (uintptr_t)child.addr;
		read_die(r, &child, &inner);
	}
}

/* Line numbers only? gcc records its options, of which the last -g counts; clang leaves the
 * functions' places out, see read_function(). */
static bool line_numbers_only(Dwarf_Die *unit)
{
	const char *producer = string_of(unit, DW_AT_producer);
	bool only = false;
	for (const char *p = producer; p && (p = strstr(p, " -g")); p += 3)
		if (p[3] == '\0' || p[3] == ' ' || (p[3] >= '0' && p[3] <= '3'))
			only = p[3] == '1';
	return only;
}

static void read_unit(struct reader *r, Dwarf_Die *unit)
{
	const struct scope whole = {.types = "", .statics = ""};
	const char *name = string_of(unit, DW_AT_name);
	r->cu = unit->cu;
	r->last = (uintptr_t)unit->addr;
	r->unit = (uint32_t)r->t->units.n;
	r->knows_types = !line_numbers_only(unit);
	vec__push(&r->t->units, types__intern(r->t, name ? name : ""));
	read_children(r, unit, &whole);
}

static void read_all(struct reader *r, Dwarf *dw)
{
	Dwarf_CU *cu = NULL;
	Dwarf_Die unit, split;
	uint8_t type = 0;
	int rc = 0;
	while ((rc = dwarf_get_units(dw, cu, &cu, NULL, &type, &unit, &split)) == 0) {
		if (dwarf_tag(&unit) == DW_TAG_invalid) {
			bad(r, "a unit cannot be read");
			return;
		}
		if (type == DW_UT_skeleton && !split.addr)
			r->incomplete = "its .dwo files are missing";
		queue_unit(r, type == DW_UT_skeleton && split.addr ? &split : &unit);
	}
	if (rc < 0)
		bad(r, "a unit cannot be read");
	for (size_t i = 0; i < r->units.n && !r->bad && !r->incomplete; i++) {
		Dwarf_Die copy = r->units.items[i]; /* the list grows meanwhile */
		read_unit(r, &copy);
	}
}

static int compare_ranges(const void *a, const void *b)
{
	const struct vrange *x = a, *y = b;
	return (x->start > y->start) - (x->start < y->start);
}

static void merge_ranges(struct types *t)
{
	size_t n = 0;
	if (t->code.n == 0)
		return;
	qsort(t->code.items, t->code.n, sizeof(*t->code.items), compare_ranges);
	for (size_t i = 1; i < t->code.n; i++) {
		struct vrange *last = &t->code.items[n], *it = &t->code.items[i];
		if (it->start <= last->end)
			last->end = it->end > last->end ? it->end : last->end;
		else
			t->code.items[++n] = *it;
	}
	t->code.n = n + 1;
}

static int compare_statics(const void *a, const void *b)
{
	const struct type_static *x = a, *y = b;
	int c = strcmp(x->name, y->name);
	return c ? c : (x->at > y->at) - (x->at < y->at);
}

/* Sorts; an inlined function's variable is described wherever it was inlined. */
static void finish_statics(struct types *t)
{
	size_t n = 0;
	if (t->statics.n)
		qsort(t->statics.items, t->statics.n, sizeof(*t->statics.items), compare_statics);
	for (size_t i = 0; i < t->statics.n; i++) {
		struct type_static *v = &t->statics.items[i];
		if (n && compare_statics(&t->statics.items[n - 1], v) == 0 &&
		    t->statics.items[n - 1].section == v->section)
			continue;
		t->statics.items[n++] = *v;
	}
	t->statics.n = n;
	for (size_t i = 0; i < n; i++) {
		FREE_CLEANUP char *text = types__text(t, t->statics.items[i].id);
		t->statics.items[i].type = types__intern(t, text);
		t->statics.items[i].size = types__size(t, t->statics.items[i].id);
	}
}

struct err *types__read(struct types *t, Dwarf *dw, const struct elf_file *e)
{
	struct reader r = {.t = t, .e = e};
	struct err *failed = NULL;
	read_all(&r, dw);
	if (r.bad) {
		failed = err__new(ERR_UNREADABLE, 0, t->source, NULL, "damaged debug information: %s", r.bad);
	} else if (r.incomplete) {
		char *why = xasprintf("none: %s: %s", t->source, r.incomplete);
		free(t->source);
		t->source = why;
	} else {
		t->found = true;
		merge_ranges(t);
		failed = types__index(t);
		if (!failed)
			finish_statics(t);
	}
	map__free(&r.ids);
	map__free(&r.seen);
	vec__free(&r.units);
	return failed;
}
