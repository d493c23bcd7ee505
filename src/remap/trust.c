/* Judging the path of a new file (see trust.h). The path is walked name by name, each opened below the one before and
 * judged while it is open, so that what was judged is what is read, whoever renames what meanwhile. */
#include "remap/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/vec.h"
#include "inject/rights.h"

enum { LINKS_MAX = 40, OVERFLOW_UID = 65534 }; /* the kernel's MAXSYMLINKS; /proc/sys/kernel/overflowuid */

struct walk {
	const struct process *p;
	struct rights rights; /* once `asked` */
	bool asked;
	const char *from;  /* the root */
	VEC(int) folders;  /* open, the root first */
	char *left;        /* names still to go */
	char *here;        /* where the walk is, as the process sees it; "" is its root */
	unsigned links;    /* followed so far */
	uint64_t mount;    /* the last that was looked at */
	struct err *wrong; /* the first thing that is */
	bool unfathomable; /* it is on a FUSE file system: nothing more is asked of it */
};

static const char *name_of(const struct walk *w)
{
	return *w->here ? w->here : "/";
}

/* ---- judging ---- */

static const char hint[] = "see to it that only root can change it (chown, chmod), or restart the process";

/* In a user namespace that does not name all users, many look like one. */
static bool is_unnamed(const struct walk *w, uid_t uid)
{
	return w->rights.unnamed_users && uid == OVERFLOW_UID;
}

static struct err *wrong_owner(const struct walk *w, uid_t uid)
{
	if (is_unnamed(w, uid))
		return err__new(ERR_REFUSED, 0, name_of(w), hint,
				"belongs to a user who has no name in this user namespace, and who could put another "
				"file there");
	if (uid == w->rights.uid)
		return err__new(ERR_REFUSED, 0, name_of(w), hint,
				"user %u could put another file there, and the process has more rights than that "
				"user: %s",
				uid, w->rights.more);
	return err__new(ERR_REFUSED, 0, name_of(w), hint,
			"user %u could put another file there, and the process belongs to user %u", uid, w->rights.uid);
}

/* What belongs to root needs no look at the process's rights, which takes a file for each thread. */
static struct err *judge_owner(struct walk *w, uid_t uid)
{
	if (uid == 0)
		return NULL;
	if (!w->asked)
		TRY(process__rights(w->p, &w->rights));
	w->asked = true;
	bool trusted = uid == w->rights.root || (uid == w->rights.uid && !w->rights.more);
	if (!w->wrong && (!trusted || is_unnamed(w, uid)))
		w->wrong = wrong_owner(w, uid);
	return NULL;
}

static void judge_mode(struct walk *w, const struct stat *st, bool sticky_will_do)
{
	if (w->wrong || !(st->st_mode & 022) || (sticky_will_do && (st->st_mode & S_ISVTX)))
		return;
	if (st->st_mode & 002)
		w->wrong = err__new(ERR_REFUSED, 0, name_of(w), hint,
				    "anybody could put another file there (mode %04o)", st->st_mode & 07777);
	else
		w->wrong =
		    err__new(ERR_REFUSED, 0, name_of(w), hint,
			     "group %u, or whom an access control list names, could put another file there (mode "
			     "%04o)",
			     st->st_gid, st->st_mode & 07777);
}

/* `last`: it is the file, or the folder that the file is in. */
static struct err *judge(struct walk *w, const struct stat *st, bool last)
{
	TRY(judge_owner(w, st->st_uid));
	if (!S_ISLNK(st->st_mode))
		judge_mode(w, st, !last);
	return NULL;
}

/* Is that mount of the process a FUSE file system? 1, 0, or -1: it is not listed, as in a chroot whose root is no
 * mount. virtiofs, which is a disk of the machine, has the same number in statfs(2), but another name. */
static int is_fuse_mount(const struct walk *w, uint64_t mount)
{
	char *line = NULL;
	size_t size = 0;
	int result = -1, fd = openat(process__dirfd(w->p), "mountinfo", O_RDONLY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	while (f && result < 0 && getline(&line, &size, f) > 0) {
		const char *type = strstr(line, " - "); /* proc(5): the separator behind the optional fields */
		if (strtoull(line, NULL, 10) == mount && type)
			result = strncmp(type + 3, "fuse", 4) == 0;
	}
	free(line);
	if (f)
		fclose(f);
	else if (fd >= 0)
		close(fd);
	return result;
}

/* A FUSE server of somebody's may never answer: it is known before it is asked for anything. */
static void judge_mount(struct walk *w, int fd)
{
	struct statx x;
	struct statfs fs;
	int fuse = -1;
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &x) == 0 && (x.stx_mask & STATX_MNT_ID)) {
		if (x.stx_mnt_id == w->mount)
			return;
		w->mount = x.stx_mnt_id;
		fuse = is_fuse_mount(w, x.stx_mnt_id);
	}
	if (fuse < 0)
		fuse = fstatfs(fd, &fs) < 0 || fs.f_type == FUSE_SUPER_MAGIC;
	if (!fuse)
		return;
	w->unfathomable = true;
	err__free(w->wrong);
	w->wrong =
	    err__new(ERR_REFUSED, 0, name_of(w), "put the library on another file system, or restart the process",
		     "is on a FUSE file system, whose server could show any file there");
}

static struct err *judge_mounts(struct walk *w)
{
	bool governed;
	TRY(process__mounts_are_governed(w->p, &governed));
	if (!governed)
		w->wrong = err__new(ERR_REFUSED, 0, NULL, "restart the process",
				    "the process looks into a mount namespace whose owner has no power over it, and "
				    "could put another file anywhere");
	return NULL;
}

/* ---- walking ---- */

static struct err *failed(const struct walk *w, int errnum, const char *what)
{
	TRY(process__alive(w->p));
	return err__new(errnum == EACCES || errnum == EPERM ? ERR_PERMISSION : ERR_UNREADABLE, errnum, name_of(w), NULL,
			"%s", what);
}

static bool at_end(const char *left)
{
	return left[strspn(left, "/")] == 0;
}

/* Are there names left behind the next one? */
static bool next_is_last(const char *left)
{
	left += strspn(left, "/");
	return at_end(left + strcspn(left, "/"));
}

static int top(const struct walk *w)
{
	return w->folders.n ? w->folders.items[w->folders.n - 1] : -1;
}

/* ".." of the root is the root (path_resolution(7)). The folder above was judged on the way down. */
static void go_up(struct walk *w)
{
	char *slash = strrchr(w->here, '/');
	if (w->folders.n <= 1)
		return;
	close(w->folders.items[--w->folders.n]);
	if (slash)
		*slash = 0;
}

static void go_to_root(struct walk *w)
{
	while (w->folders.n > 1)
		go_up(w);
}

static struct err *follow(struct walk *w, int link)
{
	char to[PATH_MAX];
	ssize_t n = readlinkat(link, "", to, sizeof(to) - 1);
	if (n <= 0 || ++w->links > LINKS_MAX || strlen(w->left) + (size_t)n > PATH_MAX)
		return failed(w, n < 0 ? errno : ELOOP, "cannot follow the symbolic link");
	to[n] = 0;
	char *slash = strrchr(w->here, '/'), *left = xasprintf("%s/%s", to, w->left);
	if (slash)
		*slash = 0; /* the link's own name */
	if (*to == '/')
		go_to_root(w);
	free(w->left);
	w->left = left;
	return NULL;
}

/* Takes the next name off what is left, and opens what it leads to, without any rights to it; "." and ".." are done
 * here, and open nothing. */
static struct err *take_name(struct walk *w, int *fd)
{
	const char *start = w->left + strspn(w->left, "/");
	size_t len = strcspn(start, "/");
	char name[NAME_MAX + 1];
	*fd = -1;
	if (len > NAME_MAX)
		return failed(w, ENAMETOOLONG, "cannot be looked at");
	memcpy(name, start, len);
	name[len] = 0;
	memmove(w->left, start + len, strlen(start + len) + 1);
	if (strcmp(name, "..") == 0)
		go_up(w);
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return NULL;
	char *here = xasprintf("%s/%s", w->here, name);
	free(w->here);
	w->here = here;
	*fd = openat(top(w), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (*fd < 0)
		return failed(w, errno, "cannot be looked at");
	judge_mount(w, *fd);
	return NULL;
}

/* *file: what the path leads to, -1 while there are names left. */
static struct err *step(struct walk *w, int *file)
{
	struct stat st;
	bool last = next_is_last(w->left);
	CLOSE_CLEANUP int fd = -1;
	TRY(take_name(w, &fd));
	if (fd < 0 || w->unfathomable)
		return NULL;
	if (fstat(fd, &st) < 0)
		return failed(w, errno, "cannot be looked at");
	TRY(judge(w, &st, S_ISREG(st.st_mode)));
	if (S_ISLNK(st.st_mode))
		return follow(w, fd);
	if (S_ISDIR(st.st_mode)) {
		vec__push(&w->folders, fd);
		fd = -1;
		return NULL;
	}
	if (!last)
		return failed(w, ENOTDIR, "is no folder");
	if (!S_ISREG(st.st_mode))
		return failed(w, 0, "not a regular file");
	*file = fd;
	fd = -1;
	return NULL;
}

/* The folder that the file is in: nobody else may make a new name there, sticky or not. */
static struct err *judge_last_folder(struct walk *w)
{
	struct stat st;
	char *slash = strrchr(w->here, '/');
	if (fstat(top(w), &st) < 0)
		return failed(w, errno, "cannot be looked at");
	*slash = 0;
	struct err *e = judge(w, &st, true);
	*slash = '/';
	return e;
}

static struct err *enter_root(struct walk *w)
{
	struct stat st;
	int root = openat(process__dirfd(w->p), w->from, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return failed(w, errno, "cannot be looked at");
	vec__push(&w->folders, root);
	judge_mount(w, root);
	if (w->unfathomable)
		return NULL;
	if (fstat(root, &st) < 0)
		return failed(w, errno, "cannot be looked at");
	return judge(w, &st, false);
}

static struct err *walk(struct walk *w, int *fd)
{
	CLOSE_CLEANUP int file = -1;
	TRY(judge_mounts(w));
	TRY(enter_root(w));
	while (file < 0 && !w->unfathomable && !at_end(w->left))
		TRY(step(w, &file));
	if (w->unfathomable)
		return NULL;
	if (file < 0)
		return failed(w, 0, "not a regular file");
	TRY(judge_last_folder(w));
	char path[40];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	*fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return *fd < 0 ? failed(w, errno, "cannot open the file") : NULL;
}

struct err *trust__open(const struct process *p, const char *from, const char *path, int *fd, struct err **untrusted)
{
	struct walk w = {.p = p, .from = from, .left = xstrdup(path), .here = xstrdup(""), .mount = UINT64_MAX};
	*fd = -1;
	struct err *e = walk(&w, fd);
	*untrusted = e ? NULL : w.wrong;
	if (e)
		err__free(w.wrong);
	for (size_t i = 0; i < w.folders.n; i++)
		close(w.folders.items[i]);
	vec__free(&w.folders);
	free(w.left);
	free(w.here);
	return e;
}
