/* See journal.h. */
#include "remap/journal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/trusted.h"
#include "remap/lock.h"

enum {
	FILE_MAX = 16 << 20,
	LIBRARIES_MAX = 256,
	MOVES_MAX = 4096, /* of a library: more than a batch can hold */
};

static const char *const step_names[] = {"prepare", "exchange", "undo", "settle"};

struct journal *journal__new(pid_t target, uint64_t start, const char *name)
{
	struct journal *j = xcalloc(1, sizeof(*j));
	struct vapi_header me;
	owner__set(&me);
	j->tool = (pid_t)me.owner;
	j->tool_start = me.owner_start;
	j->tool_pidns = me.owner_pidns;
	j->target = target;
	j->target_start = start;
	j->name = xstrdup(name);
	return j;
}

void journal__free(struct journal *j)
{
	if (!j)
		return;
	for (size_t i = 0; i < j->libraries.n; i++) {
		struct journal_library *l = &j->libraries.items[i];
		for (size_t k = 0; k < l->moves.n; k++)
			free(l->moves.items[k].before);
		vec__free(&l->moves);
		free(l->path);
	}
	vec__free(&j->libraries);
	vec__free(&j->annexes);
	free(j->name);
	free(j);
}

/* ---- writing ---- */

/* A word without blanks, line ends and the like: those as %XX. */
static void put_word(FILE *f, const char *s)
{
	for (; *s; s++)
		if (isgraph((unsigned char)*s) && *s != '%')
			fputc(*s, f);
		else
			fprintf(f, "%%%02x", (unsigned char)*s);
}

static void put_library(FILE *f, const struct journal_library *l)
{
	fprintf(f,
		"library 0x%" PRIx64 " 0x%" PRIx64 " %" PRIu64 " 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64
		" ",
		l->bias.v, l->header.v, l->generation, l->image, l->image_len, l->shadows, l->shadows_len);
	put_word(f, l->path);
	fputc('\n', f);
	for (size_t i = 0; i < l->moves.n; i++) {
		const struct journal_move *m = &l->moves.items[i];
		fprintf(f, "move 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 "\n", m->at, m->to, m->len,
			m->hash);
	}
}

static void put_pages(FILE *f, const struct journal *j)
{
	size_t total = 0;
	for (size_t i = 0; i < j->libraries.n; i++)
		for (size_t k = 0; k < j->libraries.items[i].moves.n; k++)
			total += j->libraries.items[i].moves.items[k].len;
	fprintf(f, "pages %zu\n", total);
	for (size_t i = 0; i < j->libraries.n; i++)
		for (size_t k = 0; k < j->libraries.items[i].moves.n; k++) {
			const struct journal_move *m = &j->libraries.items[i].moves.items[k];
			fwrite(m->before, 1, m->len, f);
		}
}

static char *text_of(const struct journal *j, size_t *size)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, size);
	if (!f)
		abort();
	fprintf(f, "llu-journal 1\ntool %d %" PRIu64 " %" PRIu64 "\ntarget %d %" PRIu64 " ", j->tool, j->tool_start,
		j->tool_pidns, j->target, j->target_start);
	put_word(f, j->name);
	fprintf(f, "\nstep %s\n", step_names[j->step]);
	for (size_t i = 0; i < j->libraries.n; i++)
		put_library(f, &j->libraries.items[i]);
	for (size_t i = 0; i < j->annexes.n; i++)
		fprintf(f, "annex 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 "\n", j->annexes.items[i].range.start.v,
			j->annexes.items[i].range.end.v, j->annexes.items[i].bias.v);
	if (j->step == JOURNAL_EXCHANGE)
		put_pages(f, j);
	fclose(f);
	return text;
}

static bool write_all(int fd, const char *text, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = write(fd, text + done, fault__piece(size, done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		done += (size_t)n;
		fault__point("file in the middle");
	}
	return true;
}

/* What is more than this would not be believed when it is read. */
static bool is_readable(const struct journal *j)
{
	bool ok = j->libraries.n <= LIBRARIES_MAX && j->annexes.n <= LIBRARIES_MAX;
	for (size_t i = 0; i < j->libraries.n; i++)
		ok = ok && j->libraries.items[i].moves.n <= MOVES_MAX;
	return ok;
}

struct err *journal__write(const struct journal *j)
{
	FREE_CLEANUP char *where = NULL;
	TRY(lock__folder(&where));
	FREE_CLEANUP char *path = xasprintf("%s/%d.journal", where, j->target);
	FREE_CLEANUP char *temporary = xasprintf("%s.new", path);
	size_t size = 0;
	FREE_CLEANUP char *text = text_of(j, &size);
	if (size > FILE_MAX || !is_readable(j))
		return err__new(ERR_REFUSED, 0, path, NULL,
				"the update is too large to be written down, so the process is left alone");
	fault__point("file before");
	unlink(temporary); /* of a tool that died: this process's lock is ours */
	CLOSE_CLEANUP int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || !write_all(fd, text, size) || rename(temporary, path) < 0) {
		struct err *e = err__new(ERR_SYSTEM, errno, path, NULL,
					 "the journal cannot be written, so the process is left alone");
		unlink(temporary);
		return e;
	}
	fault__point("file after");
	return NULL;
}

/* ---- reading: nothing in it is taken for granted ---- */

struct reader {
	char *at, *end; /* a zero byte is at the end */
};

/* The next line without its end; NULL when there is none. */
static char *next_line(struct reader *r)
{
	char *line = r->at, *nl = line < r->end ? memchr(line, '\n', (size_t)(r->end - line)) : NULL;
	if (!nl || memchr(line, 0, (size_t)(nl - line)))
		return NULL;
	*nl = 0;
	r->at = nl + 1;
	return line;
}

/* Undoes put_word(); NULL when it is not one. */
static char *get_word(const char *s)
{
	char *word = xmalloc(strlen(s) + 1), *to = word;
	for (; *s; s++) {
		char code[3] = {0};
		if (*s == '%' && s[1])
			memcpy(code, s + 1, 2); /* perhaps with the end of the string */
		char c = *s;
		if (*s == '%')
			c = (char)strtoul(code, NULL, 16);
		if (*s == '%' && (strspn(code, "0123456789abcdefABCDEF") != 2 || !c)) {
			free(word);
			return NULL;
		}
		*to++ = c;
		s += *s == '%' ? 2 : 0;
	}
	*to = 0;
	return word;
}

/* Words of `line` behind `key`, at most `n`; how many. */
static size_t split(char *line, const char *key, char **words, size_t n)
{
	size_t count = 0;
	char *word = strsep(&line, " ");
	if (!word || strcmp(word, key) != 0)
		return 0;
	while (count < n && (word = strsep(&line, " ")))
		words[count++] = word;
	return line ? 0 : count;
}

static bool number(const char *s, uint64_t *out)
{
	char *end;
	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	*out = strtoull(s, &end, 0);
	return !errno && !*end;
}

static bool numbers(char **words, uint64_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!number(words[i], &out[i]))
			return false;
	return true;
}

static bool pages(uint64_t v)
{
	return v % LLU_PAGE == 0 && v < (1ull << 47);
}

static bool parse_head(struct reader *r, struct journal *j)
{
	char *line = next_line(r), *w[3];
	uint64_t n[3];
	if (!line || strcmp(line, "llu-journal 1") != 0)
		return false;
	if (!(line = next_line(r)) || split(line, "tool", w, 3) != 3 || !numbers(w, n, 3) || n[0] > INT32_MAX)
		return false;
	j->tool = (pid_t)n[0];
	j->tool_start = n[1];
	j->tool_pidns = n[2];
	if (!(line = next_line(r)) || split(line, "target", w, 3) != 3 || !numbers(w, n, 2) || n[0] > INT32_MAX)
		return false;
	j->target = (pid_t)n[0];
	j->target_start = n[1];
	j->name = get_word(w[2]);
	if (!j->name || !(line = next_line(r)) || split(line, "step", w, 1) != 1)
		return false;
	size_t step = 0;
	while (step <= JOURNAL_SETTLE && strcmp(w[0], step_names[step]) != 0)
		step++;
	j->step = (enum journal_step)step;
	return step <= JOURNAL_SETTLE;
}

static bool parse_library(char *line, struct journal *j)
{
	char *w[8];
	uint64_t n[7];
	if (j->libraries.n == LIBRARIES_MAX || split(line, "library", w, 8) != 8 || !numbers(w, n, 7) || !pages(n[0]) ||
	    !pages(n[1]) || !pages(n[3]) || !pages(n[4]) || !pages(n[5]) || !pages(n[6]))
		return false;
	struct journal_library l = {.path = get_word(w[7]),
				    .bias = taddr(n[0]),
				    .header = taddr(n[1]),
				    .generation = n[2],
				    .image = n[3],
				    .image_len = n[4],
				    .shadows = n[5],
				    .shadows_len = n[6]};
	if (!l.path)
		return false;
	vec__push(&j->libraries, l);
	return true;
}

static bool parse_annex(char *line, struct journal *j)
{
	char *w[3];
	uint64_t n[3];
	if (j->annexes.n == LIBRARIES_MAX || split(line, "annex", w, 3) != 3 || !numbers(w, n, 3) || !pages(n[0]) ||
	    !pages(n[1]) || n[0] >= n[1])
		return false;
	struct journal_annex x = {{taddr(n[0]), taddr(n[1])}, taddr(n[2])};
	vec__push(&j->annexes, x);
	return true;
}

static bool parse_move(char *line, struct journal *j)
{
	char *w[4];
	uint64_t n[4];
	if (!j->libraries.n || split(line, "move", w, 4) != 4 || !numbers(w, n, 4) || !pages(n[0]) || !pages(n[1]) ||
	    !pages(n[2]) || !n[2])
		return false;
	struct journal_library *l = &j->libraries.items[j->libraries.n - 1];
	struct journal_move m = {.at = n[0], .to = n[1], .len = n[2], .hash = n[3]};
	if (l->moves.n == MOVES_MAX || m.at < l->shadows || m.at - l->shadows > l->shadows_len ||
	    m.len > l->shadows_len - (m.at - l->shadows))
		return false;
	vec__push(&l->moves, m);
	return true;
}

static bool parse_pages(struct reader *r, char *line, struct journal *j)
{
	char *w[1];
	uint64_t total;
	if (split(line, "pages", w, 1) != 1 || !numbers(w, &total, 1) || total != (uint64_t)(r->end - r->at))
		return false;
	for (size_t i = 0; i < j->libraries.n; i++)
		for (size_t k = 0; k < j->libraries.items[i].moves.n; k++) {
			struct journal_move *m = &j->libraries.items[i].moves.items[k];
			if (m->len > (uint64_t)(r->end - r->at))
				return false;
			m->before = xmemdup(r->at, m->len);
			r->at += m->len;
		}
	return r->at == r->end;
}

static bool parse(struct reader *r, struct journal *j)
{
	bool ok = parse_head(r, j), any_pages = false;
	for (char *line; ok && !any_pages && (line = next_line(r));) {
		any_pages = !strncmp(line, "pages ", 6);
		ok = any_pages                       ? parse_pages(r, line, j)
		     : !strncmp(line, "library ", 8) ? parse_library(line, j)
		     : !strncmp(line, "annex ", 6)   ? parse_annex(line, j)
						     : parse_move(line, j);
	}
	return ok && r->at == r->end && any_pages == (j->step == JOURNAL_EXCHANGE);
}

struct err *journal__read(const char *name, struct journal **out)
{
	FREE_CLEANUP char *where = NULL, *text = NULL;
	size_t len;
	TRY(lock__folder(&where));
	FREE_CLEANUP char *path = xasprintf("%s/%s", where, name);
	TRY(trusted__read(path, FILE_MAX, &text, &len));
	struct journal *j = xcalloc(1, sizeof(*j));
	struct reader r = {text, text + len};
	if (!parse(&r, j)) {
		journal__free(j);
		return err__new(ERR_UNREADABLE, 0, path, NULL, "not a journal, or not whole");
	}
	*out = j;
	return NULL;
}

struct journal *journal__of(pid_t target, uint64_t start)
{
	struct journal *j = NULL;
	FREE_CLEANUP char *name = xasprintf("%d.journal", target);
	ERR_CLEANUP struct err *e = journal__read(name, &j);
	if (!e && j && j->target == target && j->target_start == start)
		return j;
	journal__free(j);
	return NULL;
}

/* ---- the folder ---- */

void journal__remove_file(const char *name)
{
	FREE_CLEANUP char *where = NULL;
	ERR_CLEANUP struct err *e = lock__folder(&where);
	if (e)
		return;
	FREE_CLEANUP char *path = xasprintf("%s/%s", where, name);
	fault__point("removal before");
	unlink(path);
	fault__point("removal after");
}

void journal__remove(pid_t target)
{
	FREE_CLEANUP char *name = xasprintf("%d.journal", target);
	journal__remove_file(name);
}

struct err *journal__list(journal_list *out)
{
	FREE_CLEANUP char *where = NULL;
	TRY(lock__folder(&where));
	DIR *d = opendir(where);
	if (!d)
		return err__new(ERR_SYSTEM, errno, where, NULL, "cannot read the folder for locks and journals");
	for (struct dirent *e; (e = readdir(d));) {
		char *end;
		long pid = isdigit((unsigned char)e->d_name[0]) ? strtol(e->d_name, &end, 10) : 0;
		if (pid <= 0 || pid > INT32_MAX || (strcmp(end, ".journal") != 0 && strcmp(end, ".journal.new") != 0))
			continue;
		struct journal_file f = {xstrdup(e->d_name), (pid_t)pid, end[sizeof(".journal") - 1] != 0};
		vec__push(out, f);
	}
	closedir(d);
	return NULL;
}

void journal_list__free(journal_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->items[i].name);
	vec__free(l);
}
