/* See turn.h. */
#include "base/turn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"

struct turns {
	int fd;
};

int turns__create(void)
{
	return memfd_create("llu-turns", MFD_CLOEXEC);
}

struct turns *turns__open(int file)
{
	char path[sizeof("/proc/self/fd/") + 11];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	struct turns *t = xcalloc(1, sizeof(*t));
	t->fd = fd;
	return t;
}

void turns__close(struct turns *t)
{
	if (!t)
		return;
	close(t->fd);
	free(t);
}

/* That fails with a kernel that has no memory for a lock: then everybody goes at once, which is slower and no more. */
static void set(const struct turns *t, enum turn_of what, short type)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = what, .l_len = 1};
	while (t && fcntl(t->fd, F_OFD_SETLKW, &l) < 0 && errno == EINTR)
		;
}

void turn__take(const struct turns *t, enum turn_of what)
{
	set(t, what, F_WRLCK);
}

void turn__give(const struct turns *t, enum turn_of what)
{
	set(t, what, F_UNLCK);
}
