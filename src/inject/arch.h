/* Everything in this room that depends on the architecture: registers and signal frames.
 *
 * One file per architecture implements it (arch_x86_64.c). Terms:
 *
 *     raw       registers as the kernel shows them at a ptrace-stop inside a system call: the result
 *               may be one of the kernel's own -ERESTART* codes, and the kernel will act on it when
 *               the thread goes on through its signal code
 *     cooked    registers that make the thread do the same by itself, whatever way it goes on: the
 *               program counter stands at the system call instruction again
 */
#ifndef LLU_INJECT_ARCH_H
#define LLU_INJECT_ARCH_H

#include <sys/user.h>

#include "base/types.h"

struct arch_regs {
	struct user_regs_struct user;
};

/* The kernel's own results of an interrupted system call (include/linux/errno.h). */
enum {
	KERNEL_ERESTARTSYS = 512,
	KERNEL_ERESTARTNOINTR = 513,
	KERNEL_ERESTARTNOHAND = 514,
	KERNEL_ERESTART_RESTARTBLOCK = 516,
};

taddr_t arch_regs__pc(const struct arch_regs *r);
void arch_regs__set_pc(struct arch_regs *r, taddr_t pc);
taddr_t arch_regs__sp(const struct arch_regs *r);
/* The thread pointer of the TLS ABI: on x86-64 the thread control block itself. */
taddr_t arch_regs__thread_pointer(const struct arch_regs *r);

/* The system call that the thread is leaving, -1 when it was in none; its arguments; its result. */
int64_t arch_regs__syscall(const struct arch_regs *r);
uint64_t arch_regs__arg(const struct arch_regs *r, int i);
int64_t arch_regs__result(const struct arch_regs *r);
void arch_regs__set_result(struct arch_regs *r, int64_t result);
/* Does it wait in that call, which the kernel is to make again or to continue (one of its own results)? */
bool arch_regs__interrupted(const struct arch_regs *r);
/* The name of a system call, or NULL. */
const char *arch_syscall__name(int64_t nr);
/* Turns raw registers into cooked ones. */
void arch_regs__cook(struct arch_regs *r);
bool arch_regs__equal(const struct arch_regs *a, const struct arch_regs *b);

/* Makes the thread perform a system call at the instruction `pc` with the stack at `sp`. */
void arch_regs__make_call(struct arch_regs *r, taddr_t pc, taddr_t sp, int64_t nr, const uint64_t arg[6]);
/* Makes the thread run the batch pad at `pc` over `list`. */
void arch_regs__make_batch(struct arch_regs *r, taddr_t pc, taddr_t sp, taddr_t list);

/* clone(2) differs in the order of its arguments. */
void arch_clone__args(uint64_t arg[6], uint64_t flags, taddr_t stack);

/* The register set (PTRACE_GETREGSET) of the extended state: x87, vector registers and the like. */
extern const int arch_xstate_note;

/* How far in front of the saved rip a signal frame has rcx (arch/x86/include/uapi/asm/sigcontext.h). */
enum { ARCH_SIGCONTEXT_RCX_TO_RIP = 16 };
/* How far behind it the address of the processor's state is (fpstate), and where that says how long it is
 * (sw_reserved.extended_size). */
enum { ARCH_SIGCONTEXT_RIP_TO_STATE = 56, ARCH_SIGNAL_STATE_SIZE_AT = 468 };

/* Upper bound of what arch_sigframe__write() needs. */
enum { ARCH_SIGFRAME_MAX = 16384 };

/* Writes into `buf` (`len` bytes, which will lie at `at` in the target, 64-byte aligned) a stack whose
 * top word is `return_to` and above it the frame that rt_sigreturn(2) expects, which restores
 * `cooked`, `sigmask` and the extended state `xstate` (as PTRACE_GETREGSET gave it).
 * *sp is the stack pointer to use. NULL, or the reason why it cannot be done. */
const char *arch_sigframe__write(uint8_t *buf, size_t len, taddr_t at, const struct arch_regs *cooked, uint64_t sigmask,
				 const uint8_t *xstate, size_t xstate_len, taddr_t return_to, taddr_t *sp);

/* A frame of the signal code on a stack, found by its looks: where the interrupted code's stack was. */
bool arch_sigframe__spot(const uint64_t *words, size_t n, taddr_t at, taddr_t *interrupted_sp);

/* Does this text of /proc/PID/task/TID/status say that a shadow stack is in use? */
bool arch_shadow_stack__on(const char *status);

/* Are these the pads of arch/code.h (ARCH_PADS_SIZE bytes at `at`), with the record of the parking pad there? */
bool arch_pads__match(const uint8_t *code, taddr_t at, taddr_t record);

/* The registers by DWARF number, for unwinding; how many. */
enum { ARCH_DWARF_REGS = 17 };
size_t arch_regs__dwarf(const struct arch_regs *r, uint64_t out[ARCH_DWARF_REGS]);

#endif
