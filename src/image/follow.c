/* See follow.h. One pass over a function in address order; at a label the knowledge of all earlier jumps to it is met:
 * what they agree on is kept. */
#include "image/follow.h"

#include <string.h>

#include "image/classes.h"

/* ---- what is known at one place of a function ---- */

uint64_t pass__function_id(const struct pass *p, int32_t i)
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
			into->slot[i].v = from_memory();
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
		return v ? *v : from_memory();
	}
	if (base.class == CLASS_UNKNOWN)
		return from_memory();
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

void pass__knows(struct pass *p, uint8_t what)
{
	p->knows[pass__function_id(p, p->index)] |= what;
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
			pass__knows(p, (uint8_t)(1u << (base.argument - 1)));
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
		result = v ? *v : from_memory();
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
	uint64_t id = pass__function_id(p, p->index);
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
		p->s.reg[i] = from_memory();
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
		pass__call(p, i, true, at);
	} else if (i->is_branch && outside && i->flow == FLOW_JUMP) {
		pass__call(p, i, false, at); /* a tail call */
	} else if (i->is_branch) {
		flows_to(p, i->target);
	} else {
		step(p, d, at);
		if (i->flow == FLOW_STOP) {
			if ((d->has_mem || d->dst != REG_NONE || d->written == 0) && !is_tail_call(p)) {
				p->orphan = p->s;
				p->has_orphan = true;
			}
			pass__gives(p, p->s.reg[arch_abi.result]);
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

void pass__follow(struct pass *p, int32_t index)
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
