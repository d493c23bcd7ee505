/* Who cannot share memory with whom, found out once for all processes.
 *
 * Two processes that do not share their memory never will: a process gets other memory by execve(2) alone, and that is
 * new (fs/exec.c, exec_mmap); who shares is born so, by clone(2) with CLONE_VM (kernel/fork.c, copy_mm). So of
 * processes that were there, and apart, only those need be asked again that are new since. To compare each with each
 * would take too long; kcmp(2) tells an order of memories too, which stays as long as the machine is up (kernel/kcmp.c,
 * kcmp_ptr), so each is compared with a few that do not change: processes of our own that do nothing.
 *
 *     list all, and open each         from now on a PID that was used again is noticed (pidfd_open(2))
 *     order them by the pivots        who shares memory gets the same place: neither can have changed its memory, or
 * the ask if the pivots live still    other one would be younger than the list
 *     ...
 *     list all again                  what is in the list, has not ended, and has another place shares nothing
 */
#ifndef LLU_INJECT_CENSUS_H
#define LLU_INJECT_CENSUS_H

#include <stddef.h>
#include <sys/types.h>

struct census;

/* Takes some 10 us for each process, and keeps a file open for each; copies of this process (fork(2)) may use it. NULL:
 * it could not be taken. To be released with census__free(). No other child of the caller may be waited for by anybody
 * else meanwhile, and SIGCHLD is not ignored. */
struct census *census__take(void);
void census__free(struct census *c);

/* Leaves those of `pids` in place, `n` of them, that may share the memory of `pid`, and says how many. `pids` was read
 * after the census was taken. NULL: all may. */
size_t census__may_share(const struct census *c, pid_t pid, pid_t *pids, size_t n);

#endif
