/* See file_memo.h. */
#include "image/file_memo.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image/image_file.h"

enum {
	FILES_MAX = 256,     /* and a quarter of the files that may be open */
	FILE_MAX = 32 << 20, /* larger ones are read again each time */
	BYTES_MAX = 96 << 20,
	IMAGE_MAX = 1 << 30,
};

struct kept {
	int fd; /* holds the file */
	struct stat st;
	uint64_t used;          /* when, as file_memo.clock has it */
	struct elf_file *elf;   /* or NULL */
	struct elf_file *image; /* the build of an image, or NULL; and then */
	struct live_map map;
};

struct file_memo {
	VEC(struct kept) files;
	uint64_t clock, bytes;
};

struct file_memo *file_memo__new(void)
{
	return xcalloc(1, sizeof(struct file_memo));
}

static uint64_t bytes_of(const struct kept *k)
{
	return (k->elf ? k->elf->size : 0) + (k->image ? k->image->size : 0);
}

static void drop(struct file_memo *m, size_t i)
{
	struct kept *k = &m->files.items[i];
	m->bytes -= bytes_of(k);
	close(k->fd);
	elf_file__free(k->elf);
	elf_file__free(k->image);
	live_map__free(&k->map);
	*k = m->files.items[--m->files.n];
}

void file_memo__free(struct file_memo *m)
{
	if (!m)
		return;
	while (m->files.n)
		drop(m, m->files.n - 1);
	vec__free(&m->files);
	free(m);
}

/* ---- the same file, unchanged ---- */

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool is_unchanged(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && same_time(a->st_mtim, b->st_mtim) && same_time(a->st_ctim, b->st_ctim);
}

/* Will a change from now on show in its times? They are those of the last tick (kernel/time/timekeeping.c,
 * ktime_get_coarse_real_ts64: 10 ms at most), cut off to what the file system can keep: most keep nanoseconds, FAT two
 * seconds. */
static bool is_settled(const struct stat *st)
{
	struct timespec now;
	bool fine = st->st_ctim.tv_nsec % 1000000 && st->st_mtim.tv_nsec % 1000000;
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	int64_t age = (int64_t)(now.tv_sec - st->st_ctim.tv_sec) * 1000 + (now.tv_nsec - st->st_ctim.tv_nsec) / 1000000;
	return age > (fine ? 100 : 3000);
}

/* Has nobody opened it for writing? A write(2) sets the times when it begins, and may go on for long; and there may be
 * a mapping to write to. The kernel gives a lease for reading to who asks when there is no writer (fs/locks.c,
 * check_conflicting_open), and not on all file systems. It is given back at once; who opens the file meanwhile waits
 * for that moment, and we are sent SIGIO, which is ignored here (crew.c). */
static bool is_at_rest(int fd)
{
	return fcntl(fd, F_SETLEASE, F_RDLCK) == 0 && fcntl(fd, F_SETLEASE, F_UNLCK) == 0;
}

static struct kept *find(struct file_memo *m, const struct stat *st)
{
	for (size_t i = 0; i < m->files.n; i++) {
		struct kept *k = &m->files.items[i];
		if (k->st.st_dev != st->st_dev || k->st.st_ino != st->st_ino)
			continue;
		if (is_unchanged(&k->st, st)) {
			k->used = ++m->clock;
			return k;
		}
		drop(m, i);
		return NULL;
	}
	return NULL;
}

static size_t files_max(void)
{
	struct rlimit r;
	size_t may = getrlimit(RLIMIT_NOFILE, &r) == 0 ? (size_t)r.rlim_cur / 4 : 0;
	return may < FILES_MAX ? may : FILES_MAX;
}

static void make_room(struct file_memo *m, uint64_t bytes)
{
	size_t max = files_max();
	while (m->files.n && (m->files.n >= max || m->bytes + bytes > BYTES_MAX)) {
		size_t oldest = 0;
		for (size_t i = 1; i < m->files.n; i++)
			if (m->files.items[i].used < m->files.items[oldest].used)
				oldest = i;
		drop(m, oldest);
	}
}

/* A place for what was read from this file, which was like `before` then; NULL: it is not to be kept. */
static struct kept *place(struct file_memo *m, int fd, const struct stat *before)
{
	struct stat now;
	struct kept new = {.st = *before};
	if (fstat(fd, &now) < 0 || !is_unchanged(before, &now))
		return NULL;
	make_room(m, (uint64_t)before->st_size);
	struct kept *k = find(m, before);
	if (k)
		return k;
	new.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (new.fd < 0)
		return NULL;
	new.used = ++m->clock;
	vec__push(&m->files, new);
	return &m->files.items[m->files.n - 1];
}

/* Is there anything to be kept? *st: the file. */
static bool may_keep(const struct file_memo *m, int fd, struct stat *st)
{
	return m && fstat(fd, st) == 0 && S_ISREG(st->st_mode) && st->st_size <= FILE_MAX;
}

/* ---- what is kept ---- */

struct err *file_memo__elf(struct file_memo *m, int fd, const char *path, struct elf_file **out)
{
	struct stat st;
	if (!may_keep(m, fd, &st))
		return elf_file__read_fd(fd, path, out);
	struct kept *k = find(m, &st);
	if (k && k->elf) {
		*out = elf_file__copy(k->elf, path);
		return NULL;
	}
	if (!is_settled(&st) || !is_at_rest(fd))
		return elf_file__read_fd(fd, path, out);
	TRY(elf_file__read_apart(fd, path, out));
	k = place(m, fd, &st);
	if (!k)
		return NULL;
	k->elf = *out;
	m->bytes += k->elf->size;
	*out = elf_file__copy(k->elf, path);
	return NULL;
}

static void copy_map(const struct live_map *m, struct live_map *out)
{
	*out = *m;
	/* what the process says, and not the file */
	out->held = NULL;
	out->n_held = 0;
	out->past = NULL;
	out->n_past = 0;
	out->slots = xmemdup(m->slots, m->n_slots * sizeof(*m->slots));
	out->consts = xmemdup(m->consts, m->n_consts * sizeof(*m->consts));
	out->pieces = xmemdup(m->pieces, m->n_pieces * sizeof(*m->pieces));
	out->leads_to = xmemdup(m->leads_to, m->n_leads_to * sizeof(*m->leads_to));
	out->jumps = xmemdup(m->jumps, m->n_jumps * sizeof(*m->jumps));
}

static struct err *read_image(int fd, const char *path, struct elf_file **next, struct live_map *map)
{
	struct stat st;
	if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > IMAGE_MAX)
		return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot read the running image");
	FREE_CLEANUP uint8_t *data = xmalloc((size_t)st.st_size);
	if (pread(fd, data, (size_t)st.st_size, 0) != st.st_size)
		return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot read the running image");
	return image_file__read(data, (size_t)st.st_size, path, next, map);
}

struct err *file_memo__image(struct file_memo *m, int fd, const char *path, struct elf_file **next,
			     struct live_map *map)
{
	struct stat st;
	if (!may_keep(m, fd, &st))
		return read_image(fd, path, next, map);
	struct kept *k = find(m, &st);
	if (k && k->image) {
		*next = elf_file__copy(k->image, path);
		copy_map(&k->map, map);
		return NULL;
	}
	bool settled = is_settled(&st) && is_at_rest(fd);
	TRY(read_image(fd, path, next, map));
	k = settled ? place(m, fd, &st) : NULL;
	if (!k)
		return NULL;
	k->image = *next;
	m->bytes += k->image->size;
	copy_map(map, &k->map);
	*next = elf_file__copy(k->image, path);
	return NULL;
}
