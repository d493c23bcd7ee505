/* Machine code of the VAPI for x86-64 (see code.h). Each template is commented byte by byte. */
#include "arch/code.h"

#include <string.h>

static void put32(uint8_t *p, uint64_t v)
{
	uint32_t w = (uint32_t)v;
	memcpy(p, &w, sizeof(w));
}

/* disp32 of an operand: distance from the end of the instruction */
static uint64_t rel(vaddr_t target, vaddr_t insn_end)
{
	return target - insn_end;
}

void arch_stub__write(uint8_t *out, vaddr_t at, vaddr_t slot)
{
	static const uint8_t code[ARCH_STUB_SIZE] = {
	    0xf3, 0x0f, 0x1e, 0xfa,             /* 0  endbr64 */
	    0xff, 0x25, 0,    0,    0,    0,    /* 4  jmp *slot(%rip) */
	    0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, /* 10 int3: never reached */
	};
	memcpy(out, code, sizeof(code));
	put32(out + 6, rel(slot, at + 10));
}

void arch_lazy_stub__write(uint8_t *out, vaddr_t at, uint32_t reloc_index, vaddr_t lazy_head)
{
	static const uint8_t code[ARCH_STUB_SIZE] = {
	    0xf3, 0x0f, 0x1e, 0xfa,    /* 0  endbr64 */
	    0x68, 0,    0,    0,    0, /* 4  push $reloc_index */
	    0xe9, 0,    0,    0,    0, /* 9  jmp lazy_head */
	    0xcc, 0xcc,                /* 14 int3: never reached */
	};
	memcpy(out, code, sizeof(code));
	put32(out + 5, reloc_index);
	put32(out + 10, rel(lazy_head, at + 14));
}

void arch_lazy_head__write(uint8_t *out, vaddr_t at, vaddr_t got)
{
	static const uint8_t code[ARCH_STUB_SIZE] = {
	    0xff, 0x35, 0,    0,    0, 0, /* 0  push GOT+8(%rip): the link map */
	    0xff, 0x25, 0,    0,    0, 0, /* 6  jmp *GOT+16(%rip): _dl_runtime_resolve */
	    0xcc, 0xcc, 0xcc, 0xcc,       /* 12 int3: never reached */
	};
	memcpy(out, code, sizeof(code));
	put32(out + 2, rel(got + 8, at + 6));
	put32(out + 8, rel(got + 16, at + 12));
}

static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};

size_t arch_entry__jump(const uint8_t *code, size_t len)
{
	return len >= sizeof(endbr64) && memcmp(code, endbr64, sizeof(endbr64)) == 0 ? sizeof(endbr64) : 0;
}

const uint8_t *arch_code__syscall_ret(size_t *n)
{
	static const uint8_t code[] = {0x0f, 0x05, 0xc3};
	*n = sizeof(code);
	return code;
}

const uint8_t *arch_code__sigreturn(size_t *n)
{
	static const uint8_t code[] = {0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, /* mov $15,%rax */
				       0x0f, 0x05};                              /* syscall */
	*n = sizeof(code);
	return code;
}

void arch_jump__write(uint8_t *out, vaddr_t at, vaddr_t to)
{
	out[0] = 0xe9; /* jmp rel32 */
	put32(out + 1, rel(to, at + ARCH_JUMP_SIZE));
}

void arch_ifunc_return__write(uint8_t *out, vaddr_t at, vaddr_t stub)
{
	static const uint8_t code[ARCH_STUB_SIZE] = {
	    0xf3, 0x0f, 0x1e, 0xfa,          /* 0  endbr64 */
	    0x48, 0x8d, 0x05, 0,    0, 0, 0, /* 4  lea stub(%rip),%rax */
	    0xc3,                            /* 11 ret */
	    0xcc, 0xcc, 0xcc, 0xcc,          /* 12 int3: never reached */
	};
	memcpy(out, code, sizeof(code));
	put32(out + 7, rel(stub, at + 11));
}

/* syscall(2): number in rax; arguments in rdi, rsi, rdx, r10, r8, r9; result in rax; rcx and r11 lost */
static const uint8_t pad_syscall[] = {
    0x0f, 0x05, /* syscall */
    0xc3,       /* ret */
};

/* As arch_code__sigreturn(). */
static const uint8_t pad_sigreturn[] = {
    0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, /* mov $15,%rax: __NR_rt_sigreturn */
    0x0f, 0x05,                               /* syscall */
    0x0f, 0x0b,                               /* ud2: never reached */
};

static const uint8_t pad_exit[] = {
    0x31, 0xff,                   /* xor %edi,%edi */
    0xb8, 0x3c, 0x00, 0x00, 0x00, /* mov $60,%eax: __NR_exit, this thread alone */
    0x0f, 0x05,                   /* syscall */
    0x0f, 0x0b,                   /* ud2: never reached */
};

static const uint8_t pad_batch[] = {
    /* rbx = next struct arch_batch_entry */
    0x48, 0x8b, 0x03,                   /*  0 mov (%rbx),%rax: nr */
    0x48, 0x85, 0xc0,                   /*  3 test %rax,%rax */
    0x78, 0x2e,                         /*  6 js done (54) */
    0x48, 0x8b, 0x7b, 0x08,             /*  8 mov 8(%rbx),%rdi */
    0x48, 0x8b, 0x73, 0x10,             /* 12 mov 16(%rbx),%rsi */
    0x48, 0x8b, 0x53, 0x18,             /* 16 mov 24(%rbx),%rdx */
    0x4c, 0x8b, 0x53, 0x20,             /* 20 mov 32(%rbx),%r10 */
    0x4c, 0x8b, 0x43, 0x28,             /* 24 mov 40(%rbx),%r8 */
    0x4c, 0x8b, 0x4b, 0x30,             /* 28 mov 48(%rbx),%r9 */
    0x0f, 0x05,                         /* 32 syscall */
    0x48, 0x89, 0x43, 0x38,             /* 34 mov %rax,56(%rbx): result */
    0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, /* 38 cmp $-4095,%rax */
    0x73, 0x08,                         /* 44 jae done (54): an error ends the list */
    0x48, 0x83, 0xc3, 0x40,             /* 46 add $64,%rbx */
    0xeb, 0xcc,                         /* 50 jmp 0 */
    0x0f, 0x0b,                         /* 52 ud2: never reached */
    0x31, 0xff,                         /* 54 done: xor %edi,%edi */
    0xb8, 0x3c, 0x00, 0x00, 0x00,       /* 56 mov $60,%eax: __NR_exit */
    0x0f, 0x05,                         /* 61 syscall */
    0x0f, 0x0b,                         /* 63 ud2: never reached */
};

/* DT_INIT is called as init(argc, argv, env) (gABI, "Initialization and Termination Functions";
 * glibc elf/dl-init.c), so rdi, rsi and rdx must reach the library's own function unchanged. */
static const uint8_t pad_init[] = {
    0xf3, 0x0f, 0x1e, 0xfa,             /*  0 endbr64 */
    0x57,                               /*  4 push %rdi */
    0x56,                               /*  5 push %rsi */
    0x52,                               /*  6 push %rdx */
    0x48, 0x8d, 0x3d, 0,    0,    0, 0, /*  7 lea table(%rip),%rdi */
    0xbe, 0,    0,    0,    0,          /* 14 mov $table_len,%esi */
    0xba, 0x01, 0x00, 0x00, 0x00,       /* 19 mov $PROT_READ,%edx */
    0xb8, 0x0a, 0x00, 0x00, 0x00,       /* 24 mov $10,%eax: __NR_mprotect */
    0x0f, 0x05,                         /* 29 syscall: if it fails the table stays writable, no more */
    0x5a,                               /* 31 pop %rdx */
    0x5e,                               /* 32 pop %rsi */
    0x5f,                               /* 33 pop %rdi */
    0xc3,                               /* 34 ret, or the first byte of: jmp next */
    0xcc, 0xcc, 0xcc, 0xcc,             /* 35 */
};

/* A thread comes here by the `ret` of a function of the library, whose return address was replaced. So the stack
 * pointer is one word above where that stood, and the first push puts the original there again. From
 * then on the record is not needed any more. Flags are left alone by all of it. */
static const uint8_t pad_park[] = {
    0xff, 0x35, 0,    0,    0,    0, /*  0 push record(%rip) */
    0x50,                            /*  6 push %rax */
    0x57,                            /*  7 push %rdi */
    0x51,                            /*  8 push %rcx: lost in a system call, as r11 is */
    0x41, 0x53,                      /*  9 push %r11 */
    0xbf, 0xff, 0xff, 0xff, 0xff,    /* 11 mov $-1,%edi */
    0xb8, 0x03, 0x00, 0x00, 0x00,    /* 16 mov $3,%eax: __NR_close */
    0x0f, 0x05,                      /* 21 syscall */
    0x41, 0x5b,                      /* 23 pop %r11 */
    0x59,                            /* 25 pop %rcx */
    0x5f,                            /* 26 pop %rdi */
    0x58,                            /* 27 pop %rax */
    0xc3,                            /* 28 ret */
};

_Static_assert(sizeof(pad_syscall) <= ARCH_PAD_SIGRETURN - ARCH_PAD_SYSCALL, "pads overlap");
_Static_assert(sizeof(pad_sigreturn) <= ARCH_PAD_EXIT - ARCH_PAD_SIGRETURN, "pads overlap");
_Static_assert(sizeof(pad_exit) <= ARCH_PAD_BATCH - ARCH_PAD_EXIT, "pads overlap");
_Static_assert(sizeof(pad_batch) <= ARCH_PAD_INIT - ARCH_PAD_BATCH, "pads overlap");
_Static_assert(sizeof(pad_init) < ARCH_PAD_PARK - ARCH_PAD_INIT, "pads overlap");
_Static_assert(sizeof(pad_park) == ARCH_PAD_PARK_END - ARCH_PAD_PARK, "the parking pad ends where it is said to");
_Static_assert(ARCH_PAD_PARK_END <= ARCH_PADS_SIZE, "pads overlap");
_Static_assert(sizeof(struct arch_batch_entry) == 64, "the batch pad steps by 64 bytes");

void arch_pads__write(uint8_t *out, vaddr_t at, const struct arch_pads_args *args)
{
	memset(out, 0xcc, ARCH_PADS_SIZE);
	memcpy(out + ARCH_PAD_SYSCALL, pad_syscall, sizeof(pad_syscall));
	memcpy(out + ARCH_PAD_SIGRETURN, pad_sigreturn, sizeof(pad_sigreturn));
	memcpy(out + ARCH_PAD_EXIT, pad_exit, sizeof(pad_exit));
	memcpy(out + ARCH_PAD_BATCH, pad_batch, sizeof(pad_batch));

	uint8_t *p = out + ARCH_PAD_INIT;
	vaddr_t here = at + ARCH_PAD_INIT;
	memcpy(p, pad_init, sizeof(pad_init));
	put32(p + 10, rel(args->table, here + 14));
	put32(p + 15, args->table_len);
	if (args->next) {
		p[34] = 0xe9; /* jmp next */
		put32(p + 35, rel(args->next, here + 39));
	}
	memcpy(out + ARCH_PAD_PARK, pad_park, sizeof(pad_park));
	put32(out + ARCH_PAD_PARK + 2, rel(args->record, at + ARCH_PAD_PARK + 6));
}

/* DWARF register numbers of the psABI (figure 3.36): 7 is rsp, 16 the return address. */
enum {
	DW_CFA_advance_loc = 0x40,
	DW_CFA_offset = 0x80,
	DW_CFA_restore = 0xc0,
	DW_CFA_def_cfa = 0x0c,
	DW_CFA_def_cfa_offset = 0x0e,
	DW_CFA_def_cfa_expression = 0x0f,
	DW_CFA_expression = 0x10,
	DW_CFA_val_expression = 0x16
};
enum {
	DW_OP_breg7 = 0x77,
	DW_OP_breg16 = 0x80,
	DW_OP_lit15 = 0x3f,
	DW_OP_and = 0x1a,
	DW_OP_lit9 = 0x39,
	DW_OP_ge = 0x2a,
	DW_OP_lit3 = 0x33,
	DW_OP_shl = 0x24,
	DW_OP_plus = 0x22,
	DW_OP_lit6 = 0x36,
	DW_OP_deref = 0x06
};

struct arch_cfi arch_cfi__entry(void)
{
	static const uint8_t ops[] = {
	    DW_CFA_def_cfa,     7, 8, /* CFA = rsp + 8 */
	    DW_CFA_offset | 16, 1,    /* return address at CFA - 8 */
	};
	return (struct arch_cfi){ops, sizeof(ops)};
}

/* Stubs are 16-aligned, so the low bits of rip tell how far one has run, as in the linker's own
 * unwind table for .plt: CFA = rsp + 8 + ((rip & 15) >= 9) * 8, the push being done from byte 9 on. */
struct arch_cfi arch_cfi__lazy_stub(void)
{
	static const uint8_t ops[] = {
	    DW_CFA_def_cfa_expression,
	    11,
	    DW_OP_breg7,
	    8,
	    DW_OP_breg16,
	    0,
	    DW_OP_lit15,
	    DW_OP_and,
	    DW_OP_lit9,
	    DW_OP_ge,
	    DW_OP_lit3,
	    DW_OP_shl,
	    DW_OP_plus,
	};
	return (struct arch_cfi){ops, sizeof(ops)};
}

/* On entry the index is on the stack; the second push is done from byte 6 on. */
struct arch_cfi arch_cfi__lazy_head(void)
{
	static const uint8_t ops[] = {
	    DW_CFA_def_cfa_expression,
	    11,
	    DW_OP_breg7,
	    16,
	    DW_OP_breg16,
	    0,
	    DW_OP_lit15,
	    DW_OP_and,
	    DW_OP_lit6,
	    DW_OP_ge,
	    DW_OP_lit3,
	    DW_OP_shl,
	    DW_OP_plus,
	};
	return (struct arch_cfi){ops, sizeof(ops)};
}

static uint8_t *put_sleb(uint8_t *p, int64_t v)
{
	for (;;) {
		uint8_t byte = v & 0x7f;
		v >>= 7;
		if ((v == 0 && !(byte & 0x40)) || (v == -1 && (byte & 0x40))) {
			*p++ = byte;
			return p;
		}
		*p++ = byte | 0x80;
	}
}

/* A return address that leads to the pad is looked up one byte in front of it, while rip (register 16) is the address
 * itself. There the stack is as the caller will find it, so the CFA (the caller's stack pointer, by
 * its usual meaning) would be that of the function that returns to the pad. Unwinders tell frames apart by
 * it (libgcc, unwind.inc, _Unwind_RaiseException_Phase2), so it is one more, and rsp (7) is
 * given by itself. DW_CFA_restore is not used for the return address: to libgcc it means "not saved". */
size_t arch_cfi__park(uint8_t *out, int64_t record)
{
	static const uint8_t head[] = {
	    DW_CFA_def_cfa,        7,  1,                 /* CFA = rsp + 1 */
	    DW_CFA_val_expression, 7,  2, DW_OP_breg7, 0, /* rsp = rsp */
	    DW_CFA_expression,     16,                    /* return address at rip + record */
	};
	static const uint8_t tail[] = {
	    DW_CFA_advance_loc | 7,  DW_CFA_def_cfa_offset, 8, /*  6 original pushed: as at any function's entry */
	    DW_CFA_restore | 7,      DW_CFA_offset | 16,    1,
	    DW_CFA_advance_loc | 1,  DW_CFA_def_cfa_offset, 16, /*  7 rax pushed */
	    DW_CFA_advance_loc | 1,  DW_CFA_def_cfa_offset, 24, /*  8 rdi */
	    DW_CFA_advance_loc | 1,  DW_CFA_def_cfa_offset, 32, /*  9 rcx */
	    DW_CFA_advance_loc | 2,  DW_CFA_def_cfa_offset, 40, /* 11 r11 */
	    DW_CFA_advance_loc | 14, DW_CFA_def_cfa_offset, 32, /* 25 r11 popped */
	    DW_CFA_advance_loc | 1,  DW_CFA_def_cfa_offset, 24, /* 26 rcx */
	    DW_CFA_advance_loc | 1,  DW_CFA_def_cfa_offset, 16, /* 27 rdi */
	    DW_CFA_advance_loc | 1,  DW_CFA_def_cfa_offset, 8,  /* 28 rax */
	};
	uint8_t expression[12] = {DW_OP_breg16};
	size_t len = (size_t)(put_sleb(expression + 1, record) - expression);
	uint8_t *p = out;
	memcpy(p, head, sizeof(head));
	p += sizeof(head);
	*p++ = (uint8_t)len;
	memcpy(p, expression, len);
	p += len;
	memcpy(p, tail, sizeof(tail));
	return (size_t)(p - out) + sizeof(tail);
}

/* Linux, arch/x86/include/uapi/asm/sigcontext.h: struct sigcontext, behind uc_flags, uc_link and uc_stack of the
 * struct ucontext to which rsp leads in a trampoline. By DWARF register number. */
size_t arch_cfi__sigreturn(uint8_t *out)
{
	static const uint8_t registers[] = {8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16};
	enum { FIRST_REGISTER = 40, SAVED_RSP = FIRST_REGISTER + 15 * 8 };
	uint8_t *p = out;
	*p++ = DW_CFA_def_cfa_expression; /* CFA = the rsp that was interrupted */
	uint8_t *len = p++;
	*p++ = DW_OP_breg7;
	p = put_sleb(p, SAVED_RSP);
	*p++ = DW_OP_deref;
	*len = (uint8_t)(p - len - 1);
	for (size_t i = 0; i < sizeof(registers); i++) {
		*p++ = DW_CFA_expression;
		*p++ = registers[i];
		len = p++;
		*p++ = DW_OP_breg7;
		p = put_sleb(p, FIRST_REGISTER + (int64_t)i * 8);
		*len = (uint8_t)(p - len - 1);
	}
	return (size_t)(p - out);
}

uint8_t arch_cfi__return_register(void)
{
	return 16;
}

int8_t arch_cfi__data_alignment(void)
{
	return -8;
}
