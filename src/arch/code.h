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
 */
#ifndef LLU_ARCH_CODE_H
#define LLU_ARCH_CODE_H

#include "base/types.h"

enum {
	ARCH_STUB_SIZE = 16,
	ARCH_PAD_SYSCALL = 0,
	ARCH_PAD_SIGRETURN = 16,
	ARCH_PAD_EXIT = 32,
	ARCH_PAD_BATCH = 48,
	ARCH_PAD_INIT = 128,
	ARCH_PADS_SIZE = 192,
};

/* One system call of a batch, in the target's memory. The list ends with nr == -1. */
struct arch_batch_entry {
	int64_t nr;
	uint64_t arg[6];
	int64_t result; /* written by the pad: what the kernel returned */
};

/* Each writes ARCH_STUB_SIZE bytes at `out`, for code that will run at `at`. All distances must fit
 * 32 bits, which holds inside one library (gABI: a shared object is smaller than 2 GiB). */
void arch_stub__write(uint8_t *out, vaddr_t at, vaddr_t slot);
void arch_lazy_stub__write(uint8_t *out, vaddr_t at, uint32_t reloc_index, vaddr_t lazy_head);
void arch_lazy_head__write(uint8_t *out, vaddr_t at, vaddr_t got);

void arch_ifunc_return__write(uint8_t *out, vaddr_t at, vaddr_t stub);

struct arch_init_args {
	vaddr_t table;      /* page-aligned */
	uint64_t table_len; /* bytes, whole pages */
	vaddr_t next;       /* the library's own DT_INIT, or 0 */
};
/* Writes ARCH_PADS_SIZE bytes at `out` for code that will run at `at`. */
void arch_pads__write(uint8_t *out, vaddr_t at, const struct arch_init_args *init);

/* Unwind instructions (DWARF 4, 6.4.2) of the stubs and pads, for the VAPI's .eh_frame: what the
 * CIE says at entry, and what a lazy stub or head adds. All lengths are in bytes. */
struct arch_cfi {
	const uint8_t *ops;
	size_t len;
};
struct arch_cfi arch_cfi__entry(void);     /* initial instructions of the CIE */
struct arch_cfi arch_cfi__lazy_stub(void); /* for one run of lazy stubs */
struct arch_cfi arch_cfi__lazy_head(void);
uint8_t arch_cfi__return_register(void);
int8_t arch_cfi__data_alignment(void);

#endif
