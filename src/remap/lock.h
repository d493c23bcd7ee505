/* One operation per target at a time: a lock file for each, in /run/llu (for others than root in
 * $XDG_RUNTIME_DIR/llu). The lock dies with its owner (flock(2)). */
#ifndef LLU_REMAP_LOCK_H
#define LLU_REMAP_LOCK_H

#include <sys/types.h>

#include "base/error.h"

/* Takes the lock of a process; *fd holds it until it is closed. ERR_BUSY when somebody else has it. */
MUST_CHECK struct err *lock__take(pid_t pid, int *fd);
/* Gives the lock back and removes its file. */
void lock__drop(pid_t pid, int fd);

#endif
