/* Which package of Debian a file belongs to, as dpkg-query(1) -S says, only quicker: the database is read as it lies in
 * /var/lib/dpkg (dpkg(1), deb-control(5)), no program is run.
 *
 *   info/NAME.list, info/NAME:ARCH.list   the paths of a package, one in each line
 *   status                                Package, Architecture, Version, in paragraphs
 *   diversions                            files that a package has moved aside (dpkg-divert(1))
 *
 * Where /lib is a link to /usr/lib the lists may name a file by either path, and both find it. The database may be that
 * of a container, which decides itself what it holds: names and versions are to be made printable, and mean nothing but
 * what is printed. It is read within its root, and no more than 256 MiB of it. */
#ifndef LLU_MACHINE_PACKAGE_H
#define LLU_MACHINE_PACKAGE_H

#include <time.h>

#include "base/error.h"

struct package {
	const char *name;    /* "libssl3" */
	const char *arch;    /* "amd64", "all"; "" when the database does not say */
	const char *version; /* the one that is installed: "3.0.17-1~deb12u2"; "" likewise */
};

/* The packages of one root; reads nothing yet. `root` is a path as procfs__top() gives; NULL: "/". It is copied. */
struct packages;
struct packages *packages__new(const char *root);
void packages__free(struct packages *p);

/* The package that installed the file `path`, which begins with '/', is without links, and is as that root has it. *out
 * is NULL when there is none, or no database of dpkg; else it lives as long as `p`. The first call reads the database,
 * and keeps the paths of it (about 14 MiB where 842 packages are installed); a process that is forked off afterwards
 * does not have them, and must not ask. ERR_UNREADABLE when it cannot be read, then and later. */
MUST_CHECK struct err *packages__owner(struct packages *p, const char *path, const struct package **out);

/* The version that it had at that time, if it was upgraded since (upgrades.h); NULL: not certain. Lives as long as `p`.
 */
const char *packages__version_at(struct packages *p, const struct package *k, time_t since);

#endif
