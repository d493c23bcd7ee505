/* See trusted.h. Of a file that is read, the path is walked folder by folder, each opened below the one before and
 * checked while it is open, so that what was checked is what is read. */
#include "base/trusted.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

/* `sticky_will_do`: entries of others cannot be removed or renamed there, and what we enter is checked. */
static struct err *check(int fd, const char *path, mode_t type, bool sticky_will_do)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot look at it");
	if ((st.st_mode & S_IFMT) != type)
		return err__new(ERR_REFUSED, 0, path, NULL, "not a %s", type == S_IFDIR ? "folder" : "regular file");
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return err__new(ERR_REFUSED, 0, path, NULL, "belongs to user %u", st.st_uid);
	if ((st.st_mode & 022) && !(sticky_will_do && (st.st_mode & S_ISVTX)))
		return err__new(ERR_REFUSED, 0, path, NULL, "others may write to it (mode %04o)", st.st_mode & 07777);
	return NULL;
}

/* Goes into one folder: *at becomes it. `path` is its whole path. */
static struct err *enter(int *at, const char *name, const char *path, bool last)
{
	int next = openat(*at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (next < 0 && (errno == ENOTDIR || errno == ELOOP))
		return err__new(ERR_REFUSED, 0, path, "give its real path", "not a folder, or a symbolic link");
	if (next < 0)
		return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot open the folder");
	close(*at);
	*at = next;
	return check(next, path, S_IFDIR, !last);
}

static struct err *open_file(int dir, const char *name, const char *path, int *fd)
{
	*fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (*fd < 0 && errno == ELOOP)
		return err__new(ERR_REFUSED, 0, path, "give its real path", "a symbolic link");
	if (*fd < 0)
		return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot open the file");
	return check(*fd, path, S_IFREG, false);
}

/* Opens `path`, which is absolute and is cut into pieces meanwhile. */
static struct err *walk(char *path, int *fd)
{
	CLOSE_CLEANUP int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return err__new(ERR_UNREADABLE, errno, "/", NULL, "cannot open the folder");
	char *name = path + 1;
	TRY(check(at, "/", S_IFDIR, strchr(name, '/') != NULL));
	for (char *slash; (slash = strchr(name, '/')); name = slash + 1) {
		*slash = 0;
		if (*name) /* two slashes are one */
			TRY(enter(&at, name, path, !strchr(slash + 1, '/')));
		*slash = '/';
	}
	return open_file(at, name, path, fd);
}

static struct err *read_all(int fd, const char *path, size_t max, char **text, size_t *len)
{
	FREE_CLEANUP char *buf = xmalloc(max + 1);
	size_t n = 0;
	for (;;) {
		ssize_t got = read(fd, buf + n, max + 1 - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot read the file");
		if (got == 0)
			break;
		n += (size_t)got;
		if (n > max)
			return err__new(ERR_REFUSED, 0, path, NULL, "larger than %zu bytes", max);
	}
	*text = xmalloc(n + 1);
	memcpy(*text, buf, n);
	(*text)[n] = 0;
	*len = n;
	return NULL;
}

struct err *trusted__read(const char *path, size_t max, char **text, size_t *len)
{
	FREE_CLEANUP char *here = *path == '/' ? NULL : getcwd(NULL, 0);
	FREE_CLEANUP char *whole = *path == '/' ? xstrdup(path) : xasprintf("%s/%s", here ? here : "", path);
	CLOSE_CLEANUP int fd = -1;
	TRY(walk(whole, &fd));
	return read_all(fd, path, max, text, len);
}

int trusted__create(const char *path)
{
	struct stat st;
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd >= 0 || errno != EEXIST || lstat(path, &st) < 0 || !S_ISCHR(st.st_mode))
		return fd;
	/* not waiting, should it have become a pipe meanwhile */
	fd = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode))) {
		close(fd);
		fd = -1;
		errno = EEXIST;
	}
	return fd;
}
