/* Which code of a process is not what stands on the disk any more: files that it has mapped executable, and that have
 * been replaced or removed since.
 *
 * The sources are /proc/PID/maps and stat(2) of each path in the process's own tree of mounts; no process is touched,
 * and no thread of one waits. A file is known by device and inode, so one that was overwritten in place counts as the
 * same (as a program that runs cannot be, and libraries must not be). So does one that was replaced by the same build
 * (build.h), where the tool may open what is mapped. Whether another build would fit is not judged here.
 *
 * Looking up a path waits for whoever provides it (FUSE, NFS): who scans processes of others has a watchdog
 * (base/watchdog.h). */
#ifndef LLU_MACHINE_OUTDATED_H
#define LLU_MACHINE_OUTDATED_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/vec.h"

enum outdated_kind {
	OUTDATED_PROGRAM, /* what the process was started from, /proc/PID/exe */
	OUTDATED_LIBRARY, /* its name ends with ".so", or has ".so." in it: libraries, modules, the dynamic loader */
	OUTDATED_OTHER,   /* other files with code: archives of a JIT, modules with names of their own */
};

enum outdated_how {
	OUTDATED_REPLACED, /* another file stands at its path now */
	OUTDATED_DELETED,  /* nothing does */
};

struct outdated_file {
	char *path; /* as the process's tree of mounts has it (procfs__top), no escapes, no " (deleted)": to be made
		       printable */
	enum outdated_kind kind;
	enum outdated_how how;
};

/* What one process has; all zero is nothing. Each file once, in the order of addresses. */
struct outdated {
	VEC(struct outdated_file) files;
	/* llvupdate has been here: code of its images is mapped (files of a store, "FOLDER/llu/NAME-HASH", or memory
	 * named "llu-..."), so that the process can be outdated without such a file. Images are never in the list. */
	bool updated;
};

void outdated__free(struct outdated *o);

/* One look at the machine: what was found out about a file for one process holds for all that live in the same tree of
 * mounts. So it sees changes that are made meanwhile, or does not, and is made anew for each look. */
struct scan;

enum scan_how {
	SCAN_BEST, /* as is fastest on this kernel */
	SCAN_TEXT, /* by the text of /proc/PID/maps, as on kernels before 6.11 */
};

/* To be released with scan__free(). */
struct scan *scan__new(enum scan_how how);
void scan__free(struct scan *s);

/* What is outdated in a process. A kernel thread, or a zombie, has nothing. ERR_GONE, also when it ended meanwhile;
 * ERR_PERMISSION (it takes what ptrace(2) takes, PTRACE_MODE_READ_FSCREDS); ERR_UNREADABLE; *out is empty then. The
 * caller releases it with outdated__free().
 *
 * Without CAP_CHECKPOINT_RESTORE (or CAP_SYS_ADMIN) mapped files cannot be looked at, only numbers of theirs in maps,
 * whose device is not stat(2)'s on btrfs and overlayfs; then files of the same path and inode are taken for the same.
 * What cannot be looked up for another reason than that it is not there is not listed, unless the kernel says that it
 * was deleted. */
MUST_CHECK struct err *scan__process(struct scan *s, pid_t pid, struct outdated *out);

#endif
