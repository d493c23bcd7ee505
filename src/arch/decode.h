/* One machine instruction: its length, where it may go, and what address it mentions.
 *
 * The decoder is Zydis: it knows the whole instruction set, where capstone 4.0.2 of Debian 12 lacks much of
 * AVX-512, and sweeps libcrypto and libc in less than a third of the time (bench/decode-time: 61 against 246 ms,
 * 34 against 128 ms). tests/image/decode.c holds it against capstone, instruction by instruction.
 */
#ifndef LLU_ARCH_DECODE_H
#define LLU_ARCH_DECODE_H

#include "base/types.h"

enum insn_flow {
	FLOW_NEXT,          /* goes on behind it */
	FLOW_CALL,          /* direct call, comes back */
	FLOW_CALL_INDIRECT, /* call through a register or memory, comes back */
	FLOW_JUMP,          /* direct jump */
	FLOW_BRANCH,        /* direct conditional jump: there or on */
	FLOW_STOP,          /* return, indirect jump, ud2, hlt, int3: does not go on here */
};

enum { INSN_MAX = 15 };

struct insn {
	uint8_t len;
	uint8_t flow;            /* enum insn_flow */
	bool has_target;         /* mentions an address relative to its end: a branch, or a RIP-relative operand */
	bool is_branch;          /* the target is where it may go, else the address of an operand */
	bool takes_address;      /* lea: the address itself is the result, the operand is not accessed */
	bool is_nop;             /* does nothing: padding */
	uint8_t field;           /* offset of the relative value in the instruction */
	uint8_t field_size;      /* its size in bytes: 1 or 4 */
	uint8_t disp, disp_size; /* any other displacement: offset and size in bytes, or 0 and 0 */
	uint8_t imm, imm_size;   /* the same for an immediate */
	uint8_t modrm;           /* offset of the ModRM byte, 0: none (Intel SDM volume 2, 2.1) */
	vaddr_t target;
};

/* Decodes the instruction at `code` (up to `len` bytes), which runs at address `at`.
 * False when the bytes are no instruction. */
bool insn__decode(const uint8_t *code, size_t len, vaddr_t at, struct insn *out);

#endif
