/* See upgrades.h. */
#include "machine/upgrades.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/vec.h"
#include "machine/root.h"

enum {
	LINES_MAX = 4 << 20, /* a log that somebody made to be slow */
	MARGIN_S = 60,       /* between a process's start and an upgrade: clocks are set now and then */
	UNPACK_S = 900,      /* the list of files is written when all are unpacked */
};

/* The package got another version, or came, or went. */
struct event {
	time_t at;
	bool upgrade;
	char *name, *arch, *old, *new;
};

struct upgrades {
	char *root;
	bool read;
	time_t from; /* the log goes back to it; 0: there is none */
	size_t lines;
	VEC(struct event) events;
};

struct upgrades *upgrades__new(const char *root)
{
	struct upgrades *u = xcalloc(1, sizeof(*u));
	u->root = xstrdup(root);
	return u;
}

void upgrades__free(struct upgrades *u)
{
	if (!u)
		return;
	for (size_t i = 0; i < u->events.n; i++) {
		free(u->events.items[i].name);
		free(u->events.items[i].arch);
		free(u->events.items[i].old);
		free(u->events.items[i].new);
	}
	vec__free(&u->events);
	free(u->root);
	free(u);
}

/* ---- reading ---- */

/* -1: it is no time. */
static time_t time_of(const char *date, const char *clock)
{
	FREE_CLEANUP char *both = xasprintf("%s %s", date, clock);
	struct tm tm = {.tm_isdst = -1};
	const char *end = strptime(both, "%Y-%m-%d %H:%M:%S", &tm);
	return end && !*end ? mktime(&tm) : -1;
}

/* "NAME:ARCH OLD NEW" behind one of the words for it. */
static void take_line(struct upgrades *u, char *line)
{
	static const char *const actions[] = {"upgrade", "install", "remove", "purge"};
	char *word[6] = {NULL}, *rest = line;
	for (size_t i = 0; i < 6; i++)
		word[i] = strsep(&rest, " \n");
	time_t at = word[1] ? time_of(word[0], word[1]) : -1;
	if (at < 0)
		return;
	if (!u->from)
		u->from = at;
	for (size_t i = 0; word[5] && i < sizeof(actions) / sizeof(actions[0]); i++) {
		char *colon = strchr(word[3], ':');
		if (strcmp(word[2], actions[i]) != 0 || !colon)
			continue;
		struct event e = {.at = at,
				  .upgrade = i == 0,
				  .name = xasprintf("%.*s", (int)(colon - word[3]), word[3]),
				  .arch = xstrdup(colon + 1),
				  .old = xstrdup(word[4]),
				  .new = xstrdup(word[5])};
		vec__push(&u->events, e);
	}
}

static void read_log(struct upgrades *u, const char *name)
{
	struct stat st;
	char *line = NULL;
	size_t size = 0;
	int fd = root__open(u->root, name, O_RDONLY | O_NONBLOCK);
	bool regular = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	FILE *f = regular ? fdopen(fd, "r") : NULL;
	while (f && u->lines++ < LINES_MAX && getline(&line, &size, f) > 0)
		take_line(u, line);
	free(line);
	if (f)
		fclose(f);
	else if (fd >= 0)
		close(fd);
}

static void read_logs(struct upgrades *u)
{
	u->read = true;
	read_log(u, "var/log/dpkg.log.1");
	read_log(u, "var/log/dpkg.log");
}

/* ---- asking ---- */

static bool concerns(const struct event *e, const struct package *k)
{
	return strcmp(e->name, k->name) == 0 && (!*k->arch || strcmp(e->arch, k->arch) == 0);
}

/* Was the list of the package's files written by this upgrade? */
static bool wrote_list(const struct upgrades *u, const struct event *e)
{
	for (int i = 0; i < 2; i++) {
		FREE_CLEANUP char *list =
		    xasprintf("var/lib/dpkg/info/%s%s%s.list", e->name, i ? ":" : "", i ? e->arch : "");
		CLOSE_CLEANUP int fd = root__open(u->root, list, O_PATH | O_NOFOLLOW);
		struct stat st;
		if (fd >= 0 && fstat(fd, &st) == 0)
			return st.st_mtime >= e->at && st.st_mtime <= e->at + UNPACK_S;
	}
	return false;
}

const char *upgrades__version_at(struct upgrades *u, const struct package *k, time_t since)
{
	const struct event *only = NULL;
	if (!u->read)
		read_logs(u);
	if (!u->from || u->from > since || u->lines > LINES_MAX)
		return NULL;
	for (size_t i = 0; i < u->events.n; i++) {
		const struct event *e = &u->events.items[i];
		if (!concerns(e, k) || e->at < since - MARGIN_S)
			continue;
		if (only)
			return NULL;
		only = e;
	}
	bool sure = only && only->upgrade && only->at >= since + MARGIN_S && strcmp(only->new, k->version) == 0 &&
		    wrote_list(u, only);
	return sure ? only->old : NULL;
}
