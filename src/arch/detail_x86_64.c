/* Pointer operations of x86-64 instructions, by Zydis; see detail.h. */
#include "arch/detail.h"

#include "arch/zydis_x86_64.h"

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11 };

const struct arch_abi arch_abi = {
    .stack = RSP,
    .result = RAX,
    .arg = {RDI, RSI, RDX, RCX, R8, R9},
    .lost_by_calls = 1 << RAX | 1 << RCX | 1 << RDX | 1 << RSI | 1 << RDI | 1 << R8 | 1 << R9 | 1 << R10 | 1 << R11,
};

static int number_of(ZydisRegister r)
{
	ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
	return wide >= ZYDIS_REGISTER_RAX && wide <= ZYDIS_REGISTER_R15 ? (int)(wide - ZYDIS_REGISTER_RAX) : REG_NONE;
}

static bool is_wide(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->size == 64 && number_of(o->reg.value) != REG_NONE;
}

static void note_memory(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *o, vaddr_t at,
			struct insn_detail *d)
{
	if (d->has_mem || o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS)
		return;
	d->has_mem = true;
	d->base = number_of(o->mem.base);
	d->index = o->mem.index == ZYDIS_REGISTER_NONE ? REG_NONE : number_of(o->mem.index);
	d->scale = d->index == REG_NONE ? 0 : o->mem.scale;
	d->disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	d->size = o->mem.type == ZYDIS_MEMOP_TYPE_AGEN ? 0 : o->size / 8; /* lea reads nothing */
	d->rip = o->mem.base == ZYDIS_REGISTER_RIP;
	d->target = at + i->length + (vaddr_t)d->disp;
}

/* How many runs of ones there are. */
static unsigned runs(uint64_t bits)
{
	return (unsigned)__builtin_popcountll(bits & ~(bits << 1));
}

/* The bits that a mask is about. What clears one field in the middle, or some bits and keeps most, is about what it
 * clears. */
static uint64_t bits_of_and(uint64_t imm, uint64_t all, unsigned width)
{
	uint64_t cleared = ~imm & all;
	imm &= all;
	if (runs(imm) != runs(cleared))
		return runs(imm) < runs(cleared) ? imm : cleared;
	return 2 * (unsigned)__builtin_popcountll(imm) > width ? cleared : imm;
}

static uint64_t bits_of(ZydisMnemonic m, unsigned width, uint64_t imm)
{
	uint64_t all = width < 64 ? ((uint64_t)1 << width) - 1 : UINT64_MAX;
	switch (m) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return (uint64_t)1 << (imm & 63) & all;
	case ZYDIS_MNEMONIC_AND:
		return bits_of_and(imm, all, width);
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_TEST:
		return imm & all;
	default:
		return 0;
	}
}

/* Masks, shifts and tests of single bits whose last operand is a constant. */
static void note_bits(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *o, struct insn_detail *d)
{
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RORX:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		break;
	default:
		return;
	}
	for (unsigned k = 1; k < i->operand_count; k++)
		if (o[k].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			d->picks_bits = d->dst != RSP; /* of the stack pointer: alignment */
			d->imm = o[k].imm.value.s;
			d->bits = bits_of(i->mnemonic, o[0].size, (uint64_t)d->imm);
			d->clears = i->mnemonic == ZYDIS_MNEMONIC_AND && d->bits && !(d->bits & (uint64_t)d->imm);
			if (i->mnemonic == ZYDIS_MNEMONIC_SHR || i->mnemonic == ZYDIS_MNEMONIC_SAR)
				d->shift = (int8_t)(d->imm & 63);
		}
}

static void classify(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *o, struct insn_detail *d)
{
	bool reg0 = i->operand_count > 0 && is_wide(&o[0]), reg1 = i->operand_count > 1 && is_wide(&o[1]);
	bool mem0 = i->operand_count > 0 && o[0].type == ZYDIS_OPERAND_TYPE_MEMORY && o[0].size == 64;
	bool mem1 = i->operand_count > 1 && o[1].type == ZYDIS_OPERAND_TYPE_MEMORY && o[1].size == 64;
	bool imm1 = i->operand_count > 1 && o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	if (reg0)
		d->dst = number_of(o[0].reg.value);
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		if (reg0 && reg1) {
			d->op = OP_COPY;
			d->src = number_of(o[1].reg.value);
		} else if (reg0 && mem1 && d->has_mem) {
			d->op = OP_LOAD;
		} else if (mem0 && reg1 && d->has_mem) {
			d->op = OP_STORE;
			d->src = number_of(o[1].reg.value);
		} else if (imm1 && o[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
			d->op = OP_SET;
			d->dst = number_of(o[0].reg.value);
			d->imm = o[1].imm.value.s;
		}
		break;
	case ZYDIS_MNEMONIC_LEA:
		if (reg0 && d->has_mem)
			d->op = OP_ADDRESS;
		break;
	case ZYDIS_MNEMONIC_CMP:
		d->compares = (reg0 || mem0) && !imm1;
		break;
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
		d->compares = i->mnemonic == ZYDIS_MNEMONIC_SUB && (reg0 || mem0) && !imm1;
		d->adds = i->mnemonic == ZYDIS_MNEMONIC_ADD && reg0 && reg1;
		if (reg0 && imm1) {
			d->op = OP_ADD;
			d->imm = i->mnemonic == ZYDIS_MNEMONIC_ADD ? o[1].imm.value.s : -o[1].imm.value.s;
			d->scales = d->dst != RSP;
		}
		break;
	case ZYDIS_MNEMONIC_IMUL:
		d->scales = i->operand_count > 2 && o[2].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
		d->imm = d->scales ? o[2].imm.value.s : 0;
		break;
	case ZYDIS_MNEMONIC_PUSH:
		d->op = OP_PUSH;
		d->src = reg0 ? number_of(o[0].reg.value) : REG_NONE;
		break;
	case ZYDIS_MNEMONIC_POP:
		if (reg0)
			d->op = OP_POP;
		break;
	default:
		break;
	}
}

bool insn__detail(const uint8_t *code, size_t len, vaddr_t at, struct insn *insn, struct insn_detail *out)
{
	ZydisDecoder decoder;
	ZydisDecodedInstruction i;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	if (!ZYAN_SUCCESS(ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, len, &i, o)) || !insn__of_zydis(&i, at, insn))
		return false;
	*out = (struct insn_detail){.dst = REG_NONE, .src = REG_NONE, .base = REG_NONE, .index = REG_NONE};
	bool nop = i.meta.category == ZYDIS_CATEGORY_NOP || i.meta.category == ZYDIS_CATEGORY_WIDENOP;
	for (unsigned k = 0; k < i.operand_count && !nop; k++) {
		if (o[k].type == ZYDIS_OPERAND_TYPE_MEMORY && o[k].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
			note_memory(&i, &o[k], at, out);
		if (o[k].type == ZYDIS_OPERAND_TYPE_REGISTER && (o[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
			int r = number_of(o[k].reg.value);
			if (r != REG_NONE)
				out->written |= (uint16_t)(1u << r);
		}
		if (o[k].type == ZYDIS_OPERAND_TYPE_REGISTER && (o[k].actions & ZYDIS_OPERAND_ACTION_MASK_READ)) {
			int r = number_of(o[k].reg.value);
			if (r != REG_NONE)
				out->read |= (uint16_t)(1u << r);
		}
	}
	classify(&i, o, out);
	note_bits(&i, o, out);
	return true;
}
