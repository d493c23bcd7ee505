/* Where the paths of a process begin.
 *
 * The kernel's path of a mapped file begins at the top of the process's mounts (machine/procfs.h). The name by which
 * the dynamic loader found it begins at the root directory that the process had then: for a daemon that has changed its
 * root since (chroot(2)) that is not the one it has now, in which another file may have the same path, or none. */
#ifndef LLU_REMAP_TREE_H
#define LLU_REMAP_TREE_H

#include "inject/process.h"

struct tree {
	char *root; /* the root directory, as the kernel's paths have it; "/": it is the top */
	char *top;  /* as the tool can open it, from the process's folder in /proc */
};

/* The caller releases it with tree__free(), whatever is returned. ERR_GONE, ERR_PERMISSION, ERR_UNREADABLE. */
MUST_CHECK struct err *tree__read(const struct process *p, struct tree *out);
void tree__free(struct tree *t);
void tree__cleanup(struct tree *t);
#define TREE_CLEANUP __attribute__((cleanup(tree__cleanup)))

/* ERR_RETRY: the process has another root directory now, and what was found by `t` may be another file. */
MUST_CHECK struct err *tree__still(const struct process *p, const struct tree *t);

/* Where these paths of a mapped file begin, as openat(2) takes it with the process's folder in /proc; they live as long
 * as `t`. `name` is the loader's, absolute: NULL when it is not known where that begins. */
const char *tree__of_mapped(const struct tree *t);
const char *tree__of_name(const struct process *p, const struct tree *t, const char *name, const char *mapped);

/* The loader's name if it is known where that begins, else the mapped path; *from is where it begins. */
const char *tree__best(const struct process *p, const struct tree *t, const char *name, const char *mapped,
		       const char **from);

/* Opens what stands at that path now (trust.h says how). */
MUST_CHECK struct err *tree__open(const struct process *p, const char *name, const char *mapped, int *fd,
				  struct err **untrusted);

/* A path that begins there, as the tool can open it. The caller frees it. */
char *tree__seen(const struct process *p, const char *from, const char *path);
/* The path in what tree__seen() has made: where it begins left out. */
const char *tree__path(const char *seen);

#endif
