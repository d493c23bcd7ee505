/* The rights of a process (see rights.h).
 *
 * "No more than its user's" is what the kernel means by it when it decides who may trace whom (ptrace(2), "access mode
 * checking"; kernel/ptrace.c, __ptrace_may_access): all user ids are that user's, all group ids are that user's group,
 * no capabilities, and dumpable. Supplementary groups are no part of it there, nor here. AT_SECURE is added: a program
 * that was setuid and gave its rights back may still hold files that it opened before.
 */
#include "inject/rights.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inject/proc.h"

static struct err *unreadable(const struct process *p, pid_t tid, int errnum)
{
	TRY(process__alive(p));
	return process__err(p, tid, errnum == EACCES || errnum == EPERM ? ERR_PERMISSION : ERR_UNREADABLE, errnum,
			    "run as root", "its rights cannot be read");
}

/* ---- one thread ---- */

/* "Uid: REAL EFFECTIVE SAVED FILE-SYSTEM" (proc(5)) */
static bool read_ids(const char *status, const char *key, uid_t id[4])
{
	const char *v = proc_field(status, key);
	for (int i = 0; v && i < 4; i++) {
		char *end;
		id[i] = (uid_t)strtoul(v, &end, 10);
		v = end == v ? NULL : end;
	}
	return v != NULL;
}

static bool all_alike(const uid_t id[4])
{
	return id[1] == id[0] && id[2] == id[0] && id[3] == id[0];
}

/* 1: has some; 0: none; -1: not said */
static int has_capabilities(const char *status)
{
	static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapAmb"};
	int any = 0;
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		const char *v = proc_field(status, sets[i]);
		if (!v)
			return -1;
		any |= strtoull(v, NULL, 16) != 0;
	}
	return any;
}

struct look {
	const struct process *p;
	struct rights *r;
	uid_t gid;
	bool own_namespace; /* the process is in the tool's user namespace */
	char map[4096];     /* else its uid_map */
	bool first;
};

/* Lines "INSIDE OUTSIDE COUNT" (user_namespaces(7)): who outside is `id` inside, or who inside is `id` outside? */
static uid_t translate(const char *map, uid_t id, bool outwards)
{
	for (const char *line = map; line && *line; line = strchr(line, '\n'), line += line != NULL) {
		char *end;
		uint32_t in = (uint32_t)strtoul(line, &end, 10);
		uint32_t out = (uint32_t)strtoul(end, &end, 10);
		uint32_t count = (uint32_t)strtoul(end, &end, 10); /* 0 for what is no such line */
		uint32_t from = outwards ? in : out, to = outwards ? out : in;
		if (id >= from && id - from < count)
			return to + (id - from);
	}
	return (uid_t)-1;
}

/* A thread may have changed its own ids alone: setuid(2) is glibc's doing for all of them, the kernel's is not. */
static struct err *look_at_thread(struct look *l, pid_t tid)
{
	char path[40], status[8192];
	uid_t uid[4], gid[4];
	snprintf(path, sizeof(path), "task/%d/status", tid);
	ssize_t n = proc_read(l->p->dirfd, path, status, sizeof(status));
	if (n == -ENOENT || n == -ESRCH)
		return NULL;
	int caps = n < 0 ? -1 : has_capabilities(status);
	if (caps < 0 || !read_ids(status, "Uid", uid) || !read_ids(status, "Gid", gid))
		return unreadable(l->p, tid, n < 0 ? (int)-n : 0);
	if (l->first) {
		l->r->uid = uid[0];
		l->gid = gid[0];
		l->first = false;
	}
	for (int i = 0; i < 4 && !l->own_namespace; i++)
		if (translate(l->map, uid[i], false) == (uid_t)-1)
			l->r->root = 0; /* it came there from outside, and kept its ids */
	if (!all_alike(uid) || uid[0] != l->r->uid)
		l->r->more = "it also runs as another user (setuid)";
	else if (!all_alike(gid) || gid[0] != l->gid)
		l->r->more = "it also runs as another group (setgid)";
	else if (caps && (l->own_namespace || uid[0] != l->r->root))
		l->r->more = "it has capabilities";
	return NULL;
}

/* ---- the process ---- */

static bool at_secure(const Elf64_auxv_t *v, size_t n)
{
	for (size_t i = 0; i < n && v[i].a_type != AT_NULL; i++)
		if (v[i].a_type == AT_SECURE)
			return v[i].a_un.a_val != 0;
	return true; /* every program that the kernel started has been told (fs/binfmt_elf.c, create_elf_tables) */
}

/* The files in /proc/PID belong to root when the process is not dumpable (proc(5)). */
static struct err *look_at_start(struct look *l)
{
	union {
		char text[2048];
		Elf64_auxv_t entry[2048 / sizeof(Elf64_auxv_t)];
	} auxv;
	struct stat st;
	ssize_t n = proc_read(l->p->dirfd, "auxv", auxv.text, sizeof(auxv.text));
	if (n < 0)
		return unreadable(l->p, 0, (int)-n);
	if (fstatat(l->p->dirfd, "stat", &st, 0) < 0)
		return unreadable(l->p, 0, errno);
	if (at_secure(auxv.entry, (size_t)n / sizeof(auxv.entry[0])))
		l->r->more = "it was started with more rights than its user has (setuid, setgid or capabilities of its "
			     "file)";
	else if (st.st_uid != l->r->uid)
		l->r->more = "it protects itself against its user (not dumpable)";
	return NULL;
}

/* A process that newgrp(1) or a service manager gave another group has rights of that group. */
static void look_at_group(struct look *l)
{
	struct passwd buf, *user = NULL;
	char text[4096];
	if (l->r->uid == geteuid() && l->gid == getegid())
		return;
	if (getpwuid_r(l->r->uid, &buf, text, sizeof(text), &user) != 0 || !user || user->pw_gid != l->gid)
		l->r->more = "its group is not known to be its user's";
}

/* ---- namespaces ---- */

static bool same_inode(int a, int b)
{
	struct stat x, y;
	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Is the user namespace `owner` that of the tool, or one that has power over `users`? */
static bool governs(int owner, int users, int own)
{
	if (same_inode(owner, own))
		return true;
	CLOSE_CLEANUP int at = dup(users);
	while (at >= 0 && !same_inode(at, own)) {
		if (same_inode(at, owner))
			return true;
		int above = ioctl(at, NS_GET_PARENT);
		close(at);
		at = above;
	}
	return false;
}

struct err *process__mounts_are_governed(const struct process *p, bool *out)
{
	CLOSE_CLEANUP int own = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
	CLOSE_CLEANUP int users = openat(p->dirfd, "ns/user", O_RDONLY | O_CLOEXEC);
	CLOSE_CLEANUP int mounts = openat(p->dirfd, "ns/mnt", O_RDONLY | O_CLOEXEC);
	if (own < 0 || users < 0 || mounts < 0)
		return unreadable(p, 0, errno);
	CLOSE_CLEANUP int owner = ioctl(mounts, NS_GET_USERNS);
	/* EPERM: the owner is a namespace above ours (ioctl_ns(2)) */
	*out = owner < 0 ? errno == EPERM : governs(owner, users, own);
	return NULL;
}

static struct err *look_at_namespace(struct look *l)
{
	CLOSE_CLEANUP int own = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
	CLOSE_CLEANUP int users = openat(l->p->dirfd, "ns/user", O_RDONLY | O_CLOEXEC);
	if (own < 0 || users < 0)
		return unreadable(l->p, 0, errno);
	ssize_t n = proc_read(AT_FDCWD, "/proc/self/uid_map", l->map, sizeof(l->map));
	if (n < 0)
		return unreadable(l->p, 0, (int)-n);
	l->r->unnamed_users = translate(l->map, UINT32_MAX - 1, true) == (uid_t)-1;
	l->own_namespace = same_inode(own, users);
	if (l->own_namespace)
		return NULL;
	n = proc_read(l->p->dirfd, "uid_map", l->map, sizeof(l->map));
	if (n < 0)
		return unreadable(l->p, 0, (int)-n);
	l->r->root = translate(l->map, 0, true);
	return NULL;
}

struct err *process__rights(const struct process *p, struct rights *out)
{
	struct look l = {.p = p, .r = out, .first = true};
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0;
	*out = (struct rights){0};
	TRY(look_at_namespace(&l));
	TRY(process__threads(p, &tids, &n));
	for (size_t i = 0; i < n; i++)
		TRY(look_at_thread(&l, tids[i]));
	if (l.first)
		return process__err(p, 0, ERR_GONE, 0, NULL, "it has no threads any more");
	if (!out->more)
		TRY(look_at_start(&l));
	if (!out->more)
		look_at_group(&l);
	return NULL;
}
