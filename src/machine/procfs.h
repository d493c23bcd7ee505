/* Files of /proc/PID, for the parts of this room. No handle is kept: a PID that is used again in between is another
 * process, as it is for ps(1). */
#ifndef LLU_MACHINE_PROCFS_H
#define LLU_MACHINE_PROCFS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/error.h"

/* Opens the directory /proc/PID, which stays with this process. ERR_GONE, ERR_USAGE when `pid` is no PID. The caller
 * closes it. */
MUST_CHECK struct err *procfs__open(pid_t pid, int *dir);
/* The error that errno value `errnum` stands for after something failed in /proc/PID: ERR_GONE, ERR_PERMISSION or
 * ERR_UNREADABLE. */
struct err *procfs__err(pid_t pid, int errnum, const char *what) __attribute__((returns_nonnull, warn_unused_result));
/* A file of /proc/PID, whole, with a zero byte behind it, which the caller frees. More than `max` bytes:
 * ERR_UNREADABLE. Zero bytes within end the text. */
MUST_CHECK struct err *procfs__text(pid_t pid, const char *name, size_t max, char **text);

/* The path to the top of the tree of mounts that the process lives in, as the caller can open it: what paths in
 * /proc/PID/maps begin at, also for a process that has changed its root by chroot(2) (fs/d_path.c, prepend_path: up to
 * the caller's root where the file can be reached from there, else to the top of the mount namespace). "/" where that
 * is the caller's own mount namespace; else "/proc/PID/root", with a ".." for each folder that the process's root is
 * below the top. The caller frees it. ERR_GONE, ERR_PERMISSION (it takes what ptrace(2) takes), ERR_UNREADABLE. */
MUST_CHECK struct err *procfs__top(pid_t pid, char **out);
/* The same with the process's open directory, and the path as openat(2) takes it with that. */
MUST_CHECK struct err *procfs__top_at(pid_t pid, int dir, char **out);

/* The time at which a process was started, of field 22 of its stat, as the clock is set now (proc(5)). */
time_t procfs__started(uint64_t start_time);

/* Is it a kernel thread? False also when that cannot be read. */
bool procfs__is_kernel_thread(pid_t pid);

#endif
