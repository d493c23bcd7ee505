/* Reading and writing the memory of a process, in bulk. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fault.h"
#include "inject/proc.h"

/* process_vm_readv(2) stops at the first page it cannot read and says how far it came; pages of
 * devices are such pages (mm/gup.c, check_vma_flags: VM_IO, VM_PFNMAP). */
struct err *process__read(const struct process *p, taddr_t from, void *to, size_t len)
{
	size_t done = 0;
	while (done < len) {
		struct iovec local = {(char *)to + done, len - done};
		struct iovec remote = {(void *)(uintptr_t)(from.v + done), len - done};
		ssize_t n = process_vm_readv(p->pid, &local, 1, &remote, 1, 0);
		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		int e = n < 0 ? errno : EFAULT;
		TRY(process__alive(p));
		if (e == ESRCH)
			return process__err(p, 0, ERR_GONE, 0, NULL, "the process ended");
		if (e == EPERM)
			return process__err(p, 0, ERR_PERMISSION, e,
					    "run as root (its owner may do it too, unless kernel.yama.ptrace_scope "
					    "says otherwise)",
					    "its memory may not be read");
		return process__err(p, 0, ERR_UNREADABLE, e, NULL, "its memory cannot be read at 0x%" PRIx64,
				    from.v + done);
	}
	return process__alive(p);
}

static struct err *open_memory(const struct process *p, int *fd)
{
	*fd = openat(p->dirfd, "mem", O_WRONLY | O_CLOEXEC);
	if (*fd >= 0)
		return NULL;
	int e = errno;
	TRY(process__alive(p));
	if (e == ESRCH) /* threads of it may take a moment longer to end */
		return process__err(p, 0, ERR_GONE, 0, NULL, "the process is ending");
	return process__err(p, 0, e == EACCES || e == EPERM ? ERR_PERMISSION : ERR_UNREADABLE, e, NULL,
			    "its memory cannot be opened");
}

/* Part of its callers, by whose names tests know the fault points. */
static inline __attribute__((always_inline)) struct err *write_to(const struct process *p, int fd, taddr_t to,
								  const void *from, size_t len)
{
	size_t done = 0;
	fault__point("write before");
	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)from + done, fault__piece(len, done), (off_t)(to.v + done));
		if (n > 0) {
			done += (size_t)n;
			fault__point(done < len ? "write in the middle" : "write after");
			continue;
		}
		int e = n < 0 ? errno : EIO;
		if (e == EINTR)
			continue;
		TRY(process__alive(p));
		return process__err(p, 0, ERR_UNREADABLE, e, NULL, "its memory cannot be written at 0x%" PRIx64,
				    to.v + done);
	}
	return NULL;
}

struct err *process__write(const struct process *p, taddr_t to, const void *from, size_t len)
{
	CLOSE_CLEANUP int fd = -1;
	TRY(open_memory(p, &fd));
	return write_to(p, fd, to, from, len);
}

enum { WORDS_AT_ONCE = 256 }; /* below IOV_MAX (process_vm_readv(2)) */

/* At most WORDS_AT_ONCE. */
static struct err *read_words(const struct process *p, const struct word_change *w, size_t n, uint64_t *now)
{
	struct iovec local = {now, n * sizeof(*now)}, remote[WORDS_AT_ONCE];
	for (size_t i = 0; i < n; i++)
		remote[i] = (struct iovec){(void *)(uintptr_t)w[i].at.v, sizeof(*now)};
	if (process_vm_readv(p->pid, &local, 1, remote, n, 0) == (ssize_t)(n * sizeof(*now)))
		return process__alive(p);
	for (size_t i = 0; i < n; i++) /* which one, and why not */
		TRY(process__read(p, w[i].at, &now[i], sizeof(now[i])));
	return NULL;
}

struct err *process__change_words(const struct process *p, const struct word_change *w, size_t n)
{
	CLOSE_CLEANUP int fd = -1;
	uint64_t now[WORDS_AT_ONCE];
	if (n)
		TRY(open_memory(p, &fd));
	for (size_t done = 0; done < n;) {
		size_t some = n - done < WORDS_AT_ONCE ? n - done : WORDS_AT_ONCE;
		TRY(read_words(p, w + done, some, now));
		for (size_t i = 0; i < some; i++)
			if (now[i] == w[done + i].from)
				TRY(write_to(p, fd, w[done + i].at, &w[done + i].to, sizeof(w[done + i].to)));
		done += some;
	}
	return NULL;
}
