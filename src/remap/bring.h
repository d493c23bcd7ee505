/* What the hand does for the surgery: files and pages brought into a process. */
#ifndef LLU_REMAP_BRING_H
#define LLU_REMAP_BRING_H

#include <sys/mman.h>

#include "inject/hand.h"
#include "remap/store.h"

/* How address space is reserved: what the window is made of. */
enum { BRING_RESERVED_FLAGS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE };

/* One call whose failure is an error: ERR_REFUSED where memory or permission is lacking, else ERR_SYSTEM.
 * `what` goes on from "the process could not". Errors also: as hand__call(). */
MUST_CHECK struct err *bring__call(struct hand *h, const char *what, int64_t nr, const uint64_t arg[6],
				   int64_t *result);
/* mmap(2) at a fixed place: whatever is mapped there is replaced. */
MUST_CHECK struct err *bring__map(struct hand *h, const char *what, taddr_t a, uint64_t len, int prot, int flags,
				  int fd, uint64_t offset);
MUST_CHECK struct err *bring__protect(struct hand *h, taddr_t a, uint64_t len, int prot);
/* Makes a range address space without permissions or contents. */
MUST_CHECK struct err *bring__reserve(struct hand *h, taddr_t a, uint64_t len);

/* Opens a file in the process for the hand: the stored one if the process can reach that very file under
 * its name, else (another mount namespace, a chroot, no permission) memory of the process's own, a memfd called
 * `name`, with the same `len` bytes. *fd is the hand's, to be closed by it; *shared says which way it went. */
MUST_CHECK struct err *bring__open(const struct process *p, struct hand *h, const struct stored *stored,
				   const uint8_t *bytes, size_t len, const char *name, int64_t *fd, bool *shared);

#endif
