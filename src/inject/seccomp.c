/* Reading seccomp filters (see seccomp.h).
 *
 * A filter is a classic BPF program over struct seccomp_data (seccomp(2)). One evaluator serves both
 * functions: every value is a known number or unknown. Jumps only go forward, so one pass over the
 * program, joining what is known where paths meet, finds every return that can be reached.
 *
 * The surgery knows the system call numbers, the architecture and some arguments (which protection
 * a mapping gets); addresses, lengths and file descriptors are unknown. It goes ahead only when
 * every return that can be reached under that knowledge allows.
 */
#include "inject/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "inject/hand.h"
#include "inject/proc.h"
#include "inject/tracee.h"

struct value {
	bool known;
	uint32_t v;
};

enum { DATA_WORDS = sizeof(struct seccomp_data) / 4 };

/* struct seccomp_data, word by word (words of 64-bit fields: low half first) */
struct abstract_data {
	struct value word[DATA_WORDS];
};

/* What is known when an instruction is reached. */
struct point {
	bool reached;
	struct value a, x, mem[BPF_MEMWORDS];
};

static struct value just(uint32_t v)
{
	return (struct value){true, v};
}

static struct value join(struct value a, struct value b)
{
	return a.known && b.known && a.v == b.v ? a : (struct value){0};
}

static void flow(struct point *to, const struct point *from)
{
	if (!to->reached) {
		*to = *from;
		to->reached = true;
		return;
	}
	to->a = join(to->a, from->a);
	to->x = join(to->x, from->x);
	for (size_t i = 0; i < BPF_MEMWORDS; i++)
		to->mem[i] = join(to->mem[i], from->mem[i]);
}

/* Would the kernel accept this instruction? kernel/seccomp.c, seccomp_check_filter, and
 * net/core/filter.c, bpf_check_classic. */
static bool acceptable(const struct sock_filter *f, size_t at, size_t n)
{
	size_t left = n - at - 1; /* instructions behind this one */
	switch (f->code) {
	case BPF_LD | BPF_W | BPF_ABS:
		return f->k < sizeof(struct seccomp_data) && f->k % 4 == 0;
	case BPF_LD | BPF_MEM:
	case BPF_LDX | BPF_MEM:
	case BPF_ST:
	case BPF_STX:
		return f->k < BPF_MEMWORDS;
	case BPF_ALU | BPF_DIV | BPF_K:
		return f->k != 0;
	case BPF_ALU | BPF_LSH | BPF_K:
	case BPF_ALU | BPF_RSH | BPF_K:
		return f->k < 32;
	case BPF_JMP | BPF_JA:
		return f->k < left;
	case BPF_JMP | BPF_JEQ | BPF_K:
	case BPF_JMP | BPF_JEQ | BPF_X:
	case BPF_JMP | BPF_JGE | BPF_K:
	case BPF_JMP | BPF_JGE | BPF_X:
	case BPF_JMP | BPF_JGT | BPF_K:
	case BPF_JMP | BPF_JGT | BPF_X:
	case BPF_JMP | BPF_JSET | BPF_K:
	case BPF_JMP | BPF_JSET | BPF_X:
		return f->jt < left && f->jf < left;
	case BPF_LD | BPF_W | BPF_LEN:
	case BPF_LDX | BPF_W | BPF_LEN:
	case BPF_LD | BPF_IMM:
	case BPF_LDX | BPF_IMM:
	case BPF_RET | BPF_K:
	case BPF_RET | BPF_A:
	case BPF_MISC | BPF_TAX:
	case BPF_MISC | BPF_TXA:
	case BPF_ALU | BPF_ADD | BPF_K: /* NOLINT(misc-redundant-expression): both are 0 */
	case BPF_ALU | BPF_ADD | BPF_X:
	case BPF_ALU | BPF_SUB | BPF_K:
	case BPF_ALU | BPF_SUB | BPF_X:
	case BPF_ALU | BPF_MUL | BPF_K:
	case BPF_ALU | BPF_MUL | BPF_X:
	case BPF_ALU | BPF_DIV | BPF_X:
	case BPF_ALU | BPF_AND | BPF_K:
	case BPF_ALU | BPF_AND | BPF_X:
	case BPF_ALU | BPF_OR | BPF_K:
	case BPF_ALU | BPF_OR | BPF_X:
	case BPF_ALU | BPF_XOR | BPF_K:
	case BPF_ALU | BPF_XOR | BPF_X:
	case BPF_ALU | BPF_LSH | BPF_X:
	case BPF_ALU | BPF_RSH | BPF_X:
	case BPF_ALU | BPF_NEG:
		return true;
	default:
		return false;
	}
}

static struct value alu(uint16_t op, struct value a, struct value b)
{
	if (op == BPF_NEG)
		return a.known ? just(-a.v) : a;
	if (!a.known || !b.known)
		return (struct value){0};
	switch (op) {
	case BPF_ADD:
		return just(a.v + b.v);
	case BPF_SUB:
		return just(a.v - b.v);
	case BPF_MUL:
		return just(a.v * b.v);
	case BPF_DIV:
		return just(a.v / b.v);
	case BPF_AND:
		return just(a.v & b.v);
	case BPF_OR:
		return just(a.v | b.v);
	case BPF_XOR:
		return just(a.v ^ b.v);
	case BPF_LSH: /* by a register: modulo the width, as the kernel's interpreter masks it */
		return just(a.v << (b.v & 31));
	default:
		return just(a.v >> (b.v & 31));
	}
}

/* 1 taken, 0 not taken, -1 either. */
static int decide(uint16_t op, struct value a, struct value b)
{
	if (!a.known || !b.known)
		return -1;
	switch (op) {
	case BPF_JEQ:
		return a.v == b.v;
	case BPF_JGE:
		return a.v >= b.v;
	case BPF_JGT:
		return a.v > b.v;
	default:
		return (a.v & b.v) != 0;
	}
}

/* Lower is stricter, as a signed number (kernel/seccomp.c, ACTION_ONLY). */
static uint32_t stricter(uint32_t a, uint32_t b)
{
	return (int32_t)(a & SECCOMP_RET_ACTION_FULL) <= (int32_t)(b & SECCOMP_RET_ACTION_FULL) ? a : b;
}

/* Where a conditional jump leads. */
static void branch(struct point *points, size_t at, const struct sock_filter *f, const struct point *now)
{
	struct value b = BPF_SRC(f->code) == BPF_X ? now->x : just(f->k);
	int taken = decide(BPF_OP(f->code), now->a, b);
	if (taken != 0)
		flow(&points[at + 1 + f->jt], now);
	if (taken != 1)
		flow(&points[at + 1 + f->jf], now);
}

/* Instructions that only compute. */
static void compute(struct point *now, const struct sock_filter *f, const struct abstract_data *data)
{
	switch (f->code) {
	case BPF_LD | BPF_W | BPF_ABS:
		now->a = data->word[f->k / 4];
		break;
	case BPF_LD | BPF_W | BPF_LEN:
		now->a = just(sizeof(struct seccomp_data));
		break;
	case BPF_LDX | BPF_W | BPF_LEN:
		now->x = just(sizeof(struct seccomp_data));
		break;
	case BPF_LD | BPF_IMM:
		now->a = just(f->k);
		break;
	case BPF_LDX | BPF_IMM:
		now->x = just(f->k);
		break;
	case BPF_LD | BPF_MEM:
		now->a = now->mem[f->k];
		break;
	case BPF_LDX | BPF_MEM:
		now->x = now->mem[f->k];
		break;
	case BPF_ST:
		now->mem[f->k] = now->a;
		break;
	case BPF_STX:
		now->mem[f->k] = now->x;
		break;
	case BPF_MISC | BPF_TAX:
		now->x = now->a;
		break;
	case BPF_MISC | BPF_TXA:
		now->a = now->x;
		break;
	default:
		now->a = alu(BPF_OP(f->code), now->a, BPF_SRC(f->code) == BPF_X ? now->x : just(f->k));
		break;
	}
}

/* The strictest action that can be returned. */
static uint32_t evaluate(const struct sock_filter *prog, size_t n, const struct abstract_data *data)
{
	if (n == 0 || n > BPF_MAXINSNS || BPF_CLASS(prog[n - 1].code) != BPF_RET)
		return SECCOMP_RET_KILL_PROCESS;
	for (size_t i = 0; i < n; i++)
		if (!acceptable(&prog[i], i, n))
			return SECCOMP_RET_KILL_PROCESS;

	struct point *points = xcalloc(n, sizeof(*points));
	uint32_t worst = SECCOMP_RET_ALLOW;
	points[0].reached = true;
	points[0].a = points[0].x = just(0);
	for (size_t i = 0; i < n; i++) {
		const struct sock_filter *f = &prog[i];
		struct point now = points[i];
		if (!now.reached)
			continue;
		if (f->code == (BPF_JMP | BPF_JA)) {
			flow(&points[i + 1 + f->k], &now);
		} else if (BPF_CLASS(f->code) == BPF_JMP) {
			branch(points, i, f, &now);
		} else if (f->code == (BPF_RET | BPF_K)) {
			worst = stricter(f->k, worst);
		} else if (f->code == (BPF_RET | BPF_A)) {
			worst = stricter(now.a.known ? now.a.v : SECCOMP_RET_KILL_PROCESS, worst);
		} else if (f->code == (BPF_ALU | BPF_DIV | BPF_X) && (!now.x.known || now.x.v == 0)) {
			/* division by zero returns 0 at once (net/core/filter.c, bpf_convert_filter) */
			worst = stricter(SECCOMP_RET_KILL_THREAD, worst);
			if (!now.x.known) {
				now.a = (struct value){0};
				flow(&points[i + 1], &now);
			}
		} else {
			compute(&now, f, data);
			flow(&points[i + 1], &now);
		}
	}
	free(points);
	return worst;
}

uint32_t seccomp__run(const struct sock_filter *prog, size_t n, const struct seccomp_data *data)
{
	struct abstract_data d;
	uint32_t words[DATA_WORDS];
	memcpy(words, data, sizeof(words));
	for (size_t i = 0; i < DATA_WORDS; i++)
		d.word[i] = just(words[i]);
	return evaluate(prog, n, &d);
}

/* The calls that are made in a process for an update, and what is known of their arguments: one row for each set of
 * values that an argument may have, and nothing is known of the others. Whoever makes a call in a new way adds a row; a
 * call that is not listed is taken to be made with any arguments. */
struct use {
	int nr;
	unsigned known; /* bit i: argument i is known */
	const char *name;
	uint64_t arg[6];
};

static const struct use uses[] = {
    {SYS_clone, 1 << 0, "clone", {HAND_CLONE_FLAGS}},
    {SYS_rt_sigreturn, 0, "rt_sigreturn", {0}},
    {SYS_openat, 1 << 2, "openat", {0, 0, O_RDONLY | O_CLOEXEC}},
    {SYS_memfd_create, 0, "memfd_create", {0}},
    {SYS_close, 0, "close", {0}},
    {SYS_mmap, 1 << 2, "mmap", {0, 0, PROT_NONE}},
    {SYS_mmap, 1 << 2, "mmap", {0, 0, PROT_READ}},
    {SYS_mmap, 1 << 2, "mmap", {0, 0, PROT_READ | PROT_WRITE}},
    {SYS_mmap, 1 << 2, "mmap", {0, 0, PROT_READ | PROT_EXEC}},
    {SYS_munmap, 0, "munmap", {0}},
    {SYS_mremap, 0, "mremap", {0}},
    /* never to make anything executable */
    {SYS_mprotect, 1 << 2, "mprotect", {0, 0, PROT_NONE}},
    {SYS_mprotect, 1 << 2, "mprotect", {0, 0, PROT_READ}},
    {SYS_mprotect, 1 << 2, "mprotect", {0, 0, PROT_READ | PROT_WRITE}},
    {SYS_madvise, 1 << 2, "madvise", {0, 0, MADV_DONTNEED}},
    {SYS_getpid, 0, "getpid", {0}},
    {SYS_exit, 1 << 0, "exit", {0}},
};

static bool allows_use(const struct sock_filter *prog, size_t n, int nr, const struct use *u)
{
	struct abstract_data d = {0};
	d.word[offsetof(struct seccomp_data, nr) / 4] = just((uint32_t)nr);
	d.word[offsetof(struct seccomp_data, arch) / 4] = just(AUDIT_ARCH_X86_64);
	for (unsigned i = 0; u && i < 6; i++) {
		size_t at = offsetof(struct seccomp_data, args) / 4 + 2 * (size_t)i;
		if (!(u->known >> i & 1))
			continue;
		d.word[at] = just((uint32_t)u->arg[i]);
		d.word[at + 1] = just((uint32_t)(u->arg[i] >> 32));
	}
	uint32_t action = evaluate(prog, n, &d) & SECCOMP_RET_ACTION_FULL;
	return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG;
}

static bool allows(const struct sock_filter *prog, size_t n, int nr)
{
	bool listed = false;
	for (size_t i = 0; i < sizeof(uses) / sizeof(uses[0]); i++) {
		if (uses[i].nr != nr)
			continue;
		listed = true;
		if (!allows_use(prog, n, nr, &uses[i]))
			return false;
	}
	return listed || allows_use(prog, n, nr, NULL);
}

static const char *name_of(int nr)
{
	for (size_t i = 0; i < sizeof(uses) / sizeof(uses[0]); i++)
		if (uses[i].nr == nr)
			return uses[i].name;
	return NULL;
}

static struct err *refuse(const struct process *p, pid_t tid, int nr)
{
	const char *name = name_of(nr);
	char number[16];
	snprintf(number, sizeof(number), "number %d", nr);
	return process__err(p, tid, ERR_REFUSED, 0,
			    "allow the call in the program's seccomp filter, or restart it instead",
			    "its seccomp filter does not allow the system call %s", name ? name : number);
}

struct err *seccomp__check(const struct process *p, pid_t tid, const int *syscalls)
{
	char path[40];
	char status[8192];
	snprintf(path, sizeof(path), "task/%d/status", tid);
	ssize_t len = proc_read(p->dirfd, path, status, sizeof(status));
	if (len < 0)
		return process__err(p, tid, ERR_GONE, (int)-len, NULL, "its status cannot be read");
	const char *mode = proc_field(status, "Seccomp");
	if (!mode || *mode == '0')
		return NULL; /* no such line: a kernel without seccomp (proc(5)) */
	if (*mode != '2')
		return process__err(p, tid, ERR_REFUSED, 0, NULL, "it runs in strict seccomp mode");
	struct tracee t = {.p = p, .tid = tid};
	for (unsigned i = 0;; i++) {
		FREE_CLEANUP void *prog = NULL;
		size_t n = 0;
		TRY(tracee__seccomp_filter(&t, i, &prog, &n));
		if (n == 0)
			return NULL;
		for (const int *nr = syscalls; *nr >= 0; nr++)
			if (!allows(prog, n, *nr))
				return refuse(p, tid, *nr);
	}
}
