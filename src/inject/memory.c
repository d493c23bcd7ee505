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

struct err *process__write(const struct process *p, taddr_t to, const void *from, size_t len)
{
	CLOSE_CLEANUP int fd = openat(p->dirfd, "mem", O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		int e = errno;
		TRY(process__alive(p));
		if (e == ESRCH) /* threads of it may take a moment longer to end */
			return process__err(p, 0, ERR_GONE, 0, NULL, "the process is ending");
		return process__err(p, 0, e == EACCES || e == EPERM ? ERR_PERMISSION : ERR_UNREADABLE, e, NULL,
				    "its memory cannot be opened");
	}
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
