/* What rights a process has, and how they compare with those of its user. */
#ifndef LLU_INJECT_RIGHTS_H
#define LLU_INJECT_RIGHTS_H

#include "inject/process.h"

struct rights {
	uid_t uid; /* its user, as seen from the tool's user namespace */
	/* User 0 of its user namespace, as seen from here: 0, or for a process of a namespace below ours whoever is
	 * root there. Has power over every process of that namespace. */
	uid_t root;
	/* What it has that an ordinary process of `uid` has not ("it has capabilities"), or NULL: then any process of
	 * that user could trace it (ptrace(2), access mode checking). */
	const char *more;
	/* User ids that have no name in this user namespace are shown as one (overflowuid), so that one means nobody.
	 */
	bool unnamed_users;
};

/* Looks at all threads. What cannot be read is an error, never taken for less rights. */
MUST_CHECK struct err *process__rights(const struct process *p, struct rights *out);

/* Does whoever decides what is mounted where the process looks have power over it? Not after nsenter(1) into the mount
 * namespace of a container of less privilege. */
MUST_CHECK struct err *process__mounts_are_governed(const struct process *p, bool *out);

#endif
