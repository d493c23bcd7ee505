/* See mqueue.h. */
#include "inject/mqueue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "inject/proc.h"

/* A file of another name is not looked at: to have its descriptor and to close it again may mean to ask a file
 * system that never answers. */
static bool may_be_queue(int dir, const char *fd)
{
	char to[300];
	ssize_t n = readlinkat(dir, fd, to, sizeof(to) - 1);
	if (n <= 1 || to[0] != '/')
		return false;
	to[n] = '\0';
	return !strchr(to + 1, '/') || strncmp(to, "/dev/mqueue/", 12) == 0;
}

/* The text that reading a queue gives (mq_overview(7)) ends with "NOTIFY_PID:PID ", 0 for none. */
static struct err *check(const struct process *p, int fd)
{
	char path[40];
	char text[128] = "";
	struct mq_attr attr;
	CLOSE_CLEANUP int own = (int)syscall(SYS_pidfd_getfd, p->pidfd, fd, 0);
	if (own < 0 && errno == EBADF)
		return NULL; /* closed meanwhile */
	if (own >= 0 && syscall(SYS_mq_getsetattr, own, NULL, &attr) < 0)
		return NULL; /* no queue */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", own);
	CLOSE_CLEANUP int readable = own < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = readable < 0 ? -1 : pread(readable, text, sizeof(text) - 1, 0);
	const char *pid = n < 0 ? NULL : strstr(text, "NOTIFY_PID:");
	if (!pid)
		return process__err(p, 0, ERR_REFUSED, errno, NULL, "descriptor %d, a message queue, cannot be read",
				    fd);
	if (strtol(pid + strlen("NOTIFY_PID:"), NULL, 10) == p->pid)
		return process__err(p, 0, ERR_REFUSED, 0, "update it when the notification has come",
				    "it waits for the notification of a message queue (descriptor %d)", fd);
	return NULL;
}

struct err *mqueue__check(const struct process *p)
{
	int dir = openat(p->dirfd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = dir < 0 ? NULL : fdopendir(dir);
	struct err *e = NULL;
	if (!d) {
		int errnum = errno;
		if (dir >= 0)
			close(dir);
		TRY(process__alive(p));
		return process__err(p, 0, ERR_REFUSED, errnum, NULL, "its descriptors cannot be read");
	}
	for (struct dirent *entry; !e && (entry = readdir(d));)
		if (entry->d_name[0] != '.' && may_be_queue(dir, entry->d_name))
			e = check(p, (int)strtol(entry->d_name, NULL, 10));
	closedir(d);
	return e;
}
