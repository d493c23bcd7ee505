/* Instruction decoding for x86-64, by Zydis; see decode.h. */
#include "arch/zydis_x86_64.h"

static enum insn_flow flow_of(const ZydisDecodedInstruction *i, bool relative)
{
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_CALL:
		return relative ? FLOW_CALL : FLOW_CALL_INDIRECT;
	case ZYDIS_MNEMONIC_JMP:
		return relative ? FLOW_JUMP : FLOW_STOP;
	case ZYDIS_MNEMONIC_RET:
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_HLT:
	case ZYDIS_MNEMONIC_INT3:
		return FLOW_STOP;
	default:
		return relative ? FLOW_BRANCH : FLOW_NEXT; /* jcc, loop, jrcxz, xbegin */
	}
}

static bool is_nop(const ZydisDecodedInstruction *i)
{
	return i->meta.category == ZYDIS_CATEGORY_NOP || i->meta.category == ZYDIS_CATEGORY_WIDENOP;
}

bool insn__of_zydis(const ZydisDecodedInstruction *d, vaddr_t at, struct insn *out)
{
	bool branches = d->raw.imm[0].size && d->raw.imm[0].is_relative;
	bool memory = (d->attributes & ZYDIS_ATTRIB_HAS_MODRM) && d->raw.modrm.mod != 3;
	bool rip_relative = memory && d->raw.modrm.mod == 0 && d->raw.modrm.rm == 5;
	if (rip_relative && d->address_width != 64)
		return false; /* eip-relative: no compiler makes it, and the target would wrap at 4 GiB */

	*out = (struct insn){
	    .len = d->length,
	    .flow = (uint8_t)flow_of(d, branches),
	    .has_target = branches || rip_relative,
	    .is_branch = branches,
	    .takes_address = rip_relative && d->mnemonic == ZYDIS_MNEMONIC_LEA,
	    .is_nop = is_nop(d),
	    .modrm = (d->attributes & ZYDIS_ATTRIB_HAS_MODRM) ? d->raw.modrm.offset : 0,
	};
	if (branches) {
		out->field = d->raw.imm[0].offset;
		out->field_size = d->raw.imm[0].size / 8;
		out->target = at + d->length + (vaddr_t)d->raw.imm[0].value.s;
	} else if (rip_relative) {
		out->field = d->raw.disp.offset;
		out->field_size = d->raw.disp.size / 8;
		out->target = at + d->length + (vaddr_t)d->raw.disp.value;
	} else if (d->raw.disp.size) {
		out->disp = d->raw.disp.offset;
		out->disp_size = d->raw.disp.size / 8;
	}
	if (!branches && d->raw.imm[0].size) {
		out->imm = d->raw.imm[0].offset;
		out->imm_size = d->raw.imm[0].size / 8;
	}
	return true;
}

bool insn__decode(const uint8_t *code, size_t len, vaddr_t at, struct insn *out)
{
	ZydisDecoder decoder;
	ZydisDecodedInstruction i;
	ZydisDecoderContext context;
	return ZYAN_SUCCESS(ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)) &&
	       ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &context, code, len, &i)) &&
	       insn__of_zydis(&i, at, out);
}
