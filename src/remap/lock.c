/* See lock.h. */
#include "remap/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

static char *folder(void)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	if (geteuid() == 0)
		return xstrdup("/run/llu");
	if (runtime && *runtime == '/')
		return xasprintf("%s/llu", runtime);
	return xasprintf("/tmp/llu-%u", geteuid());
}

struct err *lock__take(pid_t pid, int *fd)
{
	FREE_CLEANUP char *where = folder();
	struct stat st;
	if ((mkdir(where, 0700) < 0 && errno != EEXIST) || lstat(where, &st) < 0)
		return err__new(ERR_SYSTEM, errno, where, NULL, "cannot make the folder for locks");
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		return err__new(ERR_REFUSED, 0, where, NULL, "the folder for locks could be changed by another user");
	FREE_CLEANUP char *path = xasprintf("%s/%d.lock", where, pid);
	for (;;) {
		struct stat here, there;
		*fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (*fd < 0)
			return err__new(ERR_SYSTEM, errno, path, NULL, "cannot make the lock file");
		if (flock(*fd, LOCK_EX | LOCK_NB) < 0) {
			struct err *e = err__new(ERR_BUSY, 0, NULL, "wait for it to end",
						 "another operation on process %d is under way", pid);
			close(*fd);
			*fd = -1;
			return e;
		}
		/* the former owner may have removed the file between our open and our lock */
		if (fstat(*fd, &here) == 0 && stat(path, &there) == 0 && here.st_ino == there.st_ino)
			return NULL;
		close(*fd);
	}
}

void lock__drop(pid_t pid, int fd)
{
	if (fd < 0)
		return;
	FREE_CLEANUP char *where = folder();
	FREE_CLEANUP char *path = xasprintf("%s/%d.lock", where, pid);
	unlink(path);
	close(fd);
}
