/* See bring.h. */
#include "remap/bring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fault.h"
#include "inject/seccomp.h"

/* ---- calls ---- */

struct err *bring__call(struct hand *h, const char *what, int64_t nr, const uint64_t arg[6], int64_t *result)
{
	TRY(hand__call(h, nr, arg, result));
	if (*result < 0 && *result > -4096)
		return err__new(*result == -ENOMEM || *result == -EPERM || *result == -EACCES ? ERR_REFUSED
											      : ERR_SYSTEM,
				(int)-*result, NULL, NULL, "the process could not %s", what);
	return NULL;
}

struct err *bring__map(struct hand *h, const char *what, taddr_t a, uint64_t len, int prot, int flags, int fd,
		       uint64_t offset)
{
	int64_t result;
	const uint64_t arg[6] = {a.v, len, (uint64_t)prot, (uint64_t)(flags | MAP_FIXED), (uint64_t)fd, offset};
	TRY(bring__call(h, what, SYS_mmap, arg, &result));
	return (uint64_t)result == a.v ? NULL
				       : err__new(ERR_SURGERY, 0, NULL, NULL, "the process mapped at another place");
}

struct err *bring__protect(struct hand *h, taddr_t a, uint64_t len, int prot)
{
	int64_t result;
	const uint64_t arg[6] = {a.v, len, (uint64_t)prot};
	return bring__call(h, "protect pages", SYS_mprotect, arg, &result);
}

struct err *bring__reserve(struct hand *h, taddr_t a, uint64_t len)
{
	return bring__map(h, "reserve address space", a, len, PROT_NONE, BRING_RESERVED_FLAGS, -1, 0);
}

/* ---- files ---- */

/* The image from the store, if the process can reach that very file under its name. */
static struct err *open_stored(const struct process *p, struct hand *h, const struct stored *stored, int64_t *fd)
{
	struct stat st;
	*fd = -1;
	FREE_CLEANUP char *seen = xasprintf("/proc/%d/root%s", process__pid(p), stored->path);
	size_t len = strlen(stored->path) + 1;
	if (stat(seen, &st) < 0 || st.st_dev != stored->dev || st.st_ino != stored->ino || len > HAND_DATA_SIZE)
		return NULL;
	TRY(process__write(p, hand__data(h), stored->path, len));
	const uint64_t arg[6] = {(uint64_t)AT_FDCWD, hand__data(h).v, O_RDONLY | O_CLOEXEC};
	TRY(hand__call(h, SYS_openat, arg, fd));
	if (*fd < 0)
		return NULL; /* not readable for this process: goes the other way */
	FREE_CLEANUP char *opened = xasprintf("/proc/%d/task/%d/fd/%ld", process__pid(p), hand__tid(h), (long)*fd);
	if (stat(opened, &st) < 0 || st.st_dev != stored->dev || st.st_ino != stored->ino)
		return err__new(ERR_SURGERY, 0, stored->path, NULL, "the process opened another file");
	return NULL;
}

/* Another mount namespace, a chroot, no permission: the image in memory of the process's own, with the same
 * bytes, so that the next update finds all it needs there too. */
static struct err *open_memory(const struct process *p, struct hand *h, const uint8_t *bytes, size_t len,
			       const char *name, int64_t *fd)
{
	static const int needed[] = {SYS_memfd_create, -1};
	TRY(seccomp__check(p, hand__tid(h), needed));
	TRY(process__write(p, hand__data(h), name, strlen(name) + 1));
	const uint64_t arg[6] = {hand__data(h).v, MFD_CLOEXEC};
	TRY(bring__call(h, "make memory for the new code", SYS_memfd_create, arg, fd));
	FREE_CLEANUP char *path = xasprintf("/proc/%d/task/%d/fd/%ld", process__pid(p), hand__tid(h), (long)*fd);
	CLOSE_CLEANUP int file = open(path, O_WRONLY | O_CLOEXEC);
	size_t done = 0;
	while (file >= 0 && done < len) {
		ssize_t n = write(file, bytes + done, fault__piece(len, done));
		if (n < 0 && errno != EINTR)
			break;
		done += n > 0 ? (size_t)n : 0;
		fault__point("memfd in the middle");
	}
	return done == len ? NULL
			   : err__new(ERR_SYSTEM, errno, NULL, NULL, "cannot write the new code into the process");
}

struct err *bring__open(const struct process *p, struct hand *h, const struct stored *stored, const uint8_t *bytes,
			size_t len, const char *name, int64_t *fd, bool *shared)
{
	TRY(open_stored(p, h, stored, fd));
	*shared = *fd >= 0;
	return *shared ? NULL : open_memory(p, h, bytes, len, name, fd);
}
