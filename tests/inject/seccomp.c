/* The evaluator of seccomp filters gives the kernel's answers. */
#include "inject/seccomp.h"

#include <criterion/criterion.h>
#include <stddef.h>

#define LOAD(field)     BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RET(k)          BPF_STMT(BPF_RET | BPF_K, (k))
#define IF(op, k, t, f) BPF_JUMP(BPF_JMP | (op) | BPF_K, (k), (t), (f))

static uint32_t run(const struct sock_filter *f, size_t n, int nr, uint64_t arg0)
{
	struct seccomp_data d = {.nr = nr, .arch = 0xc000003e, .args = {arg0}};
	return seccomp__run(f, n, &d);
}
#define RUN(f, nr, arg0) run((f), sizeof(f) / sizeof((f)[0]), (nr), (arg0))

Test(seccomp, decides_by_number)
{
	const struct sock_filter f[] = {LOAD(nr), IF(BPF_JEQ, 56, 0, 1), RET(SECCOMP_RET_ERRNO | 1),
					RET(SECCOMP_RET_ALLOW)};
	cr_expect_eq(RUN(f, 56, 0), SECCOMP_RET_ERRNO | 1);
	cr_expect_eq(RUN(f, 57, 0), SECCOMP_RET_ALLOW);
}

Test(seccomp, decides_by_argument)
{
	const struct sock_filter f[] = {
	    LOAD(args[0]), IF(BPF_JGE, 100, 2, 0), IF(BPF_JSET, 1, 1, 0), RET(SECCOMP_RET_ALLOW), RET(SECCOMP_RET_TRAP),
	};
	cr_expect_eq(RUN(f, 0, 4), SECCOMP_RET_ALLOW);
	cr_expect_eq(RUN(f, 0, 5), SECCOMP_RET_TRAP);
	cr_expect_eq(RUN(f, 0, 100), SECCOMP_RET_TRAP);
	cr_expect_eq(RUN(f, 0, 1ull << 32), SECCOMP_RET_ALLOW, "the low half alone was loaded");
}

Test(seccomp, computes)
{
	const struct sock_filter f[] = {
	    LOAD(args[0]),
	    BPF_STMT(BPF_ST, 3),
	    BPF_STMT(BPF_MISC | BPF_TAX, 0),
	    BPF_STMT(BPF_ALU | BPF_MUL | BPF_X, 0),
	    BPF_STMT(BPF_LDX | BPF_MEM, 3),
	    BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0),
	    BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 4),
	    BPF_STMT(BPF_ALU | BPF_NEG, 0),
	    BPF_STMT(BPF_RET | BPF_A, 0),
	};
	cr_expect_eq(RUN(f, 0, 7), -(uint32_t)((7 * 7 - 7) << 4));
}

/* Division by zero ends the program with 0, which kills the thread. */
Test(seccomp, divides_by_zero_as_the_kernel_does)
{
	const struct sock_filter f[] = {
	    BPF_STMT(BPF_LDX | BPF_IMM, 0),
	    BPF_STMT(BPF_LD | BPF_IMM, 5),
	    BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0),
	    RET(SECCOMP_RET_ALLOW),
	};
	cr_expect_eq(RUN(f, 0, 0), SECCOMP_RET_KILL_THREAD);
}

/* What the kernel would not have accepted must not be taken for "allowed". */
Test(seccomp, fails_closed)
{
	const struct sock_filter no_return[] = {LOAD(nr)};
	const struct sock_filter jumps_out[] = {IF(BPF_JEQ, 0, 5, 5), RET(SECCOMP_RET_ALLOW)};
	const struct sock_filter jumps_far[] = {BPF_STMT(BPF_JMP | BPF_JA, 0xffffffff), RET(SECCOMP_RET_ALLOW)};
	const struct sock_filter loads_out[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), RET(SECCOMP_RET_ALLOW)};
	const struct sock_filter loads_odd[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), RET(SECCOMP_RET_ALLOW)};
	const struct sock_filter memory_out[] = {BPF_STMT(BPF_ST, 16), RET(SECCOMP_RET_ALLOW)};
	const struct sock_filter shifts_out[] = {BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), RET(SECCOMP_RET_ALLOW)};
	const struct sock_filter divides[] = {BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), RET(SECCOMP_RET_ALLOW)};
	const struct sock_filter unknown[] = {BPF_STMT(BPF_LD | BPF_B | BPF_IND, 0), RET(SECCOMP_RET_ALLOW)};
	cr_expect_eq(RUN(no_return, 0, 0), SECCOMP_RET_KILL_PROCESS);
	cr_expect_eq(RUN(jumps_out, 0, 0), SECCOMP_RET_KILL_PROCESS);
	cr_expect_eq(RUN(jumps_far, 0, 0), SECCOMP_RET_KILL_PROCESS);
	cr_expect_eq(RUN(loads_out, 0, 0), SECCOMP_RET_KILL_PROCESS);
	cr_expect_eq(RUN(loads_odd, 0, 0), SECCOMP_RET_KILL_PROCESS);
	cr_expect_eq(RUN(memory_out, 0, 0), SECCOMP_RET_KILL_PROCESS);
	cr_expect_eq(RUN(shifts_out, 0, 0), SECCOMP_RET_KILL_PROCESS);
	cr_expect_eq(RUN(divides, 0, 0), SECCOMP_RET_KILL_PROCESS);
	cr_expect_eq(RUN(unknown, 0, 0), SECCOMP_RET_KILL_PROCESS);
	cr_expect_eq(seccomp__run(no_return, 0, &(struct seccomp_data){0}), SECCOMP_RET_KILL_PROCESS);
}
