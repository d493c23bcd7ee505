/* Registers and signal frames of x86-64 (see arch.h).
 *
 * System calls (psABI A.2.1): number in rax, arguments in rdi, rsi, rdx, r10, r8, r9. While a thread
 * is in a system call orig_rax holds the number; in any other stop it is -1
 * (arch/x86/entry/entry_64.S).
 *
 * What rt_sigreturn(2) finds at the stack pointer (arch/x86/include/asm/sigframe.h, struct rt_sigframe;
 * arch/x86/kernel/signal_64.c), lowest address first; the frame starts one word below the stack
 * pointer of the system call, because a handler's `ret` has taken that word off the stack:
 *
 *     +--------------+  <- sp when the thread is borrowed
 *     | return_to    |  pretcode: the address of the sigreturn pad
 *     +--------------+  <- sp at the sigreturn pad
 *     | ucontext     |  flags, link, altstack (zero), sigcontext, signal mask
 *     +--------------+
 *     | siginfo      |  not read by rt_sigreturn
 *     +--------------+  64-byte aligned
 *     | xsave area   |  512 bytes legacy region; its last 48 bytes (464..511) hold struct _fpx_sw_bytes;
 *     |              |  64 bytes header; the components
 *     | MAGIC2       |  4 bytes at xstate_size
 *     +--------------+
 */
#include "inject/arch.h"

#include <asm/sigcontext.h>
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/code.h"
#include "inject/proc.h"

const int arch_xstate_note = NT_X86_XSTATE;

taddr_t arch_regs__pc(const struct arch_regs *r)
{
	return taddr(r->user.rip);
}

/* The syscall instruction leaves the PC in rcx as well (AMD64 manual, volume 3). */
void arch_regs__set_pc(struct arch_regs *r, taddr_t pc)
{
	if (arch_regs__syscall(r) >= 0 && r->user.rcx == r->user.rip)
		r->user.rcx = pc.v;
	r->user.rip = pc.v;
}

taddr_t arch_regs__sp(const struct arch_regs *r)
{
	return taddr(r->user.rsp);
}

taddr_t arch_regs__thread_pointer(const struct arch_regs *r)
{
	return taddr(r->user.fs_base);
}

int64_t arch_regs__syscall(const struct arch_regs *r)
{
	return (int64_t)r->user.orig_rax < 0 ? -1 : (int64_t)r->user.orig_rax;
}

uint64_t arch_regs__arg(const struct arch_regs *r, int i)
{
	const uint64_t args[6] = {r->user.rdi, r->user.rsi, r->user.rdx, r->user.r10, r->user.r8, r->user.r9};
	return args[i];
}

int64_t arch_regs__result(const struct arch_regs *r)
{
	return (int64_t)r->user.rax;
}

void arch_regs__set_result(struct arch_regs *r, int64_t result)
{
	r->user.rax = (uint64_t)result;
}

bool arch_regs__interrupted(const struct arch_regs *r)
{
	int64_t result = arch_regs__result(r);
	return arch_regs__syscall(r) >= 0 && result <= -KERNEL_ERESTARTSYS && result >= -KERNEL_ERESTART_RESTARTBLOCK;
}

/* Made from the kernel's own header when the tool is built. */
static const char *const syscall_names[] = {
#include "syscall_names.h"
};

const char *arch_syscall__name(int64_t nr)
{
	size_t n = sizeof(syscall_names) / sizeof(syscall_names[0]);
	return nr >= 0 && (uint64_t)nr < n ? syscall_names[nr] : NULL;
}

/* What the kernel itself does when no handler is to run (arch/x86/kernel/signal.c,
 * arch_do_signal_or_restart): back to the two bytes of the syscall instruction. */
void arch_regs__cook(struct arch_regs *r)
{
	if (arch_regs__syscall(r) < 0)
		return;
	switch (-arch_regs__result(r)) {
	case KERNEL_ERESTARTSYS:
	case KERNEL_ERESTARTNOINTR:
	case KERNEL_ERESTARTNOHAND:
		r->user.rip -= 2;
		r->user.rax = r->user.orig_rax;
		break;
	default:
		break;
	}
	r->user.orig_rax = (uint64_t)-1;
}

bool arch_regs__equal(const struct arch_regs *a, const struct arch_regs *b)
{
	return memcmp(&a->user, &b->user, sizeof(a->user)) == 0;
}

void arch_regs__make_call(struct arch_regs *r, taddr_t pc, taddr_t sp, int64_t nr, const uint64_t arg[6])
{
	r->user.rip = pc.v;
	r->user.rsp = sp.v;
	r->user.rax = (uint64_t)nr;
	r->user.orig_rax = (uint64_t)-1; /* or the kernel might restart what was there before */
	r->user.rdi = arg[0];
	r->user.rsi = arg[1];
	r->user.rdx = arg[2];
	r->user.r10 = arg[3];
	r->user.r8 = arg[4];
	r->user.r9 = arg[5];
}

void arch_regs__make_batch(struct arch_regs *r, taddr_t pc, taddr_t sp, taddr_t list)
{
	r->user.rip = pc.v;
	r->user.rsp = sp.v;
	r->user.rbx = list.v;
	r->user.orig_rax = (uint64_t)-1;
}

/* clone(flags, stack, parent_tid, child_tid, tls) on x86-64 (clone(2)) */
void arch_clone__args(uint64_t arg[6], uint64_t flags, taddr_t stack)
{
	memset(arg, 0, 6 * sizeof(arg[0]));
	arg[0] = flags;
	arg[1] = stack.v;
}

/* struct ucontext as the kernel has it: glibc's ucontext_t has a larger signal mask */
struct kernel_ucontext {
	uint64_t flags;
	uint64_t link;
	uint64_t ss_sp;
	int32_t ss_flags;
	int32_t ss_pad;
	uint64_t ss_size;
	struct sigcontext mc;
	uint64_t sigmask;
};

struct kernel_sigframe {
	uint64_t pretcode;
	struct kernel_ucontext uc;
	uint8_t siginfo[128];
};

/* arch/x86/include/uapi/asm/ucontext.h */
enum { UC_FP_XSTATE = 1, UC_SIGCONTEXT_SS = 2, UC_STRICT_RESTORE_SS = 4 };

enum {
	XSAVE_LEGACY = 512,
	XSAVE_HEADER = 64,
	XSAVE_SW = 464, /* struct _fpx_sw_bytes; ptrace puts the mask of enabled features there */
	XFEATURE_XTILE_CFG = 17,
	XFEATURE_XTILE_DATA = 18,
};

/* How long a standard-format area with these features is (CPUID leaf 13). */
static size_t xsave_size(uint64_t features)
{
	size_t size = XSAVE_LEGACY + XSAVE_HEADER;
	for (unsigned i = 2; i < 63; i++) {
		unsigned a = 0;
		unsigned b = 0;
		unsigned c = 0;
		unsigned d = 0;
		if (!(features >> i & 1) || !__get_cpuid_count(13, i, &a, &b, &c, &d))
			continue;
		if ((size_t)b + a > size)
			size = (size_t)b + a;
	}
	return size;
}

/* Frames of threads that may not use AMX are shorter than what ptrace hands out, and the kernel takes
 * only x87 and SSE from a frame longer than the thread's own (arch/x86/kernel/fpu/signal.c,
 * check_xstate_in_sigframe). So tiles are left out; a thread that has them in use is not borrowed. */
static const char *put_xstate(uint8_t *area, size_t room, const uint8_t *xstate, size_t len)
{
	const uint64_t tiles = 1ull << XFEATURE_XTILE_CFG | 1ull << XFEATURE_XTILE_DATA;
	uint64_t enabled = 0;
	uint64_t in_use = 0;
	if (len < XSAVE_LEGACY + XSAVE_HEADER)
		return "its extended registers cannot be read (no XSAVE)";
	memcpy(&enabled, xstate + XSAVE_SW, sizeof(enabled));
	memcpy(&in_use, xstate + XSAVE_LEGACY, sizeof(in_use));
	if (in_use & tiles)
		return "it is using AMX tiles";
	size_t size = len;
	if (enabled & tiles) {
		enabled &= ~tiles;
		size = xsave_size(enabled);
	}
	if (size > len || size + FP_XSTATE_MAGIC2_SIZE > room)
		return "its extended registers are larger than expected";

	struct _fpx_sw_bytes sw = {
	    .magic1 = FP_XSTATE_MAGIC1,
	    .extended_size = (uint32_t)(size + FP_XSTATE_MAGIC2_SIZE),
	    .xfeatures = enabled,
	    .xstate_size = (uint32_t)size,
	};
	uint32_t magic2 = FP_XSTATE_MAGIC2;
	memcpy(area, xstate, size);
	memcpy(area + XSAVE_SW, &sw, sizeof(sw));
	memcpy(area + size, &magic2, sizeof(magic2));
	return NULL;
}

const char *arch_sigframe__write(uint8_t *buf, size_t len, taddr_t at, const struct arch_regs *cooked, uint64_t sigmask,
				 const uint8_t *xstate, size_t xstate_len, taddr_t return_to, taddr_t *sp)
{
	const size_t area = align_up(sizeof(struct kernel_sigframe), 64);
	if (len < area || at.v % 64)
		return "no room for its registers";
	const struct user_regs_struct *u = &cooked->user;
	struct kernel_sigframe f = {
	    .pretcode = return_to.v,
	    .uc =
		{
		    .flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
		    .sigmask = sigmask,
		    .mc =
			{
			    .r8 = u->r8,
			    .r9 = u->r9,
			    .r10 = u->r10,
			    .r11 = u->r11,
			    .r12 = u->r12,
			    .r13 = u->r13,
			    .r14 = u->r14,
			    .r15 = u->r15,
			    .rdi = u->rdi,
			    .rsi = u->rsi,
			    .rbp = u->rbp,
			    .rbx = u->rbx,
			    .rdx = u->rdx,
			    .rax = u->rax,
			    .rcx = u->rcx,
			    .rsp = u->rsp,
			    .rip = u->rip,
			    .eflags = u->eflags,
			    .cs = (uint16_t)u->cs,
			    .gs = (uint16_t)u->gs,
			    .fs = (uint16_t)u->fs,
			    .ss = (uint16_t)u->ss,
			},
		},
	};
	/* the field is a pointer in the target's memory */
	uint64_t fpstate = at.v + area;
	memcpy(&f.uc.mc.fpstate, &fpstate, sizeof(fpstate));
	const char *why = put_xstate(buf + area, len - area, xstate, xstate_len);
	if (why)
		return why;
	memcpy(buf, &f, sizeof(f));
	*sp = at;
	return NULL;
}

/* What was interrupted was 64-bit code (__USER_CS; under Xen FLAT_RING3_CS64, which differs in the upper bits alone).
 * Of the flags bit 1 is always set, and those from 22 on never (Intel SDM volume 1, 3.4.3). */
static bool is_user_code(const struct sigcontext *mc)
{
	return (mc->cs & 0xfff) == 0x33 && (mc->eflags & 2) && mc->eflags >> 22 == 0;
}

/* uc_flags and uc_link look so in every frame that the kernel writes for a 64-bit handler
 * (arch/x86/kernel/signal_64.c), but in much else too: a count of six or seven and a zero. No stack is in the first
 * page. */
bool arch_sigframe__spot(const uint64_t *words, size_t n, taddr_t at, taddr_t *interrupted_sp)
{
	struct kernel_ucontext uc;
	if (n < sizeof(uc) / sizeof(*words) || (words[0] & ~1ull) != (UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS) ||
	    words[1] != 0)
		return false;
	memcpy(&uc, words, sizeof(uc));
	*interrupted_sp = taddr(uc.mc.rsp);
	return is_user_code(&uc.mc) && uc.mc.rsp >= LLU_PAGE &&
	       uc.mc.rsp < at.v; /* else it lies in what is looked at anyway */
}

/* fs/proc/array.c and arch/x86/kernel/cpu/proc.c, arch_proc_pid_thread_features (Linux 6.6) */
bool arch_shadow_stack__on(const char *status)
{
	const char *v = proc_field(status, "x86_Thread_features");
	if (!v)
		return false;
	size_t len = strcspn(v, "\n");
	const char *s = strstr(v, "shstk");
	return s && s < v + len;
}

bool arch_pads__match(const uint8_t *code, taddr_t at, taddr_t record)
{
	const struct arch_pads_args args = {.record = record.v};
	uint8_t want[ARCH_PADS_SIZE];
	arch_pads__write(want, at.v, &args);
	/* the pad between them holds addresses of the library */
	return memcmp(code, want, ARCH_PAD_INIT) == 0 &&
	       memcmp(code + ARCH_PAD_PARK, want + ARCH_PAD_PARK, ARCH_PADS_SIZE - ARCH_PAD_PARK) == 0;
}

/* psABI figure 3.36 */
size_t arch_regs__dwarf(const struct arch_regs *r, uint64_t out[ARCH_DWARF_REGS])
{
	const struct user_regs_struct *u = &r->user;
	const uint64_t regs[ARCH_DWARF_REGS] = {u->rax, u->rdx, u->rcx, u->rbx, u->rsi, u->rdi, u->rbp, u->rsp, u->r8,
						u->r9,  u->r10, u->r11, u->r12, u->r13, u->r14, u->r15, u->rip};
	memcpy(out, regs, sizeof(regs));
	return ARCH_DWARF_REGS;
}
