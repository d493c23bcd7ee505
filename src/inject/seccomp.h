/* Does the target's seccomp filter allow the system calls that the surgery makes?
 *
 * Filters are read with PTRACE_SECCOMP_GET_FILTER (ptrace(2)) and evaluated (kernel/seccomp.c,
 * net/core/filter.c for the classic BPF subset), never suspended: a tracer that dies while a filter
 * is suspended changes what the target may do.
 */
#ifndef LLU_INJECT_SECCOMP_H
#define LLU_INJECT_SECCOMP_H

#include <linux/filter.h>
#include <linux/seccomp.h>

#include "inject/process.h"

/* Evaluates one classic BPF program over `data`: the 32-bit action it returns, or SECCOMP_RET_KILL_PROCESS
 * for a program that the kernel would not have accepted (law 5: fail closed). */
uint32_t seccomp__run(const struct sock_filter *prog, size_t n, const struct seccomp_data *data);

/* ERR_REFUSED with the name of the first of `syscalls` (ends with -1) that some filter of the
 * stopped, traced thread `tid` does not plainly allow with any argument values that the surgery
 * uses, or when the filters cannot be read. NULL when seccomp is off or all are allowed. */
MUST_CHECK struct err *seccomp__check(const struct process *p, pid_t tid, const int *syscalls);

#endif
