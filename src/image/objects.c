/* See objects.h. One pass over each function in address order; at a label the knowledge of all earlier
 * jumps to it is met: what they agree on is kept. */
#include "image/objects.h"

#include <string.h>

#include "arch/detail.h"
#include "image/classes.h"

/* ---- what is known at one place of a function ---- */

struct value {
	uint32_t class;      /* CLASS_UNKNOWN: no address that is known */
	int64_t offset;      /* into the object */
	vaddr_t constant_at; /* where a constant was set, 0 for none */
	int8_t argument;     /* the function's own argument, plus 1; 0: not one, or not only */
	bool loaded;         /* comes from memory, or may */
	uint8_t shift;       /* the value has since been shifted right so far */
	uint32_t from_class; /* the object that it was loaded from, CLASS_UNKNOWN: cannot be told */
	int64_t from;        /* and the offset there */
	uint32_t result_of;  /* the function of the library that gave it, by name, plus 1 */
};

static const struct value from_memory = {.loaded = true};

enum { KNOWS_RESULT = 1 << 7 };
enum { SLOTS = 48, OFFSET_UNKNOWN = INT32_MIN /* far from all slots of a stack */ };

struct state {
	struct value reg[REG_COUNT];
	struct {
		int64_t at; /* relative to the stack pointer on entry */
		struct value v;
	} slot[SLOTS];
	unsigned n_slots;
};

struct label {
	vaddr_t at;
	struct state *state;
};

/* A call in function `caller` of a build. */
struct call {
	uint32_t caller, of; /* how many calls of that callee the caller makes */
	uint64_t callee;     /* the name of a function, or a hash of an import's with IS_IMPORT */
	vaddr_t insn;
};

#define IS_IMPORT ((uint64_t)1 << 63)

/* A function hands its own argument on, or returns what it was given: what the callee knows and uses as a size, it
 * knows and uses, too. */
struct handed_on {
	uint64_t caller, callee; /* names */
	int8_t argument, as;     /* the caller's argument, from 1, as the callee's, from 0; argument 0: the result */
	bool whole;              /* as it is, not a sum */
};

struct pass {
	const struct planner *x;
	struct classes *classes;
	const struct code *code;
	bool new;
	struct objects *out;
	uint8_t *size_params; /* bit i: argument i of the function ends up as a size; by name of function */
	uint8_t *knows;       /* bit i: the function accesses what its argument i leads to, or hands it on to one that
				 does; KNOWS_RESULT: accesses what its result leads to. By name of function */
	uint32_t serial;      /* of the function being followed */
	VEC(struct handed_on) handed_on; /* of this build, noted in the first round */
	VEC(struct call) calls;          /* of this build, noted in the first round; then sorted by instruction */
	bool first;
	const struct function *f;
	int32_t index;
	struct state s;
	VEC(struct label) labels;
	struct state orphan; /* at the last indirect jump: what a switch's cases start with */
	bool has_orphan;
	uint8_t *seen; /* by place in the function: length of the instruction that was followed there */
	size_t seen_size;
	bool used_stack;
	bool skipped; /* something was not reached yet */
	bool record;
};

/* Functions have one number in both builds: that of the old one. */
static uint64_t function_id(const struct pass *p, int32_t i)
{
	if (!p->new)
		return (uint64_t)i;
	int32_t old = p->x->p->match->b_to_a[i];
	return old >= 0 ? (uint64_t)old : p->code->functions.n + p->x->p->live_code->functions.n + (uint64_t)i;
}

static struct value *slot_at(struct state *s, int64_t at)
{
	for (unsigned i = 0; i < s->n_slots; i++)
		if (s->slot[i].at == at)
			return &s->slot[i].v;
	return NULL;
}

static void set_slot(struct state *s, int64_t at, struct value v)
{
	struct value *p = slot_at(s, at);
	if (p) {
		*p = v;
	} else if (s->n_slots < SLOTS) {
		s->slot[s->n_slots].at = at;
		s->slot[s->n_slots++].v = v;
	}
}

static bool same_value(const struct pass *p, const struct value *a, const struct value *b)
{
	return a->class && b->class && classes__find(p->classes, a->class) == classes__find(p->classes, b->class) &&
	       a->offset == b->offset;
}

static void meet(const struct pass *p, struct state *into, const struct state *from)
{
	for (unsigned i = 0; i < REG_COUNT; i++) {
		bool loaded = into->reg[i].loaded || from->reg[i].loaded;
		if (!same_value(p, &into->reg[i], &from->reg[i]))
			into->reg[i] = (struct value){0};
		into->reg[i].loaded = loaded;
	}
	for (unsigned i = 0; i < into->n_slots; i++) {
		struct value *v = slot_at((struct state *)from, into->slot[i].at);
		if (!v || !same_value(p, &into->slot[i].v, v))
			into->slot[i].v = from_memory;
	}
}

static struct label *label_at(struct pass *p, vaddr_t at)
{
	for (size_t i = p->labels.n; i-- > 0;)
		if (p->labels.items[i].at == at)
			return &p->labels.items[i];
	return NULL;
}

static void flows_to(struct pass *p, vaddr_t target)
{
	if (target < p->f->start || target >= p->f->end || p->seen[target - p->f->start])
		return; /* a loop's head has been passed already */
	struct label *l = label_at(p, target);
	if (l) {
		meet(p, l->state, &p->s);
		return;
	}
	struct label n = {target, xmemdup(&p->s, sizeof(p->s))};
	vec__push(&p->labels, n);
}

/* ---- single instructions ---- */

static struct value load(struct pass *p, struct value base, int64_t disp, bool indexed)
{
	if (base.class == CLASS_STACK) {
		struct value *v = indexed ? NULL : slot_at(&p->s, base.offset + disp);
		return v ? *v : from_memory;
	}
	if (base.class == CLASS_UNKNOWN)
		return from_memory;
	uint32_t object = indexed ? classes__child(p->classes, base.class, NAME_INDEX, 0) : base.class;
	return (struct value){.class = classes__child(p->classes, object, NAME_LOAD, base.offset + disp),
			      .loaded = true};
}

/* The object that a RIP-relative operand means: data of the library, by where it lives. */
static struct value data_object(struct pass *p, vaddr_t target)
{
	vaddr_t home = p->new ? layout__home(p->x, target) : layout__home_of_live(p->x, target);
	bool data = elf_file__is_data(p->code->elf, target);
	return data && home ? (struct value){.class = classes__named(p->classes, NAME_DATA, home, 0)}
			    : (struct value){0};
}

/* What a slot of the GOT holds: the address of the library's own data, or something foreign. */
static struct value got_value(struct pass *p, vaddr_t slot)
{
	const struct elf_file *e = p->code->elf;
	const struct elf_reloc *r = elf_file__reloc_at(e, slot);
	vaddr_t to = 0;
	if (r && r->type == R_X86_64_RELATIVE)
		to = (vaddr_t)r->addend;
	else if (r && r->symbol && e->symbols[r->symbol].s.st_shndx != SHN_UNDEF && r->type == R_X86_64_GLOB_DAT)
		to = e->symbols[r->symbol].s.st_value;
	return to && elf_file__is_data(e, to) ? data_object(p, to) : (struct value){0};
}

static bool is_got_slot(const struct pass *p, vaddr_t target)
{
	const struct elf_section *s = elf_file__section_at(p->code->elf, target);
	return s && strncmp(s->name, ".got", 4) == 0;
}

static struct value load_data(struct pass *p, vaddr_t target)
{
	return is_got_slot(p, target) ? got_value(p, target) : load(p, data_object(p, target), 0, false);
}

/* The object that a memory operand is in, and the offset there. */
static uint32_t object_at(struct pass *p, const struct insn_detail *d, int64_t *offset)
{
	struct value base = p->s.reg[d->base];
	*offset = base.class ? base.offset + d->disp : d->disp;
	return d->index != REG_NONE && base.class > CLASS_STACK ? classes__child(p->classes, base.class, NAME_INDEX, 0)
								: base.class;
}

static void now_knows(struct pass *p, uint8_t what)
{
	p->knows[function_id(p, p->index)] |= what;
}

static void note_access(struct pass *p, const struct insn_detail *d, vaddr_t at)
{
	if (d->rip || d->base == REG_NONE || (d->size == 0 && d->op != OP_ADDRESS))
		return;
	struct value base = p->s.reg[d->base];
	if (base.class == CLASS_STACK || d->base == arch_abi.stack)
		return;
	if (base.class && d->op != OP_ADDRESS) {
		p->classes->items[classes__find(p->classes, base.class)].touched = p->serial;
		if (base.argument)
			now_knows(p, (uint8_t)(1u << (base.argument - 1)));
	}
	if (!p->record)
		return;
	int64_t offset;
	uint32_t class = object_at(p, d, &offset);
	struct access a = {.class = class,
			   .function = p->index,
			   .insn = at,
			   .offset = offset,
			   .size = d->size,
			   .stores = d->op == OP_STORE,
			   .scale = d->scale,
			   .forms_address = d->op == OP_ADDRESS};
	if (p->new)
		vec__push(&p->out->new, a);
	else
		vec__push(&p->out->old, a);
}

static void note_size(struct pass *p, struct value v)
{
	if (v.argument)
		p->size_params[function_id(p, p->index)] |= (uint8_t)(1u << (v.argument - 1));
	if (v.constant_at && v.class != CLASS_STACK && p->new && p->record) {
		struct size_argument s = {p->index, v.constant_at};
		vec__push(&p->out->sizes, s);
	}
}

/* Arguments of well-known functions that are sizes of objects: bit i for argument i. */
static uint8_t sizes_of_import(const char *name)
{
	static const struct {
		const char *name;
		uint8_t sizes;
	} known[] = {
	    {"malloc", 1},         {"calloc", 3},         {"realloc", 2},       {"reallocarray", 6},
	    {"aligned_alloc", 2},  {"posix_memalign", 4}, {"memalign", 2},      {"memset", 4},
	    {"memcpy", 4},         {"memmove", 4},        {"mempcpy", 4},       {"__memcpy_chk", 4},
	    {"__memset_chk", 4},   {"__memmove_chk", 4},  {"g_malloc", 1},      {"g_malloc0", 1},
	    {"g_realloc", 2},      {"g_malloc_n", 3},     {"g_malloc0_n", 3},   {"g_slice_alloc", 1},
	    {"g_slice_alloc0", 1}, {"g_slice_free1", 1},  {"g_memdup2", 2},     {"CRYPTO_malloc", 1},
	    {"CRYPTO_zalloc", 1},  {"CRYPTO_realloc", 2}, {"CRYPTO_memdup", 2}, {"OPENSSL_cleanse", 2},
	    {"_Znwm", 1},          {"_Znam", 1},          {"_ZdlPvm", 2},       {"bzero", 2},
	    {"explicit_bzero", 2}, {"xmlMalloc", 1},      {"xmlRealloc", 2},
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i].name, name) == 0)
			return known[i].sizes;
	return 0;
}

static void lose_registers(struct pass *p)
{
	for (unsigned i = 0; i < REG_COUNT; i++)
		if (arch_abi.lost_by_calls & (1u << i))
			p->s.reg[i] = (struct value){0};
}

static void note_call(struct pass *p, uint64_t callee, vaddr_t at)
{
	struct call c = {.caller = (uint32_t)p->index, .callee = callee, .insn = at};
	if (p->first)
		vec__push(&p->calls, c);
}

static const struct call *call_at(const struct pass *p, vaddr_t insn)
{
	size_t lo = 0, hi = p->calls.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (p->calls.items[mid].insn < insn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < p->calls.n && p->calls.items[lo].insn == insn ? &p->calls.items[lo] : NULL;
}

/* What a function gives that hands out objects of any type (an allocation, an element of a list) is of a class of
 * its own for each call. Which call of the one build is which of the other is certain only where there is one. */
static struct value result_of_call(struct pass *p, vaddr_t at)
{
	const struct call *c = p->first ? NULL : call_at(p, at);
	if (!c)
		return from_memory;
	int64_t which = c->of == 1 ? (int64_t)c->callee : (int64_t)(2 * at + p->new);
	return (struct value){.class = classes__named(p->classes, c->of == 1 ? NAME_ONLY_CALL : NAME_CALL,
						      function_id(p, p->index), which),
			      .loaded = true};
}

/* An argument and the callee's parameter are of one type when the callee knows anything of it: what stores, frees or
 * allocates for everybody must not make one class of all. */
static void hand_over(struct pass *p, uint64_t callee, unsigned i)
{
	struct value v = p->s.reg[arch_abi.arg[i]];
	uint32_t parameter = classes__named(p->classes, NAME_ARGUMENT, callee, i);
	bool knows = p->knows[callee] & (1u << i);
	if (v.class > CLASS_STACK && v.offset == 0 && knows)
		classes__join(p->classes, parameter, v.class);
	else if (v.class == CLASS_STACK)
		p->classes->items[classes__find(p->classes, parameter)].on_stack = true;
	else
		classes__mark_elsewhere(p->classes, parameter);
	if (v.argument && p->first) {
		struct handed_on h = {function_id(p, p->index), callee, v.argument, (int8_t)i, v.offset == 0};
		vec__push(&p->handed_on, h);
	}
	if (p->size_params[callee] & (1u << i))
		note_size(p, v);
}

static void give_result(struct pass *p, struct value v)
{
	if (p->first && v.result_of) {
		struct handed_on h = {.caller = function_id(p, p->index), .callee = v.result_of - 1};
		vec__push(&p->handed_on, h);
	}
	if (v.class <= CLASS_STACK || v.offset != 0 ||
	    p->classes->items[classes__find(p->classes, v.class)].touched != p->serial)
		return;
	now_knows(p, KNOWS_RESULT);
	classes__join(p->classes, classes__named(p->classes, NAME_RESULT, function_id(p, p->index), 0), v.class);
}

static void call_function(struct pass *p, int32_t callee, bool comes_back, vaddr_t at)
{
	uint64_t id = function_id(p, callee);
	note_call(p, id, at);
	for (unsigned i = 0; i < 6; i++)
		hand_over(p, id, i);
	lose_registers(p);
	struct value result;
	if (p->knows[id] & KNOWS_RESULT) {
		result = (struct value){.class = classes__named(p->classes, NAME_RESULT, id, 0), .loaded = true};
		p->classes->items[classes__find(p->classes, result.class)].touched = p->serial;
	} else {
		result = result_of_call(p, at);
	}
	result.result_of = (uint32_t)id + 1;
	if (comes_back)
		p->s.reg[arch_abi.result] = result;
	else
		give_result(p, result);
}

static uint64_t hash_name(const char *s)
{
	uint64_t h = 0xcbf29ce484222325ULL;
	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 0x100000001b3ULL; /* FNV-1a */
	return h;
}

static bool frees(const char *name)
{
	static const char *const names[] = {"free", "g_free", "CRYPTO_free", "_ZdlPv", "_ZdlPvm", "cfree"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

static void call_import(struct pass *p, const char *name, vaddr_t at)
{
	uint8_t sizes = name ? sizes_of_import(name) : 0;
	if (name)
		note_call(p, hash_name(name) | IS_IMPORT, at);
	for (unsigned i = 0; i < 6; i++)
		if (sizes & (1u << i))
			note_size(p, p->s.reg[arch_abi.arg[i]]);
	if (name && frees(name) && p->s.reg[arch_abi.arg[0]].class > CLASS_STACK)
		p->classes->items[classes__find(p->classes, p->s.reg[arch_abi.arg[0]].class)].freed = true;
	/* through a pointer nobody knows what is called; a constant as its first argument may be a size */
	if (!name)
		note_size(p, p->s.reg[arch_abi.arg[0]]);
	lose_registers(p);
	p->s.reg[arch_abi.result] = name ? result_of_call(p, at) : from_memory;
}

/* A call of an import; of the library's own function where it exports what it calls by name. */
static void call_symbol(struct pass *p, uint32_t symbol, bool comes_back, vaddr_t at)
{
	const struct elf_symbol *s = symbol ? &p->code->elf->symbols[symbol] : NULL;
	const struct function *f =
	    s && s->s.st_shndx != SHN_UNDEF ? code__function_starting(p->code, s->function) : NULL;
	if (f)
		call_function(p, (int32_t)(f - p->code->functions.items), comes_back, at);
	else
		call_import(p, s ? s->name : NULL, at);
}

static void call(struct pass *p, const struct insn *i, bool comes_back, vaddr_t at)
{
	const struct elf_reloc *got =
	    i->has_target && !i->is_branch ? elf_file__reloc_at(p->code->elf, i->target) : NULL;
	const struct function *f = i->is_branch ? code__function_at(p->code, i->target) : NULL;
	if (f && !f->plt)
		call_function(p, (int32_t)(f - p->code->functions.items), comes_back, at);
	else if (i->is_branch)
		call_symbol(p, code__plt_import(p->code, i->target), comes_back, at);
	else
		call_symbol(p, got ? got->symbol : 0, comes_back, at);
}

/* Does the instruction work on something that was loaded, or in memory itself? */
static bool works_on_loaded(const struct pass *p, const struct insn_detail *d)
{
	uint16_t read = d->read;
	if (d->has_mem && d->size)
		return true;
	if (d->has_mem) /* lea */
		read |=
		    (uint16_t)((d->base != REG_NONE ? 1u << d->base : 0) | (d->index != REG_NONE ? 1u << d->index : 0));
	for (unsigned k = 0; k < REG_COUNT; k++)
		if ((read & (1u << k)) && p->s.reg[k].loaded)
			return true;
	return false;
}

/* Where what an instruction works on was loaded from. */
static struct value origin_of(struct pass *p, const struct insn_detail *d)
{
	struct value v = {.loaded = works_on_loaded(p, d)};
	if (d->has_mem && d->size && d->size <= 8 && d->base != REG_NONE && !d->rip) {
		v.from_class = object_at(p, d, &v.from);
	} else {
		for (unsigned k = 0; k < REG_COUNT && !v.from_class && !v.from; k++)
			if ((d->read & (1u << k)) && (p->s.reg[k].from_class || p->s.reg[k].from)) {
				v.from_class = p->s.reg[k].from_class;
				v.from = p->s.reg[k].from;
				v.shift = p->s.reg[k].shift;
			}
	}
	if (v.from_class == CLASS_STACK) {
		v.from_class = CLASS_UNKNOWN;
		v.from = 0;
	}
	return v;
}

static void note_bits(struct pass *p, const struct insn_detail *d, vaddr_t at)
{
	if (!d->picks_bits || !p->record || !works_on_loaded(p, d))
		return;
	struct value v = origin_of(p, d);
	struct bits_picked b = {.insn = at,
				.function = p->index,
				.class = v.from_class,
				.offset = v.from,
				.bits = v.shift < 64 ? d->bits << v.shift : 0,
				.clears = d->clears};
	if (p->new)
		vec__push(&p->out->new_bits, b);
	else
		vec__push(&p->out->old_bits, b);
}

static void move_stack(struct pass *p, int64_t by)
{
	p->s.reg[arch_abi.stack].offset += by;
	p->used_stack = true;
}

static void step(struct pass *p, const struct insn_detail *d, vaddr_t at)
{
	struct value *r = p->s.reg;
	struct value result = {0};
	if (d->has_mem)
		note_access(p, d, at);
	note_bits(p, d, at);
	switch (d->op) {
	case OP_COPY:
		result = r[d->src];
		break;
	case OP_ADD:
		result = r[d->dst];
		result.offset += d->imm;
		result.constant_at = at; /* part of a size, if it is one */
		break;
	case OP_SET:
		result.constant_at = at;
		break;
	case OP_ADDRESS:
		if (d->rip) {
			result = data_object(p, d->target);
		} else if (d->base != REG_NONE && !r[d->base].class) {
			result.constant_at = at;
		} else if (d->base != REG_NONE) {
			result = r[d->base];
			result.offset += d->disp;
			result.constant_at = at;
			if (d->index != REG_NONE)
				result = r[d->base].class == CLASS_STACK
					     ? (struct value){0}
					     : (struct value){
						   .class = classes__child(p->classes, r[d->base].class, NAME_INDEX, 0),
						   .offset = d->disp};
		}
		break;
	case OP_LOAD:
		if (d->rip)
			result = load_data(p, d->target);
		else if (d->base != REG_NONE)
			result = load(p, r[d->base], d->disp, d->index != REG_NONE);
		if (d->base != REG_NONE && !d->rip && r[d->base].class > CLASS_STACK)
			result.from_class = object_at(p, d, &result.from);
		break;
	case OP_STORE:
		if (d->base != REG_NONE && !d->rip && d->index == REG_NONE && r[d->base].class == CLASS_STACK) {
			set_slot(&p->s, r[d->base].offset + d->disp, r[d->src]);
		} else if (r[d->src].class > CLASS_STACK && r[d->src].offset == 0) {
			struct value to = d->rip ? load(p, data_object(p, d->target), 0, false)
						 : load(p, d->base == REG_NONE ? (struct value){0} : r[d->base],
							d->disp, d->index != REG_NONE);
			if (to.class > CLASS_STACK)
				classes__join(p->classes, to.class, r[d->src].class);
		}
		return;
	case OP_PUSH:
		move_stack(p, -8);
		set_slot(&p->s, r[arch_abi.stack].offset, d->src == REG_NONE ? (struct value){0} : r[d->src]);
		return;
	case OP_POP: {
		struct value *v = slot_at(&p->s, r[arch_abi.stack].offset);
		result = v ? *v : from_memory;
		move_stack(p, 8);
		break;
	}
	default:
		result = origin_of(p, d);
		if (d->shift)
			result.shift = (uint8_t)(result.shift + d->shift < 64 ? result.shift + d->shift : 64);
		else if (d->picks_bits && !d->bits)
			result = (struct value){.loaded = result.loaded}; /* to the left: bits are elsewhere now */
		for (unsigned k = 0; k < REG_COUNT; k++)
			if ((d->written & (1u << k)) && k != (unsigned)arch_abi.stack)
				r[k] = result;
		return;
	}
	r[d->dst] = result;
}

/* ---- one function ---- */

static void enter(struct pass *p)
{
	uint64_t id = function_id(p, p->index);
	p->s = (struct state){0};
	for (unsigned i = 0; i < 6; i++)
		p->s.reg[arch_abi.arg[i]] = (struct value){.class = classes__named(p->classes, NAME_ARGUMENT, id, i),
							   .argument = (int8_t)(i + 1)};
	p->s.reg[arch_abi.stack] = (struct value){.class = CLASS_STACK};
	p->has_orphan = false;
	p->used_stack = false;
}

/* Takes over what is known at a label. `reached`: the code before it runs on into it. False: nothing is known of
 * how this place is reached. */
static bool arrive(struct pass *p, vaddr_t at, bool reached)
{
	struct label *l = label_at(p, at);
	if (l) {
		if (reached)
			meet(p, l->state, &p->s);
		p->s = *l->state;
		free(l->state);
		*l = p->labels.items[--p->labels.n];
		return true;
	}
	return reached;
}

/* A case of a switch, or code that is reached in a way that cannot be seen. */
static void start_anew(struct pass *p)
{
	if (p->has_orphan) {
		p->s = p->orphan;
		return;
	}
	memset(&p->s, 0, sizeof(p->s));
	for (unsigned i = 0; i < REG_COUNT; i++)
		p->s.reg[i] = from_memory;
	p->s.reg[arch_abi.stack] = (struct value){.class = CLASS_STACK, .offset = OFFSET_UNKNOWN};
}

/* An indirect jump with the stack as it was on entry ends the function; other ones are a switch. */
static bool is_tail_call(const struct pass *p)
{
	const struct value *sp = &p->s.reg[arch_abi.stack];
	return sp->class == CLASS_STACK && sp->offset == 0 && p->used_stack;
}

/* One instruction. False: what comes behind it is not reached from here. */
static bool follow_insn(struct pass *p, const struct insn *i, const struct insn_detail *d, vaddr_t at)
{
	bool outside = i->is_branch && (i->target < p->f->start || i->target >= p->f->end);
	if (i->flow == FLOW_CALL || i->flow == FLOW_CALL_INDIRECT) {
		struct insn_detail target = {.op = OP_OTHER,
					     .has_mem = d->has_mem,
					     .base = d->base,
					     .index = d->index,
					     .rip = d->rip,
					     .disp = d->disp,
					     .size = d->size};
		step(p, &target, at);
		call(p, i, true, at);
	} else if (i->is_branch && outside && i->flow == FLOW_JUMP) {
		call(p, i, false, at); /* a tail call */
	} else if (i->is_branch) {
		flows_to(p, i->target);
	} else {
		step(p, d, at);
		if (i->flow == FLOW_STOP) {
			if ((d->has_mem || d->dst != REG_NONE || d->written == 0) && !is_tail_call(p)) {
				p->orphan = p->s;
				p->has_orphan = true;
			}
			give_result(p, p->s.reg[arch_abi.result]);
		}
	}
	return i->flow != FLOW_STOP && i->flow != FLOW_JUMP;
}

/* Goes through the function in address order. Code that nothing has led to yet is left for a later sweep, until
 * `last`, which takes it without any knowledge. Returns whether there was anything to do. */
static bool sweep(struct pass *p, const uint8_t *bytes, bool last)
{
	bool reached = false, any = false;
	p->skipped = false;
	for (vaddr_t at = p->f->start; at < p->f->end;) {
		uint8_t *seen = &p->seen[at - p->f->start];
		struct insn i;
		struct insn_detail d;
		if (*seen) {
			at += *seen;
			reached = false;
			continue;
		}
		if (!insn__detail(bytes + (at - p->f->start), p->f->end - at, at, &i, &d))
			break;
		if (!arrive(p, at, reached)) {
			if (!last) {
				p->skipped = true;
				at += i.len;
				continue;
			}
			start_anew(p);
		}
		any = true;
		*seen = i.len;
		reached = follow_insn(p, &i, &d, at);
		at += i.len;
	}
	return any;
}

static void follow_function(struct pass *p, int32_t index)
{
	p->index = index;
	p->serial = ++p->classes->serial;
	p->f = &p->code->functions.items[index];
	size_t len = p->f->end - p->f->start;
	const uint8_t *bytes = elf_file__at(p->code->elf, p->f->start, len);
	if (!bytes)
		return;
	if (len > p->seen_size) {
		p->seen = xreallocarray(p->seen, len, 1);
		p->seen_size = len;
	}
	memset(p->seen, 0, len);
	enter(p);
	flows_to(p, p->f->start);
	while (sweep(p, bytes, false) && p->skipped)
		;
	if (p->skipped)
		sweep(p, bytes, true);
	for (size_t k = 0; k < p->labels.n; k++)
		free(p->labels.items[k].state);
	p->labels.n = 0;
}

/* ---- both builds ---- */

static int by_callee(const void *a, const void *b)
{
	const struct call *x = a, *y = b;
	if (x->caller != y->caller)
		return x->caller < y->caller ? -1 : 1;
	return (x->callee > y->callee) - (x->callee < y->callee);
}

static int by_place(const void *a, const void *b)
{
	const struct call *x = a, *y = b;
	return (x->insn > y->insn) - (x->insn < y->insn);
}

static void count_calls(struct pass *p)
{
	struct call *c = p->calls.items;
	if (!p->calls.n)
		return;
	qsort(c, p->calls.n, sizeof(*c), by_callee);
	for (size_t i = 0, end; i < p->calls.n; i = end) {
		for (end = i; end < p->calls.n && c[end].caller == c[i].caller && c[end].callee == c[i].callee;)
			end++;
		for (size_t k = i; k < end; k++)
			c[k].of = (uint32_t)(end - i);
	}
	qsort(c, p->calls.n, sizeof(*c), by_place);
}

/* Of the new build only what is not the same in the old one, which was followed there. */
static void run(struct pass *p)
{
	for (size_t i = 0; i < p->code->functions.n; i++)
		if (!p->code->functions.items[i].plt && !(p->new && p->x->p->match->same_code[i]))
			follow_function(p, (int32_t)i);
}

/* What each function says of its own arguments and result. */
static void look_first(struct pass *p)
{
	p->first = true;
	run(p);
	p->first = false;
	count_calls(p);
}

/* What callees know, callers know too. Returns whether that is anything new. */
static bool pass_up(struct pass *p)
{
	bool any = false;
	for (size_t i = 0; i < p->handed_on.n; i++) {
		const struct handed_on *h = &p->handed_on.items[i];
		uint8_t *knows = &p->knows[h->caller], *sizes = &p->size_params[h->caller];
		uint8_t knew = *knows, sized = *sizes;
		if (!h->argument) {
			*knows |= p->knows[h->callee] & KNOWS_RESULT;
			any = any || *knows != knew;
			continue;
		}
		uint8_t bit = (uint8_t)(1u << (h->argument - 1));
		if (h->whole && (p->knows[h->callee] & (1u << h->as)))
			*knows |= bit;
		if (p->size_params[h->callee] & (1u << h->as))
			*sizes |= bit;
		any = any || *knows != knew || *sizes != sized;
	}
	return any;
}

static void look_again(struct pass *p)
{
	p->record = true;
	run(p);
}

static void pass__end(struct pass *p)
{
	vec__free(&p->labels);
	vec__free(&p->calls);
	vec__free(&p->handed_on);
	free(p->seen);
}

/* Functions with the same code do the same to the same objects in both builds; they were followed in the old one. */
static void share_accesses(const struct planner *x, struct objects *out)
{
	const struct match *m = x->p->match;
	for (size_t i = 0; i < out->old.n; i++) {
		struct access a = out->old.items[i];
		int32_t next = m->a_to_b[a.function];
		if (next < 0 || !m->same_code[next])
			continue;
		a.insn += m->b->functions.items[next].start - m->a->functions.items[a.function].start;
		a.function = next;
		vec__push(&out->new, a);
	}
}

static int by_class(const void *a, const void *b)
{
	const struct access *x = a, *y = b;
	if (x->class != y->class)
		return x->class < y->class ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return (x->size > y->size) - (x->size < y->size);
}

static int by_insn(const void *a, const void *b)
{
	const struct size_argument *x = a, *y = b;
	return (x->insn > y->insn) - (x->insn < y->insn);
}

/* Functions that others call too: exports, and those whose address is taken. */
static void mark_open_functions(struct pass *p)
{
	vaddr_list open = {0};
	split__taken_functions(p->code, &open);
	for (size_t i = 0; i < p->code->elf->n_symbols; i++)
		if (split__is_function_export(p->code->elf, &p->code->elf->symbols[i]))
			vec__push(&open, p->code->elf->symbols[i].function);
	for (size_t i = 0; i < open.n; i++) {
		const struct function *f = code__function_starting(p->code, open.items[i]);
		for (unsigned k = 0; f && k < 6; k++)
			classes__mark_elsewhere(
			    p->classes, classes__named(p->classes, NAME_ARGUMENT,
						       function_id(p, (int32_t)(f - p->code->functions.items)), k));
	}
	vec__free(&open);
}

static int bits_by_class(const void *a, const void *b)
{
	const struct bits_picked *x = a, *y = b;
	if (x->class != y->class)
		return x->class < y->class ? -1 : 1;
	return (x->offset > y->offset) - (x->offset < y->offset);
}

static void settle_bits(struct classes *c, struct bits_picked *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		list[i].class = classes__find(c, list[i].class);
	if (n)
		qsort(list, n, sizeof(*list), bits_by_class);
}

/* Marks what holds a pointer: what hangs off it is accessed as well, or freed. */
static void mark_pointers(struct classes *c, struct access *list, size_t n)
{
	bool *accessed = xcalloc(c->n, sizeof(bool));
	for (size_t i = 0; i < n; i++)
		accessed[list[i].class] = accessed[list[i].class] || !list[i].forms_address;
	for (size_t i = 0; i < n; i++) {
		uint32_t child = list[i].class > CLASS_STACK && list[i].size == 8 && !list[i].forms_address
				     ? classes__known_child(c, list[i].class, NAME_LOAD, list[i].offset)
				     : CLASS_UNKNOWN;
		list[i].holds_pointer = child > CLASS_STACK && (accessed[child] || c->items[child].freed);
	}
	free(accessed);
}

static void settle(struct classes *c, struct access *a)
{
	a->class = classes__find(c, a->class);
	a->call_local = a->class > CLASS_STACK && c->items[a->class].on_stack && !c->items[a->class].elsewhere;
}

void objects__find(const struct planner *x, struct objects *out)
{
	struct classes classes;
	classes__init(&classes);
	size_t ids = x->p->live_code->functions.n + 2 * x->p->next_code->functions.n + 1;
	struct pass old = {.x = x, .classes = &classes, .code = x->p->live_code, .out = out};
	struct pass new = {.x = x, .classes = &classes, .code = x->p->next_code, .new = true, .out = out};
	old.size_params = new.size_params = xcalloc(ids, 1);
	old.knows = new.knows = xcalloc(ids, 1);
	look_first(&old);
	look_first(&new);
	for (bool again = true; again;) {
		again = pass_up(&old);
		again = pass_up(&new) || again;
	}
	mark_open_functions(&old);
	mark_open_functions(&new);
	look_again(&old);
	look_again(&new);
	share_accesses(x, out);
	for (size_t i = 0; i < out->old.n; i++)
		settle(&classes, &out->old.items[i]);
	for (size_t i = 0; i < out->new.n; i++)
		settle(&classes, &out->new.items[i]);
	mark_pointers(&classes, out->old.items, out->old.n);
	mark_pointers(&classes, out->new.items, out->new.n);
	settle_bits(&classes, out->old_bits.items, out->old_bits.n);
	settle_bits(&classes, out->new_bits.items, out->new_bits.n);
	if (out->old.n)
		qsort(out->old.items, out->old.n, sizeof(struct access), by_class);
	if (out->new.n)
		qsort(out->new.items, out->new.n, sizeof(struct access), by_class);
	if (out->sizes.n)
		qsort(out->sizes.items, out->sizes.n, sizeof(struct size_argument), by_insn);
	classes__free(&classes);
	free(old.size_params);
	free(old.knows);
	pass__end(&old);
	pass__end(&new);
}

void objects__free(struct objects *o)
{
	vec__free(&o->old);
	vec__free(&o->new);
	vec__free(&o->sizes);
	vec__free(&o->old_bits);
	vec__free(&o->new_bits);
}
