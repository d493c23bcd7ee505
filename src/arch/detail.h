/* What one instruction does with pointers: enough to follow an address through a function.
 * Registers are numbered 0-15 in encoding order
 * (rax rcx rdx rbx rsp rbp rsi rdi r8 .. r15). */
#ifndef LLU_ARCH_DETAIL_H
#define LLU_ARCH_DETAIL_H

#include "arch/decode.h"

enum { REG_NONE = -1, REG_COUNT = 16 };

enum insn_op {
	OP_OTHER,   /* nothing that is followed; `written` says what it destroys */
	OP_COPY,    /* dst = src */
	OP_ADD,     /* dst += imm */
	OP_ADDRESS, /* dst = address of mem */
	OP_LOAD,    /* dst = 8 bytes of mem */
	OP_STORE,   /* 8 bytes of mem = src */
	OP_PUSH,    /* of src, REG_NONE for anything else */
	OP_POP,     /* into dst */
	OP_SET,     /* dst = imm, which is no address */
};

struct insn_detail {
	uint8_t op; /* enum insn_op */
	int dst, src;
	bool has_mem;    /* accesses (or, OP_ADDRESS, forms) mem */
	int base, index; /* REG_NONE: none */
	bool rip;        /* mem is RIP-relative: at `target` */
	vaddr_t target;
	int64_t disp;
	uint16_t size; /* bytes accessed */
	uint8_t scale; /* of the index; 0 without one */
	int64_t imm;
	uint16_t written; /* bit n: register n is written */
	uint16_t read;    /* bit n: register n is read, other than for an address */
	bool compares;    /* 8 bytes with 8 others, or takes their difference; no constant */
	bool adds;        /* one register to another */
	bool scales;      /* multiplies by imm, or adds imm to a register: a stride */
	bool picks_bits;  /* a mask or a shift by imm */
	uint64_t bits;    /* of a mask: the bits that it is about */
	bool clears;      /* and clears, to put other ones there */
	int8_t shift;     /* bits to the right, by a constant */
};

struct arch_abi {
	int8_t stack, result, arg[6];
	uint16_t lost_by_calls; /* bit n: register n does not survive a call (psABI 3.2.1) */
};
extern const struct arch_abi arch_abi;

/* Both what insn__decode() says and the details. False when the bytes are no instruction. */
bool insn__detail(const uint8_t *code, size_t len, vaddr_t at, struct insn *insn, struct insn_detail *out);

#endif
