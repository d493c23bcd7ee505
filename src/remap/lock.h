/* One operation at a time.
 *
 *     on all processes    operation.lock in /run/llu (for others than root $XDG_RUNTIME_DIR/llu, else /tmp/llu-UID):
 *                         shared by all llvupdate, cllvupdate wants it alone
 *     on one process      /proc/PID/mem: whoever may operate on a process can open it, and nobody else can, so that
 *                         root and the owner meet here, and strangers cannot hold anybody up
 *     across mounts       of /proc, as containers have them, these are different files. So the header in the process
 *     of proc(5)          itself also says who is at work on it (vapi.h), which is looked at before anything is
 *                         touched, and again in the freeze
 *
 * Locks die with their owner (flock(2)); an owner in a header is asked for by its PID, start time and PID namespace.
 */
#ifndef LLU_REMAP_LOCK_H
#define LLU_REMAP_LOCK_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "image/vapi.h"

/* The folder of locks and journals, made if need be; the caller frees it. It must belong to the caller and be writable
 * to nobody else (ERR_REFUSED). */
MUST_CHECK struct err *lock__folder(char **out);

struct lock;

/* For an operation on one process. ERR_BUSY when there is another, or cllvupdate is at work; ERR_PERMISSION, ERR_GONE.
 * lock__drop() gives it back; NULL is no lock. */
MUST_CHECK struct err *lock__take(pid_t pid, struct lock **out);
void lock__drop(struct lock *l);

/* For cllvupdate: no operation is under way, and none begins, until *fd is closed. ERR_BUSY when one is. */
MUST_CHECK struct err *lock__all(int *fd);
/* One process, while lock__all() is held; ends with *fd. Errors: as lock__take(). */
MUST_CHECK struct err *lock__one(pid_t pid, int *fd);

/* ---- the owner in a header ---- */

/* Puts this tool there. */
void owner__set(struct vapi_header *h);
void owner__clear(struct vapi_header *h);
bool owner__is_me(const struct vapi_header *h);
/* Does another tool that is alive own it? One of a PID namespace into which we cannot look counts as alive: root of the
 * first one sees all. */
bool owner__is_alive(const struct vapi_header *h);

#endif
