/* See procfs.h. */
#include "machine/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

struct err *procfs__err(pid_t pid, int errnum, const char *what)
{
	FREE_CLEANUP char *subject = xasprintf("pid %d", pid);
	if (errnum == ENOENT || errnum == ESRCH)
		return err__new(ERR_GONE, 0, subject, NULL, "no such process");
	if (errnum == EACCES || errnum == EPERM)
		return err__new(ERR_PERMISSION, errnum, subject, "run as root or as the owner of the process",
				"%s cannot be read", what);
	return err__new(ERR_UNREADABLE, errnum, subject, NULL, "%s cannot be read", what);
}

struct err *procfs__open(pid_t pid, int *dir)
{
	*dir = -1;
	if (pid <= 0) {
		FREE_CLEANUP char *subject = xasprintf("pid %d", pid);
		return err__new(ERR_USAGE, 0, subject, NULL, "is not the id of a process");
	}
	char path[32];
	snprintf(path, sizeof(path), "/proc/%d", pid);
	*dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *dir < 0 ? procfs__err(pid, errno, "its folder in /proc") : NULL;
}

struct err *procfs__text(pid_t pid, const char *name, size_t max, char **text)
{
	*text = NULL;
	CLOSE_CLEANUP int dir = -1;
	TRY(procfs__open(pid, &dir));
	CLOSE_CLEANUP int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return procfs__err(pid, errno, name);
	size_t n = 0, size = 4096;
	char *buf = xmalloc(size);
	for (;;) {
		ssize_t got = read(fd, buf + n, size - 1 - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 || n + (size_t)got > max) {
			int why = got < 0 ? errno : EFBIG;
			free(buf);
			return procfs__err(pid, why, name);
		}
		n += (size_t)got;
		if (got == 0)
			break;
		if (n == size - 1)
			buf = xreallocarray(buf, size *= 2, 1);
	}
	buf[n] = '\0';
	*text = buf;
	return NULL;
}

time_t procfs__started(uint64_t start_time)
{
	struct timespec now, up;
	clock_gettime(CLOCK_REALTIME, &now);
	clock_gettime(CLOCK_BOOTTIME, &up);
	return now.tv_sec - up.tv_sec + (time_t)(start_time / (uint64_t)sysconf(_SC_CLK_TCK));
}

bool procfs__is_kernel_thread(pid_t pid)
{
	enum { KTHREAD = 0x00200000 }; /* include/linux/sched.h, PF_KTHREAD; proc(5), stat, field 9 */
	FREE_CLEANUP char *stat = NULL;
	ERR_CLEANUP struct err *e = procfs__text(pid, "stat", 4096, &stat);
	const char *field = e ? NULL : strrchr(stat, ')'); /* the end of the second */
	for (int i = 2; field && i < 9; i++)
		field = strchr(field + 1, ' ');
	return field && (strtoul(field, NULL, 10) & KTHREAD);
}

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

struct err *procfs__top_at(pid_t pid, int dir, char **out)
{
	*out = NULL;
	struct stat own, its;
	if (fstatat(dir, "ns/mnt", &its, 0) < 0)
		return procfs__err(pid, errno, "its mount namespace");
	if (stat("/proc/self/ns/mnt", &own) == 0 && same(&own, &its)) {
		*out = xstrdup("/");
		return NULL;
	}
	char root[PATH_MAX];
	ssize_t n = readlinkat(dir, "root", root, sizeof(root) - 1);
	if (n < 0)
		return procfs__err(pid, errno, "its root");
	root[n] = '\0';
	char *path = xstrdup("root");
	for (const char *s = root; s && s[0] && s[1]; s = strchr(s + 1, '/')) {
		char *longer = xasprintf("%s/..", path);
		free(path);
		path = longer;
	}
	*out = path;
	return NULL;
}

struct err *procfs__top(pid_t pid, char **out)
{
	*out = NULL;
	CLOSE_CLEANUP int dir = -1;
	FREE_CLEANUP char *below = NULL;
	TRY(procfs__open(pid, &dir));
	TRY(procfs__top_at(pid, dir, &below));
	*out = below && strcmp(below, "/") == 0 ? xstrdup("/") : xasprintf("/proc/%d/%s", pid, below);
	return NULL;
}
