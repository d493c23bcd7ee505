/* See package.h. All lists are held as one text, and a table of hashes leads to the lines. */
#include "machine/package.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/types.h"
#include "base/vec.h"
#include "machine/root.h"
#include "machine/upgrades.h"

#define BYTES_MAX (256ULL << 20)
enum { LINES_MAX = 8 << 20, COMPARED_MAX = 256 << 20 }; /* against lists that are made to be slow */
#define DATABASE "var/lib/dpkg"

/* A line of a list. */
struct line {
	uint32_t at; /* in the text, +1; 0: no line */
	uint32_t package;
};

/* A file that `by` (NULL: the administrator) has moved aside, so that `from` is by's own. */
struct diversion {
	const char *from, *to, *by;
};

struct packages {
	char *root;
	bool read;    /* or tried to */
	bool merged;  /* /lib is a link */
	char *broken; /* why it could not be read */
	char *text;   /* of all lists; each line ends with a zero byte */
	size_t len, size;
	struct line *lines;
	size_t n_places; /* a power of 2 */
	size_t compared; /* places that were found taken */
	VEC(struct package) all;
	VEC(struct diversion) diversions;
	char *status, *diverted; /* what the names point into */
	VEC(char *) names;       /* likewise */
	struct upgrades *upgrades;
};

/* Whole pages of what malloc(3) gave. */
static void advise(void *start, size_t len, int advice)
{
	uint64_t from = align_up((uint64_t)(uintptr_t)start, LLU_PAGE), end = (uint64_t)(uintptr_t)start + len;
	end -= end % LLU_PAGE;
	if (start && from < end)
		(void)madvise((void *)(uintptr_t)from, end - from, advice);
}

/* The two large blocks: to whom fork(2) makes they are of no use, and cost it most of its time. */
static void advise_large(const struct packages *p, int advice)
{
	advise(p->text, p->size, advice);
	advise(p->lines, p->n_places * sizeof(*p->lines), advice);
}

struct packages *packages__new(const char *root)
{
	struct packages *p = xcalloc(1, sizeof(*p));
	p->root = xstrdup(root ? root : "/");
	p->upgrades = upgrades__new(p->root);
	return p;
}

void packages__free(struct packages *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->names.n; i++)
		free(p->names.items[i]);
	vec__free(&p->names);
	vec__free(&p->all);
	vec__free(&p->diversions);
	upgrades__free(p->upgrades);
	advise_large(p, MADV_DOFORK);
	free(p->root);
	free(p->broken);
	free(p->text);
	free(p->lines);
	free(p->status);
	free(p->diverted);
	free(p);
}

/* ---- paths ---- */

static bool starts(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

/* The folders that merging moved to /usr (Debian's usrmerge(1); base-files, usr-is-merged). */
static bool is_merged_folder(const char *path)
{
	static const char *const folders[] = {"/lib/", "/lib64/", "/lib32/", "/libx32/", "/libo32/", "/bin/", "/sbin/"};
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
		if (starts(path, folders[i]))
			return true;
	return false;
}

/* The name by which a path is compared. */
static const char *plain(const struct packages *p, const char *path)
{
	return p->merged && starts(path, "/usr/") && is_merged_folder(path + strlen("/usr")) ? path + strlen("/usr")
											     : path;
}

static struct line *place(const struct packages *p, const char *path, size_t *at)
{
	*at = hash__bytes(HASH_START, path, strlen(path)) & (p->n_places - 1);
	return &p->lines[*at];
}

static bool enter(struct packages *p, struct line line)
{
	size_t at;
	for (struct line *l = place(p, plain(p, p->text + line.at - 1), &at); l->at; l = &p->lines[at]) {
		at = (at + 1) & (p->n_places - 1);
		if (++p->compared > COMPARED_MAX)
			return false;
	}
	p->lines[at] = line;
	return true;
}

static bool make_places(struct packages *p)
{
	size_t lines = 1;
	for (size_t i = 0; i < p->len; i++)
		lines += p->text[i] == '\0';
	for (p->n_places = 1024; p->n_places < lines * 2;)
		p->n_places *= 2;
	if (lines <= LINES_MAX)
		p->lines = xcalloc(p->n_places, sizeof(*p->lines));
	return lines <= LINES_MAX;
}

/* Folders are in the lists of all packages that have something in them, each right before that. Nobody asks for one. */
static bool is_folder(const char *line, const char *next)
{
	size_t n = strlen(line);
	return strncmp(line, next, n) == 0 && next[n] == '/';
}

/* ---- reading ---- */

/* Adds a regular file to a text, which has two more bytes then, the first of them zero; 0 or an errno. */
static int append(int fd, char **text, size_t *len, size_t *size, size_t max)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return errno;
	if (!S_ISREG(st.st_mode))
		return EINVAL;
	for (;;) {
		size_t want = *len + (size_t)(st.st_size > 0 && (uint64_t)st.st_size < max ? st.st_size : 0) + 4096;
		if (*len > max)
			return EFBIG;
		if (*size - *len < 3) {
			*size = *size * 2 > want ? *size * 2 : want;
			*text = xreallocarray(*text, *size, 1);
		}
		ssize_t n = read(fd, *text + *len, *size - *len - 2);
		if (n < 0 && errno != EINTR)
			return errno;
		if (n == 0)
			break;
		*len += n > 0 ? (size_t)n : 0;
	}
	(*text)[*len] = (*text)[*len + 1] = '\0';
	return 0;
}

/* A file of the database, whole; an empty one when there is none. */
static int slurp(int dir, const char *name, char **text)
{
	size_t len = 0, size = 0;
	CLOSE_CLEANUP int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		return errno;
	if (fd >= 0)
		return append(fd, text, &len, &size, BYTES_MAX);
	*text = xstrdup("");
	return 0;
}

/* ---- lists ---- */

/* "NAME.list" or "NAME:ARCH.list". */
static bool begin_package(struct packages *p, const char *file)
{
	size_t n = strlen(file);
	if (n < 6 || strcmp(file + n - 5, ".list") != 0)
		return false;
	char *name = xasprintf("%.*s", (int)(n - 5), file);
	vec__push(&p->names, name);
	char *colon = strchr(name, ':');
	if (colon)
		*colon = '\0';
	vec__push(&p->all, (struct package){.name = name, .arch = colon ? colon + 1 : "", .version = ""});
	return true;
}

struct list {
	size_t end; /* in the text */
	uint32_t package;
};
typedef VEC(struct list) list_vec;

static int read_lists(struct packages *p, int info, list_vec *lists)
{
	int own = dup(info);
	DIR *d = own >= 0 ? fdopendir(own) : NULL;
	int why = d ? 0 : errno;
	if (!d && own >= 0)
		close(own);
	for (struct dirent *e; d && !why && (e = readdir(d));) {
		if (!begin_package(p, e->d_name))
			continue;
		CLOSE_CLEANUP int fd = openat(info, e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0)
			why = append(fd, &p->text, &p->len, &p->size, BYTES_MAX);
		if (p->len && p->text[p->len - 1] != '\n')
			p->text[p->len++] = '\n'; /* append() leaves two bytes */
		vec__push(lists, (struct list){p->len, (uint32_t)p->all.n - 1});
	}
	if (d)
		closedir(d);
	return why;
}

/* 0 or an errno. The text has a zero byte behind its end. */
static int enter_lists(struct packages *p, const list_vec *lists)
{
	for (char *s = p->text; (s = memchr(s, '\n', (size_t)(p->text + p->len - s)));)
		*s++ = '\0';
	if (!make_places(p))
		return EFBIG;
	size_t at = 0;
	for (size_t i = 0; i < lists->n; i++)
		while (at < lists->items[i].end) {
			const char *line = p->text + at, *next = line + strlen(line) + 1;
			bool last = next >= p->text + p->len;
			if ((last || !is_folder(line, next)) &&
			    !enter(p, (struct line){(uint32_t)at + 1, lists->items[i].package}))
				return EFBIG;
			at = (size_t)(next - p->text);
		}
	return 0;
}

/* ---- versions ---- */

/* The value of a field in a paragraph that ends at `end`, cut off there; or NULL. The text is changed: a zero byte
 * behind the value. */
static char *field(char *paragraph, const char *end, const char *name)
{
	for (char *s = paragraph; s && s < end; s = strchr(s, '\n'), s = s ? s + 1 : NULL) {
		size_t n = strlen(name);
		if (strncmp(s, name, n) == 0 && s[n] == ':')
			return s + n + 1 + strspn(s + n + 1, " \t");
	}
	return NULL;
}

static void cut(char *value)
{
	if (value)
		value[strcspn(value, "\n")] = '\0';
}

static int by_name(const void *a, const void *b)
{
	const struct package *x = *(const struct package *const *)a, *y = *(const struct package *const *)b;
	return strcmp(x->name, y->name);
}

/* Which of them have a list, by name: those with an architecture in the list's name must have this one. */
static void set_version(struct package **sorted, size_t n, const char *name, const char *arch, const char *version)
{
	size_t lo = 0, hi = n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (strcmp(sorted[mid]->name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < n && strcmp(sorted[lo]->name, name) == 0; lo++)
		if (!*sorted[lo]->version && (!*sorted[lo]->arch || strcmp(sorted[lo]->arch, arch) == 0)) {
			sorted[lo]->arch = arch;
			sorted[lo]->version = version;
		}
}

/* A package that was removed but for its configuration may be there a second time, of another architecture. */
static void read_versions(struct packages *p)
{
	FREE_CLEANUP struct package **sorted = xcalloc(p->all.n ? p->all.n : 1, sizeof(struct package *));
	for (size_t i = 0; i < p->all.n; i++)
		sorted[i] = &p->all.items[i];
	qsort(sorted, p->all.n, sizeof(void *), by_name);
	for (char *s = p->status, *end; *s; s = end + strspn(end, "\n")) {
		char *empty = strstr(s, "\n\n");
		end = empty ? empty + 1 : s + strlen(s);
		char *name = field(s, end, "Package"), *arch = field(s, end, "Architecture"),
		     *version = field(s, end, "Version"), *state = field(s, end, "Status");
		bool more = *end != '\0';
		cut(name);
		cut(arch);
		cut(version);
		cut(state);
		if (name && version && !(state && strstr(state, "config-files")))
			set_version(sorted, p->all.n, name, arch ? arch : "", version);
		if (!more)
			break;
	}
}

/* ---- diversions ---- */

/* Three lines each: from, to, and the package, or ':' for the administrator (dpkg, lib/dpkg/db-fsys-divert.c). */
static void read_diversions(struct packages *p)
{
	const char *word[3];
	size_t n = 0;
	for (char *s = p->diverted; *s;) {
		size_t len = strcspn(s, "\n");
		bool more = s[len] != '\0';
		s[len] = '\0';
		word[n++] = s;
		s += len + more;
		if (n < 3)
			continue;
		n = 0;
		vec__push(&p->diversions,
			  (struct diversion){word[0], word[1], strcmp(word[2], ":") == 0 ? NULL : word[2]});
	}
}

/* ---- all of it ---- */

static int read_all(struct packages *p, int dir)
{
	list_vec lists = {0};
	CLOSE_CLEANUP int info = openat(dir, "info", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (info < 0)
		return errno == ENOENT ? 0 : errno;
	int why = read_lists(p, info, &lists);
	if (!why && p->len)
		why = enter_lists(p, &lists);
	vec__free(&lists);
	if (!why)
		why = slurp(dir, "status", &p->status);
	if (!why)
		why = slurp(dir, "diversions", &p->diverted);
	if (why)
		return why;
	read_versions(p);
	read_diversions(p);
	return 0;
}

static void read_database(struct packages *p)
{
	struct stat st;
	CLOSE_CLEANUP int lib = root__open(p->root, "lib", O_PATH | O_NOFOLLOW);
	CLOSE_CLEANUP int dir = root__open(p->root, DATABASE, O_RDONLY | O_DIRECTORY);
	int why = dir < 0 && errno != ENOENT && errno != ENOTDIR ? errno : 0;
	p->read = true;
	p->merged = lib >= 0 && fstat(lib, &st) == 0 && S_ISLNK(st.st_mode);
	if (dir >= 0)
		why = read_all(p, dir);
	if (why)
		p->broken = xstrdup(strerror(why));
	advise_large(p, MADV_DONTFORK);
}

/* ---- asking ---- */

/* The first package that lists the path; with `only` that one, with `not` another. */
static const struct package *lister(const struct packages *p, const char *path, const char *only, const char * not )
{
	size_t at;
	if (!p->n_places)
		return NULL;
	path = plain(p, path);
	for (const struct line *l = place(p, path, &at); l->at; l = &p->lines[at]) {
		const struct package *k = &p->all.items[l->package];
		if (strcmp(plain(p, p->text + l->at - 1), path) == 0 && (!only || strcmp(k->name, only) == 0) &&
		    (!not || strcmp(k->name, not ) != 0))
			return k;
		at = (at + 1) & (p->n_places - 1);
	}
	return NULL;
}

static const struct package *owner(const struct packages *p, const char *path)
{
	for (size_t i = 0; i < p->diversions.n; i++) {
		const struct diversion *d = &p->diversions.items[i];
		if (strcmp(plain(p, d->to), plain(p, path)) == 0)
			return lister(p, d->from, NULL, d->by);
		if (strcmp(plain(p, d->from), plain(p, path)) == 0)
			return d->by ? lister(p, path, d->by, NULL) : NULL;
	}
	return lister(p, path, NULL, NULL);
}

struct err *packages__owner(struct packages *p, const char *path, const struct package **out)
{
	*out = NULL;
	if (!p->read)
		read_database(p);
	if (p->broken)
		return err__new(ERR_UNREADABLE, 0, p->root, NULL, "its database of packages cannot be read: %s",
				p->broken);
	if (path[0] == '/')
		*out = owner(p, path);
	return NULL;
}

const char *packages__version_at(struct packages *p, const struct package *k, time_t since)
{
	return upgrades__version_at(p->upgrades, k, since);
}
