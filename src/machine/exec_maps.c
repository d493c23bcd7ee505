/* See exec_maps.h. */
#include "machine/exec_maps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "machine/procfs.h"

/* One read(2) of maps returns a page at most, or one line (fs/seq_file.c); a line can be as long as a path. */
enum { BUF_START = 64 << 10, BUF_MAX = 1 << 20 };

/* struct procmap_query of linux/fs.h, which is younger than the headers here. */
struct procmap_query {
	uint64_t size, query_flags, query_addr;
	uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
	uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
	uint64_t vma_name_addr, build_id_addr;
};
#define QUERY _IOWR('f', 17, struct procmap_query)
enum { QUERY_EXECUTABLE = 0x04, QUERY_COVERING_OR_NEXT = 0x10, QUERY_FILE_BACKED = 0x20 };

/* ---- asking ---- */

enum asked { ASKED_ALL, ASKED_ENDED, ASKED_NO_ANSWER };

/* From *at on, which becomes the end of the last one that `each` got. *more: `each` wants more. */
static enum asked ask(struct exec_maps *r, int fd, uint64_t *at, exec_maps_fn *each, void *arg, bool *more)
{
	while (*more) {
		struct procmap_query q = {
		    .size = sizeof(q),
		    .query_flags = QUERY_EXECUTABLE | QUERY_COVERING_OR_NEXT | QUERY_FILE_BACKED,
		    .query_addr = *at,
		    .vma_name_size = PATH_MAX,
		    .vma_name_addr = (uintptr_t)r->buf,
		};
		if (ioctl(fd, QUERY, &q) < 0)
			return errno == ENOENT ? ASKED_ALL : errno == ESRCH ? ASKED_ENDED : ASKED_NO_ANSWER;
		if (q.vma_end <= *at)
			return ASKED_NO_ANSWER;
		*at = q.vma_end;
		if (q.vma_name_size <= 1)
			continue;
		*more = each(arg, &(struct exec_mapping){.start = q.vma_start,
							 .end = q.vma_end,
							 .major = q.dev_major,
							 .minor = q.dev_minor,
							 .inode = q.inode,
							 .name = r->buf,
							 .len = q.vma_name_size - 1}); /* it counts the zero byte */
	}
	return ASKED_ALL;
}

/* ---- reading ---- */

static unsigned digit(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : UINT_MAX;
}

static uint64_t number(const char **s, unsigned base)
{
	uint64_t v = 0;
	for (; digit(**s) < base; (*s)++)
		v = v * base + digit(**s);
	return v;
}

/* Newlines are written as "\012", but a backslash that is there stays (fs/seq_file.c, mangle_path): "\012" may be
 * either. The link in map_files says it without escapes. */
static size_t unescape(int dir, const struct exec_mapping *m, char *name)
{
	if (!strstr(name, "\\012"))
		return m->len;
	char link[64], path[PATH_MAX];
	snprintf(link, sizeof(link), "map_files/%" PRIx64 "-%" PRIx64, m->start, m->end);
	ssize_t n = readlinkat(dir, link, path, sizeof(path));
	if (n > 0 && (size_t)n < sizeof(path) && (size_t)n <= m->len) {
		memcpy(name, path, (size_t)n);
		name[n] = '\0';
		return (size_t)n;
	}
	char *to = name;
	for (const char *from = name; *from;) {
		bool newline = strncmp(from, "\\012", 4) == 0;
		if (newline)
			*to++ = '\n';
		else
			*to++ = *from;
		from += newline ? 4 : 1;
	}
	*to = '\0';
	return (size_t)(to - name);
}

/* "START-END rwxp OFFSET MAJOR:MINOR INODE   NAME", with a zero byte in place of the newline at `end`. Is it an
 * executable mapping of a file? */
static bool parse(int dir, char *line, char *end, struct exec_mapping *m)
{
	const char *s = memchr(line, ' ', (size_t)(end - line));
	if (!s || end - s < 6 || s[3] != 'x')
		return false;
	const char *head = line;
	m->start = number(&head, 16);
	head += *head == '-';
	m->end = number(&head, 16);
	s += strlen(" r-xp ");
	number(&s, 16);
	s += *s == ' ';
	m->major = (uint32_t)number(&s, 16);
	s += *s == ':';
	m->minor = (uint32_t)number(&s, 16);
	s += *s == ' ';
	m->inode = number(&s, 10);
	s += strspn(s, " ");
	if (m->inode == 0 || !*s)
		return false;
	m->name = s;
	m->len = (size_t)(end - s);
	m->len = unescape(dir, m, line + (s - line));
	return true;
}

static void grow(struct exec_maps *r, size_t used)
{
	if (used < r->size)
		return;
	r->size = r->size * 2;
	r->buf = xreallocarray(r->buf, r->size, 1);
}

/* The whole lines in the buffer; how many bytes of it they were. */
static size_t lines(struct exec_maps *r, int dir, size_t used, uint64_t from, exec_maps_fn *each, void *arg, bool *more)
{
	size_t done = 0;
	char *newline;
	while (*more && (newline = memchr(r->buf + done, '\n', used - done))) {
		struct exec_mapping m;
		*newline = '\0';
		if (parse(dir, r->buf + done, newline, &m) && m.start >= from)
			*more = each(arg, &m);
		done = (size_t)(newline + 1 - r->buf);
	}
	return done;
}

static int read_text(struct exec_maps *r, int fd, int dir, uint64_t from, exec_maps_fn *each, void *arg, bool *more)
{
	size_t used = 0;
	off_t at = 0;
	while (*more) {
		if (used == r->size && r->size >= BUF_MAX)
			return EFBIG;
		grow(r, used);
		ssize_t n = pread(fd, r->buf + used, r->size - used, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : 0;
		at += n;
		used += (size_t)n;
		size_t done = lines(r, dir, used, from, each, arg, more);
		memmove(r->buf, r->buf + done, used - done);
		used -= done;
	}
	return 0;
}

struct err *exec_maps__each(struct exec_maps *r, pid_t pid, int dir, exec_maps_fn *each, void *arg)
{
	CLOSE_CLEANUP int fd = openat(dir, "maps", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return procfs__err(pid, errno, "its mappings");
	if (!r->buf)
		r->buf = xmalloc(r->size = BUF_START);
	uint64_t from = 0;
	bool more = true;
	enum asked a = r->text ? ASKED_NO_ANSWER : ask(r, fd, &from, each, arg, &more);
	int why = 0;
	if (a == ASKED_NO_ANSWER) {
		if (errno == ENOTTY)
			r->text = true;
		why = read_text(r, fd, dir, from, each, arg, &more);
	}
	if (why && why != ESRCH)
		return procfs__err(pid, why, "its mappings");
	return faccessat(dir, "stat", F_OK, 0) < 0 ? procfs__err(pid, ESRCH, "its mappings") : NULL;
}

void exec_maps__free(struct exec_maps *r)
{
	free(r->buf);
	*r = (struct exec_maps){0};
}
