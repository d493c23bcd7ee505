/* See outdated.h.
 *
 * The numbers in maps are those of the inode that is mapped and of its file system (fs/proc/task_mmu.c, show_map_vma).
 * Mostly they are stat(2)'s. Not so
 *
 *   on btrfs       where stat(2) has a device number for each subvolume (fs/btrfs/inode.c, btrfs_getattr)
 *   on overlayfs   where before Linux 6.8 maps has the file of a layer (3efdc78fdc21, "fs/proc: show correct device
 *                  and inode numbers in /proc/pid/maps"), and after it stat(2) may still have the device number of a
 *                  layer (Documentation/filesystems/overlayfs.rst, "Inode properties")
 *
 * So equal numbers say that it is the same file, but others say nothing. Then stat(2) of the mapped file itself is
 * compared, through /proc/PID/map_files, which goes by the path it was opened by. */
#include "machine/outdated.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/hash.h"
#include "machine/build.h"
#include "machine/exec_maps.h"
#include "machine/procfs.h"

#define DELETED " (deleted)"

enum verdict {
	FILE_CURRENT, /* or no file at all */
	FILE_IMAGE,   /* of llvupdate */
	FILE_REPLACED,
	FILE_DELETED,
};

/* What is known of a mapped file. */
struct known {
	uint64_t hash, mounts, inode;
	uint32_t major, minor;
	char *name; /* as maps has it; NULL: this place is free */
	size_t len;
	enum verdict verdict;
	size_t path_len; /* of the name without " (deleted)" */
	uint64_t turn;   /* of the last process that was seen to have it */
};

struct scan {
	struct exec_maps maps;
	dev_t memory; /* the file system of memfd_create(2), shmget(2) and shared anonymous memory; 0: unknown */
	struct known *known;
	size_t n, size; /* used and all, a power of 2 */
	uint64_t turn;
};

/* One process on its turn. */
struct look {
	struct scan *scan;
	pid_t pid;
	int dir;
	uint64_t mounts; /* inode number of its mount namespace (namespaces(7)); 0: not asked yet */
	int top;         /* the top of its mounts; -1: not opened yet */
	bool ours;       /* which is where the tool lives */
	struct outdated *out;
	struct err *err;
};

/* ---- what is known ---- */

static uint64_t hash_of(const struct look *l, const struct exec_mapping *m)
{
	const uint64_t numbers[] = {l->mounts, m->inode, (uint64_t)m->major << 32 | m->minor};
	return hash__bytes(hash__bytes(HASH_START, numbers, sizeof(numbers)), m->name, m->len);
}

/* The place of a file, free if nothing is known of it. */
static struct known *find(const struct look *l, const struct exec_mapping *m, uint64_t hash)
{
	const struct scan *s = l->scan;
	for (size_t i = hash & (s->size - 1);; i = (i + 1) & (s->size - 1)) {
		struct known *k = &s->known[i];
		if (!k->name ||
		    (k->hash == hash && k->mounts == l->mounts && k->inode == m->inode && k->major == m->major &&
		     k->minor == m->minor && k->len == m->len && memcmp(k->name, m->name, m->len) == 0))
			return k;
	}
}

static void make_room(struct scan *s)
{
	if (s->n * 2 < s->size)
		return;
	struct known *old = s->known;
	size_t n = s->size;
	s->size = n ? n * 2 : 1024;
	s->known = xcalloc(s->size, sizeof(*s->known));
	for (size_t i = 0; i < n; i++) {
		if (!old[i].name)
			continue;
		size_t to = old[i].hash & (s->size - 1);
		while (s->known[to].name)
			to = (to + 1) & (s->size - 1);
		s->known[to] = old[i];
	}
	free(old);
}

/* ---- judging a file ---- */

enum there { THERE, NOTHING_THERE, CANNOT_TELL };

/* Opens the top of the process's mounts, once. */
static bool have_top(struct look *l)
{
	if (l->top >= 0 || l->ours)
		return true;
	FREE_CLEANUP char *path = NULL;
	ERR_CLEANUP struct err *e = procfs__top_at(l->pid, l->dir, &path);
	if (e)
		return false;
	l->ours = strcmp(path, "/") == 0;
	if (!l->ours)
		l->top = openat(l->dir, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return l->ours || l->top >= 0;
}

/* stat(2) of a path of the process. In another tree symbolic links must lead to where they lead there. */
static int stat_in(const struct look *l, const char *path, struct stat *st)
{
	if (l->ours)
		return stat(path, st);
	const struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
	CLOSE_CLEANUP int fd = (int)syscall(SYS_openat2, l->top, path, &how, sizeof(how));
	return fd < 0 ? -1 : fstat(fd, st);
}

static enum there look_up(const struct look *l, const char *path, struct stat *st)
{
	if (stat_in(l, path, st) == 0)
		return THERE;
	return errno == ENOENT || errno == ENOTDIR ? NOTHING_THERE : CANNOT_TELL;
}

/* What stat(2) says of the mapped file, as far as the tool may ask. */
struct mapped {
	bool known, gone;
	struct stat st;
};

static struct mapped stat_mapped(const struct look *l, const struct exec_mapping *m)
{
	struct mapped f = {0};
	char link[64];
	snprintf(link, sizeof(link), "map_files/%" PRIx64 "-%" PRIx64, m->start, m->end);
	f.known = fstatat(l->dir, link, &f.st, 0) == 0;
	f.gone = !f.known && (errno == ENOENT || errno == ESRCH);
	return f;
}

/* Opens a path of the process for reading, if it is a regular file: others do things when they are opened. */
static int open_in(const struct look *l, const char *path)
{
	const struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = l->ours ? 0 : RESOLVE_IN_ROOT};
	CLOSE_CLEANUP int fd = (int)syscall(SYS_openat2, l->ours ? AT_FDCWD : l->top, path, &how, sizeof(how));
	struct stat st;
	char link[32];
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

/* Another file stands there; is it the same build? (The mapped file is a regular one, or unknown.) */
static bool same_build(const struct look *l, const struct exec_mapping *m, const struct mapped *f, const char *path)
{
	char link[64];
	snprintf(link, sizeof(link), "map_files/%" PRIx64 "-%" PRIx64, m->start, m->end);
	CLOSE_CLEANUP int old = f->known ? openat(l->dir, link, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	CLOSE_CLEANUP int new = old < 0 ? -1 : open_in(l, path);
	return new >= 0 && build__same(old, new);
}

static bool same_numbers(const struct exec_mapping *m, const struct stat *st)
{
	return m->inode == st->st_ino && m->major == major(st->st_dev) && m->minor == minor(st->st_dev);
}

static bool same_file(const struct exec_mapping *m, const struct mapped *f, const struct stat *st)
{
	return f->known ? f->st.st_ino == st->st_ino && f->st.st_dev == st->st_dev : m->inode == st->st_ino;
}

static bool says_deleted(const struct exec_mapping *m)
{
	const size_t n = sizeof(DELETED) - 1;
	return m->len > n && memcmp(m->name + m->len - n, DELETED, n) == 0;
}

/* The kernel says " (deleted)", or that is how the name ends; it is the same file, or another, or none. */
static enum verdict judge_deleted(const struct look *l, const struct exec_mapping *m, const struct mapped *f,
				  size_t *path_len)
{
	struct stat st;
	*path_len = m->len - (sizeof(DELETED) - 1);
	FREE_CLEANUP char *bare = xasprintf("%.*s", (int)*path_len, m->name);
	if (look_up(l, bare, &st) != THERE)
		return FILE_DELETED;
	if (same_numbers(m, &st) || same_file(m, f, &st)) /* linked again */
		return FILE_CURRENT;
	return same_build(l, m, f, bare) ? FILE_CURRENT : FILE_REPLACED;
}

/* *sure: it will be the same for the next process. */
static enum verdict judge(struct look *l, const struct exec_mapping *m, size_t *path_len, bool *sure)
{
	struct stat st;
	*path_len = m->len;
	*sure = have_top(l);
	if (!*sure)
		return FILE_CURRENT; /* it is on its way out */
	enum there there = look_up(l, m->name, &st);
	if (there == THERE && same_numbers(m, &st))
		return FILE_CURRENT;
	const struct mapped f = stat_mapped(l, m);
	*sure = !f.gone;
	if (f.gone || (f.known && !S_ISREG(f.st.st_mode)) || (there == THERE && same_file(m, &f, &st)))
		return FILE_CURRENT;
	if (says_deleted(m))
		return judge_deleted(l, m, &f, path_len);
	if (there == THERE)
		return same_build(l, m, &f, m->name) ? FILE_CURRENT : FILE_REPLACED;
	return there == NOTHING_THERE ? FILE_DELETED : FILE_CURRENT;
}

/* Memory that the kernel calls a file: mm/shmem.c, mm/memfd.c, ipc/shm.c, fs/hugetlbfs/inode.c. Huge pages have file
 * systems of their own, and are known by their names. */
static bool is_memory(const struct scan *s, const struct exec_mapping *m)
{
	static const char *const names[] = {"/memfd:", "/anon_hugepage", "/SYSV"};
	if (s->memory && m->major == major(s->memory) && m->minor == minor(s->memory))
		return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (m->major == 0 && strncmp(m->name, names[i], strlen(names[i])) == 0 && says_deleted(m))
			return true;
	return false;
}

/* remap/store.h: a file of a folder "llu", its name ends with 16 hexadecimal digits. It may be removed at any time. */
static bool is_stored(const struct exec_mapping *m)
{
	enum { HASH_LEN = 16 };
	size_t n = m->len - (says_deleted(m) ? sizeof(DELETED) - 1 : 0);
	if (n <= HASH_LEN + strlen("/llu/x-") || m->name[n - HASH_LEN - 1] != '-')
		return false;
	for (size_t i = n - HASH_LEN; i < n; i++)
		if (!strchr("0123456789abcdef", m->name[i]))
			return false;
	const char *slash = memrchr(m->name, '/', n);
	return slash && slash - m->name >= 4 && strncmp(slash - 4, "/llu/", 5) == 0;
}

/* ---- a process ---- */

/* Is it what the process was started from? Both links are made alike (d_path). */
static bool is_program(const struct look *l, const struct known *k)
{
	char exe[PATH_MAX];
	ssize_t n = readlinkat(l->dir, "exe", exe, sizeof(exe));
	return n > 0 && (size_t)n == k->len && memcmp(exe, k->name, k->len) == 0;
}

static bool is_library(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t n = strlen(name);
	return (n > 3 && strcmp(name + n - 3, ".so") == 0) || strstr(name, ".so.");
}

static void add(struct look *l, const struct known *k)
{
	struct outdated_file f = {.path = xasprintf("%.*s", (int)k->path_len, k->name),
				  .how = k->verdict == FILE_DELETED ? OUTDATED_DELETED : OUTDATED_REPLACED};
	f.kind = is_program(l, k) ? OUTDATED_PROGRAM : is_library(f.path) ? OUTDATED_LIBRARY : OUTDATED_OTHER;
	vec__push(&l->out->files, f);
}

static bool have_mounts(struct look *l)
{
	struct stat st;
	if (l->mounts)
		return true;
	if (fstatat(l->dir, "ns/mnt", &st, 0) == 0)
		l->mounts = st.st_ino;
	else
		l->err = procfs__err(l->pid, errno, "its mount namespace");
	return l->mounts != 0;
}

/* What is known of this file, judged now if need be. NULL: it is not there any more. */
static struct known *know(struct look *l, const struct exec_mapping *m)
{
	make_room(l->scan);
	uint64_t hash = hash_of(l, m);
	struct known *k = find(l, m, hash);
	if (k->name)
		return k;
	struct known new = {.hash = hash, .mounts = l->mounts, .inode = m->inode, .major = m->major, .minor = m->minor};
	bool sure = true;
	if (is_stored(m))
		new.verdict = FILE_IMAGE;
	else
		new.verdict = judge(l, m, &new.path_len, &sure);
	if (!sure)
		return NULL;
	new.name = xmemdup(m->name, m->len + 1);
	new.len = m->len;
	*k = new;
	l->scan->n++;
	return k;
}

static bool look_at(void *arg, const struct exec_mapping *m)
{
	struct look *l = arg;
	if (m->name[0] != '/')
		return true;
	if (is_memory(l->scan, m)) {
		l->out->updated = l->out->updated || strncmp(m->name, "/memfd:llu-", 11) == 0;
		return true;
	}
	if (!have_mounts(l))
		return false;
	struct known *k = know(l, m);
	if (!k || k->verdict == FILE_CURRENT || k->turn == l->scan->turn)
		return true;
	k->turn = l->scan->turn;
	if (k->verdict == FILE_IMAGE)
		l->out->updated = true;
	else
		add(l, k);
	return true;
}

struct err *scan__process(struct scan *s, pid_t pid, struct outdated *out)
{
	*out = (struct outdated){0};
	CLOSE_CLEANUP int dir = -1;
	TRY(procfs__open(pid, &dir));
	struct look l = {.scan = s, .pid = pid, .dir = dir, .top = -1, .out = out};
	s->turn++;
	struct err *e = exec_maps__each(&s->maps, pid, dir, look_at, &l);
	if (l.top >= 0)
		close(l.top);
	if (e)
		err__free(l.err);
	else
		e = l.err;
	if (e)
		outdated__free(out);
	return e;
}

struct scan *scan__new(enum scan_how how)
{
	struct scan *s = xcalloc(1, sizeof(*s));
	struct stat st;
	s->maps.text = how == SCAN_TEXT;
	CLOSE_CLEANUP int fd = memfd_create("llu-scan", MFD_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0)
		s->memory = st.st_dev;
	return s;
}

void scan__free(struct scan *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->size; i++)
		free(s->known[i].name);
	free(s->known);
	exec_maps__free(&s->maps);
	free(s);
}

void outdated__free(struct outdated *o)
{
	for (size_t i = 0; i < o->files.n; i++)
		free(o->files.items[i].path);
	vec__free(&o->files);
	o->updated = false;
}
