/* /proc/PID/maps, and the files behind mappings. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/vec.h"
#include "inject/proc.h"

/* "\ooo" back to the byte; only newlines are written so (fs/seq_file.c, seq_path with "\n"). */
static void unescape(char *s)
{
	char *to = s;
	for (const char *from = s; *from;) {
		if (from[0] == '\\' && from[1] == '0' && from[2] == '1' && from[3] == '2') {
			*to++ = '\n';
			from += 4;
		} else {
			*to++ = *from++;
		}
	}
	*to = '\0';
}

/* Reads a number in `base` that `end` must follow, and steps over both. */
static bool number(char **s, int base, char end, uint64_t *out)
{
	char *stop = NULL;
	errno = 0;
	*out = strtoull(*s, &stop, base);
	if (errno || stop == *s || *stop != end)
		return false;
	*s = stop + 1;
	return true;
}

/* "START-END PERM OFFSET MAJ:MIN INODE   PATH", the newline already cut off. */
static bool parse_line(char *s, struct mapping *m)
{
	static const char deleted[] = " (deleted)";
	uint64_t start = 0;
	uint64_t end = 0;
	uint64_t major = 0;
	uint64_t minor = 0;
	if (!number(&s, 16, '-', &start) || !number(&s, 16, ' ', &end) || strlen(s) < 5)
		return false;
	*m = (struct mapping){.range = {taddr(start), taddr(end)}};
	m->prot = (s[0] == 'r' ? PROT_READ : 0) | (s[1] == 'w' ? PROT_WRITE : 0) | (s[2] == 'x' ? PROT_EXEC : 0);
	m->shared = s[3] == 's';
	s += 5;
	if (!number(&s, 16, ' ', &m->offset) || !number(&s, 16, ':', &major) || !number(&s, 16, ' ', &minor))
		return false;
	char *rest = NULL;
	m->inode = strtoull(s, &rest, 10);
	if (rest == s)
		return false;
	m->dev_major = (uint32_t)major;
	m->dev_minor = (uint32_t)minor;
	s = rest + strspn(rest, " ");
	size_t len = strlen(s);
	if (m->inode && len > sizeof(deleted) - 1 && strcmp(s + len - (sizeof(deleted) - 1), deleted) == 0) {
		s[len - (sizeof(deleted) - 1)] = '\0';
		m->deleted = true;
	}
	unescape(s);
	m->path = s;
	return true;
}

const char *mappings__parse(char *text, struct mappings *out)
{
	VEC(struct mapping) v = {0};
	for (char *line = text; *line;) {
		char *nl = strchr(line, '\n');
		if (nl)
			*nl = '\0';
		struct mapping m;
		if (!parse_line(line, &m)) {
			vec__free(&v);
			return line;
		}
		vec__push(&v, m);
		if (!nl)
			break;
		line = nl + 1;
	}
	*out = (struct mappings){.items = v.items, .n = v.n};
	return NULL;
}

struct err *process__maps(const struct process *p, struct mappings *out)
{
	*out = (struct mappings){0};
	char *text = NULL;
	size_t len = 0;
	int r = proc_slurp(p->dirfd, "maps", &text, &len);
	if (r < 0) {
		TRY(process__alive(p));
		return process__err(p, 0, r == -EACCES || r == -EPERM ? ERR_PERMISSION : ERR_UNREADABLE, -r,
				    "run as root or as the owner of the process", "its mappings cannot be read");
	}
	const char *wrong = mappings__parse(text, out);
	if (wrong) {
		struct err *e =
		    process__err(p, 0, ERR_UNREADABLE, 0, NULL, "a line of its maps makes no sense: %s", wrong);
		free(text);
		return e;
	}
	out->text = text;
	if (out->n == 0) {
		/* no memory any more: it is on its way out */
		mappings__free(out);
		TRY(process__alive(p));
		return process__err(p, 0, ERR_GONE, 0, NULL, "the process is ending");
	}
	return NULL;
}

void mappings__free(struct mappings *m)
{
	free(m->items);
	free(m->text);
	*m = (struct mappings){0};
}

const struct mapping *mappings__at(const struct mappings *m, taddr_t a)
{
	size_t lo = 0;
	size_t hi = m->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (a.v >= m->items[mid].range.end.v)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < m->n && trange__has(m->items[lo].range, a) ? &m->items[lo] : NULL;
}

/* struct procmap_query of linux/fs.h, which is younger than the headers here. */
struct procmap_query {
	uint64_t size, query_flags, query_addr;
	uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
	uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
	uint64_t vma_name_addr, build_id_addr;
};
#define LLU_PROCMAP_QUERY _IOWR('f', 17, struct procmap_query)

static bool same_mapping(const struct mapping *a, const struct mapping *b)
{
	return b && a->range.start.v == b->range.start.v && a->range.end.v == b->range.end.v &&
	       a->offset == b->offset && a->inode == b->inode && a->dev_major == b->dev_major &&
	       a->dev_minor == b->dev_minor;
}

static bool same_inode(const struct mapping *a, const struct mapping *b)
{
	return a->inode == b->inode && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor;
}

/* What is mapped at `a`, but for its path and rights. False when the kernel cannot be asked. */
static bool query(int fd, taddr_t a, struct mapping *out, bool *any)
{
	struct procmap_query q = {.size = sizeof(q), .query_addr = a.v};
	*any = ioctl(fd, LLU_PROCMAP_QUERY, &q) == 0;
	*out = (struct mapping){.range = {taddr(q.vma_start), taddr(q.vma_end)},
				.offset = q.vma_offset,
				.inode = q.inode,
				.dev_major = q.dev_major,
				.dev_minor = q.dev_minor};
	return *any || errno == ENOENT;
}

static bool is_still_there(int fd, const struct mapping *m, bool *same)
{
	struct mapping now;
	bool any, answered = query(fd, m->range.start, &now, &any);
	*same = answered && any && same_mapping(m, &now);
	return answered;
}

struct err *process__still_mapped(const struct process *p, const struct mapping *const *m, size_t n, bool *out)
{
	CLOSE_CLEANUP int fd = openat(p->dirfd, "maps", O_RDONLY | O_CLOEXEC);
	struct mappings now;
	bool answered = fd >= 0;
	*out = true;
	for (size_t i = 0; answered && *out && i < n; i++)
		answered = is_still_there(fd, m[i], out);
	if (answered)
		return NULL;
	TRY(process__maps(p, &now));
	*out = true;
	for (size_t i = 0; *out && i < n; i++)
		*out = same_mapping(m[i], mappings__at(&now, m[i]->range.start));
	mappings__free(&now);
	return NULL;
}

static bool same_file_or_none(const struct mapping *then, const struct mapping *now)
{
	return then && now ? same_inode(then, now) : !then && !now;
}

struct err *process__same_files(const struct process *p, const struct mappings *then, const taddr_t *at, size_t n,
				bool *out)
{
	CLOSE_CLEANUP int fd = openat(p->dirfd, "maps", O_RDONLY | O_CLOEXEC);
	struct mappings maps;
	bool answered = fd >= 0;
	*out = true;
	for (size_t i = 0; answered && *out && i < n; i++) {
		struct mapping now;
		bool any;
		answered = query(fd, at[i], &now, &any);
		*out = answered && same_file_or_none(mappings__at(then, at[i]), any ? &now : NULL);
	}
	if (answered)
		return NULL;
	TRY(process__maps(p, &maps));
	*out = true;
	for (size_t i = 0; *out && i < n; i++)
		*out = same_file_or_none(mappings__at(then, at[i]), mappings__at(&maps, at[i]));
	mappings__free(&maps);
	return NULL;
}

/* Is the open file the one that is mapped? (A file system may show other device numbers in stat(2)
 * than in maps, btrfs does; then the answer is no and map_files is the only way.) */
static bool same_file(int fd, const struct mapping *m)
{
	struct stat st;
	return fstat(fd, &st) == 0 && st.st_ino == m->inode && major(st.st_dev) == m->dev_major &&
	       minor(st.st_dev) == m->dev_minor;
}

struct err *process__open_mapped(const struct process *p, const struct mapping *m, int *fd_out)
{
	*fd_out = -1;
	if (m->inode == 0)
		return process__err(p, 0, ERR_USAGE, 0, NULL, "no file is mapped at 0x%" PRIx64, m->range.start.v);
	char path[80];
	snprintf(path, sizeof(path), "map_files/%" PRIx64 "-%" PRIx64, m->range.start.v, m->range.end.v);
	int fd = openat(p->dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int why = errno;
	if (fd < 0 && !m->deleted && m->path[0] == '/') {
		FREE_CLEANUP char *in_root = xasprintf("root%s", m->path);
		fd = openat(p->dirfd, in_root, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0 && !same_file(fd, m)) {
			close(fd);
			return process__err(p, 0, ERR_UNREADABLE, 0, "run as root",
					    "the file mapped as %s is not the one that has this name now", m->path);
		}
	}
	if (fd < 0) {
		TRY(process__alive(p));
		return process__err(p, 0, why == EPERM || why == EACCES ? ERR_PERMISSION : ERR_UNREADABLE, why, NULL,
				    "the file mapped as %s cannot be opened", m->path);
	}
	*fd_out = fd;
	return NULL;
}
