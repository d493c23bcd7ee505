/* Machine code that the VAPI carries: stubs and pads. No process and no ELF file in sight.
 *
 * The bytes are written by the split (src/image) and relied upon by the surgery (src/inject), so
 * they are described once, here. One file per architecture implements this header.
 *
 * Stubs, ARCH_STUB_SIZE bytes each:
 *
 *     canonical stub    the one address of a function for the life of a process; jumps through its
 *                       slot of the indirection table
 *     lazy stub         what a GOT slot of a lazily bound import holds until its first call; does
 *                       what the second half of a PLT entry does (psABI 5.2): push the relocation
 *                       index and jump to the lazy head
 *     lazy head         what PLT0 does: push GOT[1], jump through GOT[2]
 *     IFUNC return      resolver of an IRELATIVE relocation: returns a canonical stub
 *
 * Pads, one block of ARCH_PADS_SIZE bytes, at these offsets:
 *
 *     ARCH_PAD_SYSCALL    syscall; ret
 *     ARCH_PAD_SIGRETURN  rt_sigreturn over the frame at the stack pointer
 *     ARCH_PAD_EXIT       exit(0) of the calling thread
 *     ARCH_PAD_BATCH      runs a list of system calls (struct arch_batch_entry) one after the other,
 *                         stops at the first that fails, then exits as ARCH_PAD_EXIT
 *     ARCH_PAD_INIT       DT_INIT of a split library: makes the table read-only, then goes on to
 *                         the library's own DT_INIT, if any
 *     ARCH_PAD_PARK       the parking pad: where a thread comes by that is driven out of the library. Its return
 *                         address was replaced by this one; the original lies in the record. Puts the original
 *                         back into its place, makes one system call that does nothing, which a tracer
 *                         sees, and returns. Every register is as it was. The byte in front of it is
 *                         nobody's, for unwinders, which look up a return address less one.
 */
#ifndef LLU_ARCH_CODE_H
#define LLU_ARCH_CODE_H

#include "base/types.h"

enum {
	ARCH_STUB_SIZE = 16,
	ARCH_JUMP_SIZE = 5,
	ARCH_PAD_SYSCALL = 0,
	ARCH_PAD_SIGRETURN = 16,
	ARCH_PAD_EXIT = 32,
	ARCH_PAD_BATCH = 48,
	ARCH_PAD_INIT = 128,
	ARCH_PAD_PARK = 192,
	ARCH_PAD_PARK_CALLED = ARCH_PAD_PARK + 23, /* behind its system call instruction */
	ARCH_PAD_PARK_END = ARCH_PAD_PARK + 29,
	ARCH_PADS_SIZE = 224,

	ARCH_PARK_RECORD = 8,  /* where in the scratch memory (inject/hand.h) the record of the parking pad lies */
	ARCH_PARK_SYSCALL = 3, /* close(-1): refused by every kernel without a look at anything */
};

/* One system call of a batch, in the target's memory. The list ends with nr == -1. */
struct arch_batch_entry {
	int64_t nr;
	uint64_t arg[6];
	int64_t result; /* written by the pad: what the kernel returned */
};

/* The record of the parking pad, in the target's memory. */
struct arch_park_record {
	uint64_t original; /* the return address that was replaced; 0: nobody is on this way */
	uint64_t slot;     /* where it stood */
};

/* Each writes ARCH_STUB_SIZE bytes at `out`, for code that will run at `at`. All distances must fit
 * 32 bits, which holds inside one library (gABI: a shared object is smaller than 2 GiB). */
void arch_stub__write(uint8_t *out, vaddr_t at, vaddr_t slot);
void arch_lazy_stub__write(uint8_t *out, vaddr_t at, uint32_t reloc_index, vaddr_t lazy_head);
void arch_lazy_head__write(uint8_t *out, vaddr_t at, vaddr_t got);

void arch_ifunc_return__write(uint8_t *out, vaddr_t at, vaddr_t stub);

/* Instructions that a C library has, as bytes: `syscall; ret`, and rt_sigreturn(2) over the frame at the stack pointer
 * (glibc, sysdeps/unix/sysv/linux/x86_64/sigaction.c, __restore_rt). *n of them. */
const uint8_t *arch_code__syscall_ret(size_t *n);
const uint8_t *arch_code__sigreturn(size_t *n);

/* The entry of a function of `len` bytes at `code` is to become a jump: how far behind its start? (A landing pad for
 * indirect branches stays in front.) */
size_t arch_entry__jump(const uint8_t *code, size_t len);
/* ARCH_JUMP_SIZE bytes at `out`: a jump to `to` that will run at `at`. */
void arch_jump__write(uint8_t *out, vaddr_t at, vaddr_t to);

struct arch_pads_args {
	vaddr_t table;      /* page-aligned */
	uint64_t table_len; /* bytes, whole pages */
	vaddr_t next;       /* the library's own DT_INIT, or 0 */
	vaddr_t record;     /* of the parking pad: struct arch_park_record */
};
/* Writes ARCH_PADS_SIZE bytes at `out` for code that will run at `at`. */
void arch_pads__write(uint8_t *out, vaddr_t at, const struct arch_pads_args *args);

/* Unwind instructions (DWARF 4, 6.4.2) of the stubs and pads, for the VAPI's .eh_frame: what the
 * CIE says at entry, and what a lazy stub or head adds. All lengths are in bytes. */
struct arch_cfi {
	const uint8_t *ops;
	size_t len;
};
struct arch_cfi arch_cfi__entry(void);     /* initial instructions of the CIE */
struct arch_cfi arch_cfi__lazy_stub(void); /* for one run of lazy stubs */
struct arch_cfi arch_cfi__lazy_head(void);
/* For the parking pad, from the byte in front of it on: ARCH_CFI_PARK_MAX bytes at most, written to `out`. `record` is
 * how far the record lies behind the pad. Returns how many. */
enum { ARCH_CFI_PARK_MAX = 64 };
size_t arch_cfi__park(uint8_t *out, int64_t record);
/* For the sigreturn pad, as what a signal handler returns to: ARCH_CFI_SIGRETURN_MAX bytes at most, written to `out`.
 * Returns how many. */
enum { ARCH_CFI_SIGRETURN_MAX = 128 };
size_t arch_cfi__sigreturn(uint8_t *out);
uint8_t arch_cfi__return_register(void);
int8_t arch_cfi__data_alignment(void);

#endif
