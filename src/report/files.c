/* See files.h. */
#include "report/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/trusted.h"

/* So many logs of one second are kept. */
enum { SAME_SECOND_MAX = 1000 };

static char *in_folder(const char *name)
{
	const char *state = secure_getenv("XDG_STATE_HOME"), *home = secure_getenv("HOME");
	if (geteuid() == 0)
		return xasprintf("/var/log/liveupdate/%s", name);
	if (state && *state == '/')
		return xasprintf("%s/liveupdate/%s", state, name);
	return xasprintf("%s/.local/state/liveupdate/%s", home ? home : "", name);
}

static void make_folders_of(const char *path)
{
	FREE_CLEANUP char *copy = xstrdup(path);
	for (char *p = copy + 1; *p; p++)
		if (*p == '/') {
			*p = 0;
			mkdir(copy, 0755);
			*p = '/';
		}
}

/* Gives the former log its name, which nothing else has: link(2) never replaces. */
static void keep_former(const char *path)
{
	struct stat st;
	struct tm tm;
	char when[32];
	if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	localtime_r(&st.st_mtime, &tm);
	strftime(when, sizeof(when), "%Y%m%d.%H%M%S", &tm);
	FREE_CLEANUP char *first = xasprintf("%s.%s", path, when);
	int linked = link(path, first);
	for (int i = 1; linked < 0 && errno == EEXIST && i < SAME_SECOND_MAX; i++) {
		FREE_CLEANUP char *next = xasprintf("%s.%d", first, i);
		linked = link(path, next);
	}
	if (linked == 0)
		unlink(path);
	else
		rename(path, first); /* a file system without links, or no number is left */
}

struct err *report__open_log(const char *asked, FILE **out)
{
	FREE_CLEANUP char *path = asked ? xstrdup(asked) : in_folder("llvupdlog");
	*out = NULL;
	if (!*path)
		return err__new(ERR_USAGE, 0, NULL, NULL, "the log has no name");
	make_folders_of(path);
	keep_former(path);
	int fd = trusted__create(path);
	*out = fd < 0 ? NULL : fdopen(fd, "w");
	return *out ? NULL : err__new(ERR_SYSTEM, errno, path, NULL, "cannot write the log");
}

struct err *report__open_trace(const char *asked, struct trace **out)
{
	FREE_CLEANUP char *path = asked ? xstrdup(asked) : in_folder("trace_llu/trcfileLLU");
	FREE_CLEANUP char *folder = xstrdup(path);
	*out = NULL;
	if (!*path)
		return err__new(ERR_USAGE, 0, NULL, NULL, "the trace has no name");
	char *slash = strrchr(folder, '/');
	if (slash && slash != folder) {
		*slash = 0;
		make_folders_of(folder);
		mkdir(folder, 0700);
	}
	*out = trace__open(path, TRACE_MAX);
	return *out ? NULL : err__new(ERR_SYSTEM, errno, path, NULL, "cannot write the trace");
}
