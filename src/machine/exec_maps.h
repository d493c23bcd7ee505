/* The files that a process has mapped executable, as /proc/PID/maps has them (proc(5)).
 *
 * Where the kernel can be asked for just these (ioctl PROCMAP_QUERY, Linux 6.11, fs/proc/task_mmu.c), it is: of some
 * libraries' worth of mappings one in five is executable, and no text is made of the others. Else the text is read. */
#ifndef LLU_MACHINE_EXEC_MAPS_H
#define LLU_MACHINE_EXEC_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct exec_mapping {
	uint64_t start, end;
	uint32_t major, minor; /* of the file's file system; not always what stat(2) says (outdated.c) */
	uint64_t inode;
	const char *name; /* the path as the kernel made it (d_path), no escapes, " (deleted)" at its end if it says
			     so; ends with a zero byte, lives until the next mapping comes */
	size_t len;       /* of the name */
};

/* The buffers, to be used for one process after the other; all zero is a new one. */
struct exec_maps {
	bool text; /* read the text only; also set when the kernel cannot be asked */
	char *buf;
	size_t size;
};

/* What is done with each mapping; false: enough. */
typedef bool exec_maps_fn(void *arg, const struct exec_mapping *m);

/* Calls `each` for each, in address order. `dir` is the process's folder in /proc, and `pid` for messages. None in a
 * kernel thread or a process that is at its end. ERR_GONE, ERR_PERMISSION, ERR_UNREADABLE; `each` may have been called
 * then. */
MUST_CHECK struct err *exec_maps__each(struct exec_maps *r, pid_t pid, int dir, exec_maps_fn *each, void *arg);
void exec_maps__free(struct exec_maps *r);

#endif
