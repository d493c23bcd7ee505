/* See tree.h. */
#include "remap/tree.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "machine/procfs.h"
#include "remap/trust.h"

static const char its_root[] = "root";

static struct err *read_root(const struct process *p, char **out)
{
	char root[PATH_MAX];
	ssize_t n = readlinkat(process__dirfd(p), its_root, root, sizeof(root) - 1);
	if (n < 0)
		return procfs__err(process__pid(p), errno, "its root");
	*out = xmemdup(root, (size_t)n + 1);
	(*out)[n] = '\0';
	return NULL;
}

struct err *tree__read(const struct process *p, struct tree *out)
{
	*out = (struct tree){0};
	TRY(read_root(p, &out->root));
	if (strcmp(out->root, "/") != 0)
		return procfs__top_at(process__pid(p), process__dirfd(p), &out->top);
	out->top = xstrdup(its_root);
	return NULL;
}

void tree__free(struct tree *t)
{
	free(t->root);
	free(t->top);
	*t = (struct tree){0};
}

void tree__cleanup(struct tree *t)
{
	tree__free(t);
}

struct err *tree__still(const struct process *p, const struct tree *t)
{
	FREE_CLEANUP char *now = NULL;
	TRY(read_root(p, &now));
	FREE_CLEANUP char *subject = xasprintf("pid %d", process__pid(p));
	return strcmp(now, t->root) == 0 ? NULL
					 : err__new(ERR_RETRY, 0, subject, "run llvupdate again",
						    "the process changed its root directory meanwhile");
}

/* ---- where a path begins ---- */

static bool is_below(const char *path, const char *folder)
{
	size_t n = strlen(folder);
	return strncmp(path, folder, n) == 0 && path[n] == '/';
}

/* Is it the folder `of` that a file's path leads to? Both begin at the top. */
static bool same_folder(const struct process *p, const struct tree *t, const char *name, const char *of)
{
	struct stat st[2];
	const char *const paths[] = {name, of};
	for (size_t i = 0; i < 2; i++) {
		const char *slash = strrchr(paths[i], '/');
		FREE_CLEANUP char *path = xasprintf("%s/%.*s", t->top, (int)(slash - paths[i]), paths[i]);
		if (fstatat(process__dirfd(p), path, &st[i], 0) < 0)
			return false;
	}
	return st[0].st_dev == st[1].st_dev && st[0].st_ino == st[1].st_ino;
}

const char *tree__of_mapped(const struct tree *t)
{
	return t->top;
}

/* With a root directory of its own, the process had it already when it loaded what lies below it, unless the loader's
 * name begins with it too: then it may have got it since. What lies elsewhere was loaded before; but which root the
 * process had then is certain only where the name leads to the folder that the file is in. */
const char *tree__of_name(const struct process *p, const struct tree *t, const char *name, const char *mapped)
{
	if (strcmp(t->root, "/") == 0)
		return its_root;
	if (mapped[0] != '/')
		return NULL;
	if (is_below(mapped, t->root))
		return is_below(name, t->root) ? NULL : its_root;
	return same_folder(p, t, name, mapped) ? t->top : NULL;
}

const char *tree__best(const struct process *p, const struct tree *t, const char *name, const char *mapped,
		       const char **from)
{
	*from = name[0] == '/' ? tree__of_name(p, t, name, mapped) : NULL;
	if (*from)
		return name;
	*from = tree__of_mapped(t);
	return mapped;
}

struct err *tree__open(const struct process *p, const char *name, const char *mapped, int *fd, struct err **untrusted)
{
	TREE_CLEANUP struct tree t;
	const char *from;
	*untrusted = NULL;
	*fd = -1;
	TRY(tree__read(p, &t));
	const char *path = tree__best(p, &t, name, mapped, &from);
	return trust__open(p, from, path, fd, untrusted);
}

/* ---- as the tool sees it ---- */

char *tree__seen(const struct process *p, const char *from, const char *path)
{
	return strcmp(from, "/") == 0 ? xstrdup(path) : xasprintf("/proc/%d/%s%s", process__pid(p), from, path);
}

const char *tree__path(const char *seen)
{
	static const char proc[] = "/proc/", root[] = "/root", up[] = "/..";
	const char *s = seen + strlen(proc);
	if (strncmp(seen, proc, strlen(proc)) != 0 || !isdigit((unsigned char)*s))
		return seen;
	while (isdigit((unsigned char)*s))
		s++;
	if (strncmp(s, root, strlen(root)) != 0)
		return seen;
	s += strlen(root);
	while (is_below(s, up))
		s += strlen(up);
	return s;
}
