/* See store.h. */
#include "remap/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/hash.h"
#include "base/vec.h"

enum {
	STORE_MAX = 256 << 20,
	USED_STEP_S = 60, /* so exactly it is known when a file was used */
};

static char *folder(void)
{
	if (geteuid() == 0)
		return xstrdup("/var/cache/llu");
	const char *cache = secure_getenv("XDG_CACHE_HOME"), *home = secure_getenv("HOME");
	if (cache && *cache == '/')
		return xasprintf("%s/llu", cache);
	return xasprintf("%s/.cache/llu", home ? home : "");
}

/* Makes a folder and those above it that are missing. */
static int make_folders(const char *path)
{
	FREE_CLEANUP char *copy = xstrdup(path);
	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return -1;
		*p = '/';
	}
	return mkdir(copy, 0755) < 0 && errno != EEXIST ? -1 : 0;
}

static struct err *open_folder(const char *path, bool make, int *fd)
{
	struct stat st;
	if (make && make_folders(path) < 0)
		return err__new(ERR_SYSTEM, errno, path, NULL, "cannot make the folder for relinked images");
	*fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*fd < 0 || fstat(*fd, &st) < 0)
		return err__new(ERR_SYSTEM, errno, path, NULL, "cannot open the folder for relinked images");
	if (st.st_uid != geteuid() || (st.st_mode & 022))
		return err__new(ERR_REFUSED, 0, path, "give it to the user who runs llvupdate, writable to nobody else",
				"the folder for relinked images could be changed by another user");
	return NULL;
}

/* The bytes of a file, when nobody else can have written them. */
static bool read_ours(int fd, size_t max, uint8_t **data, size_t *size)
{
	struct stat st;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022) ||
	    (uint64_t)st.st_size > max)
		return false;
	*size = (size_t)st.st_size;
	*data = xmalloc(*size);
	if (pread(fd, *data, *size, 0) == (ssize_t)*size)
		return true;
	free(*data);
	return false;
}

static bool same_contents(int fd, const uint8_t *data, size_t size)
{
	uint8_t *have;
	size_t n;
	if (!read_ours(fd, size, &have, &n))
		return false;
	bool same = n == size && memcmp(have, data, size) == 0;
	free(have);
	return same;
}

static int write_all(int fd, const uint8_t *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = write(fd, data + done, fault__piece(size, done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		fault__point("file in the middle");
		done += (size_t)n;
	}
	return 0;
}

static struct err *create(int dir, const char *path, const char *name, mode_t mode, const uint8_t *data, size_t size,
			  int *out)
{
	FREE_CLEANUP char *temporary = xasprintf(".%s.%d", name, (int)getpid());
	fault__point("file before");
	unlinkat(dir, temporary, 0);
	*out = openat(dir, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (*out < 0 || flock(*out, LOCK_EX | LOCK_NB) < 0 || write_all(*out, data, size) < 0 ||
	    fchmod(*out, mode) < 0 || renameat(dir, temporary, dir, name) < 0) {
		struct err *e = err__new(ERR_SYSTEM, errno, path, NULL, "cannot write the file");
		unlinkat(dir, temporary, 0);
		return e;
	}
	fault__point("file after");
	return NULL;
}

/* ".NAME.PID", and nobody is writing it any more? Its PID may be one of another PID namespace. */
static bool is_abandoned(int dir, const char *name)
{
	const char *dot = strrchr(name, '.');
	if (*name != '.' || dot == name || !dot[1] || dot[1 + strspn(dot + 1, "0123456789")])
		return false;
	CLOSE_CLEANUP int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

size_t store__clear_temporaries(void)
{
	FREE_CLEANUP char *where = folder();
	int dir = -1;
	size_t n = 0;
	ERR_CLEANUP struct err *none = open_folder(where, false, &dir);
	DIR *d = none ? NULL : fdopendir(dir);
	if (!d) {
		close_cleanup(&dir);
		return 0;
	}
	for (struct dirent *e; (e = readdir(d));)
		n += is_abandoned(dirfd(d), e->d_name) && unlinkat(dir, e->d_name, 0) == 0;
	closedir(d);
	return n;
}

struct entry {
	char *name;
	struct timespec used;
	off_t size;
};

static int by_use(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	if (x->used.tv_sec != y->used.tv_sec)
		return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
	return (x->used.tv_nsec > y->used.tv_nsec) - (x->used.tv_nsec < y->used.tv_nsec);
}

/* Removes what was used longest ago until the rest fits; the processes that run an image keep it. */
static void bound_size(int dir, const char *keep)
{
	VEC(struct entry) list = {0};
	off_t total = 0;
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
	for (struct dirent *e; d && (e = readdir(d));) {
		struct stat st;
		if (fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
			continue;
		total += st.st_size;
		struct entry x = {xstrdup(e->d_name), st.st_mtim, st.st_size};
		vec__push(&list, x);
	}
	if (d)
		closedir(d);
	if (list.n)
		qsort(list.items, list.n, sizeof(list.items[0]), by_use);
	for (size_t i = 0; i < list.n; i++) {
		if (total > STORE_MAX && strcmp(list.items[i].name, keep) != 0 &&
		    unlinkat(dir, list.items[i].name, 0) == 0)
			total -= list.items[i].size;
		free(list.items[i].name);
	}
	vec__free(&list);
}

/* What is in use at this moment stays in place, and its times stay: it is read again and again (image/file_memo.h). */
static void note_use(int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0 || st.st_mtim.tv_sec + USED_STEP_S < time(NULL) || st.st_mtim.tv_sec > time(NULL))
		futimens(fd, NULL);
}

struct err *store__put(const char *name, const void *data, size_t size, struct stored *out)
{
	FREE_CLEANUP char *where = folder();
	CLOSE_CLEANUP int dir = -1;
	TRY(open_folder(where, true, &dir));
	FREE_CLEANUP char *file = xasprintf("%s-%016lx", name, hash__bytes(HASH_START, data, size));
	char *path = xasprintf("%s/%s", where, file);
	CLOSE_CLEANUP int fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	struct err *err = NULL;
	if (fd < 0 || !same_contents(fd, data, size)) {
		if (fd >= 0)
			close(fd);
		err = create(dir, path, file, 0644, data, size, &fd);
	}
	if (!err && fstat(fd, &st) < 0)
		err = err__new(ERR_SYSTEM, errno, path, NULL, "cannot look at the relinked image");
	if (err) {
		free(path);
		return err;
	}
	note_use(fd);
	bound_size(dir, file);
	*out = (struct stored){path, st.st_dev, st.st_ino};
	return NULL;
}

struct err *store__open(const struct stored *s, int *fd)
{
	struct stat st;
	*fd = open(s->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (*fd < 0 || fstat(*fd, &st) < 0 || st.st_dev != s->dev || st.st_ino != s->ino)
		return err__new(ERR_SYSTEM, 0, s->path, NULL, "the relinked image was removed or replaced meanwhile");
	return NULL;
}

struct err *store__keep(const char *where, const char *name, const void *data, size_t size)
{
	FREE_CLEANUP char *usual = where ? NULL : folder();
	const char *at = where ? where : usual;
	CLOSE_CLEANUP int dir = -1, fd = -1;
	TRY(open_folder(at, true, &dir));
	FREE_CLEANUP char *path = xasprintf("%s/%s", at, name);
	TRY(create(dir, path, name, 0600, data, size, &fd));
	bound_size(dir, name);
	return NULL;
}

struct err *store__fetch(const char *where, const char *name, size_t max, uint8_t **data, size_t *size)
{
	FREE_CLEANUP char *usual = where ? NULL : folder();
	const char *at = where ? where : usual;
	CLOSE_CLEANUP int dir = -1;
	TRY(open_folder(at, false, &dir));
	CLOSE_CLEANUP int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return err__new(ERR_SYSTEM, errno, at, NULL, "cannot open %s", name);
	if (!read_ours(fd, max, data, size))
		return err__new(ERR_REFUSED, 0, at, NULL, "%s is not a file of ours, or cannot be read", name);
	note_use(fd);
	return NULL;
}
