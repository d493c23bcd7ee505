/* What the files of this room share about a process: the handle's inside, and reading /proc. */
#ifndef LLU_INJECT_PROC_H
#define LLU_INJECT_PROC_H

#include "base/alloc.h"
#include "base/vec.h"
#include "inject/process.h"

struct process {
	pid_t pid;
	int pidfd; /* stays with this process even when its PID is used again */
	int dirfd; /* /proc/PID, likewise */
	uint64_t start_time;
	char *name;
	struct trace *trace;         /* borrowed; may be NULL */
	struct file_memo *files;     /* likewise */
	const struct census *census; /* likewise */
};

typedef VEC(pid_t) pid_list;

/* The fields of /proc/PID/stat and /proc/PID/task/TID/stat that are used (proc(5)). */
struct proc_stat {
	char state;            /* field 3 */
	pid_t ppid;            /* 4 */
	unsigned long flags;   /* 9: PF_* of the kernel's include/linux/sched.h */
	unsigned long threads; /* 20 */
	uint64_t start_time;   /* 22 */
	uint64_t vsize;        /* 23; 0: a kernel thread, or one that has ended (kernel/exit.c, exit_mm) */
	uint64_t stack;        /* 28: startstack; 0 to those who may not trace it */
};

/* Reads a small file under `dirfd` into `buf`, zero-terminated; bytes read, or -errno. */
ssize_t proc_read(int dirfd, const char *path, char *buf, size_t size);
/* Reads a file of any size; the caller frees *text. 0 or -errno. */
int proc_slurp(int dirfd, const char *path, char **text, size_t *len);
/* Reads the text of a maps file, which is cut into pieces: the paths in *out point into it, and only out->items is new.
 * NULL, or the line that makes no sense; then *out is as it was. */
const char *mappings__parse(char *text, struct mappings *out);
/* Adds the PIDs of all processes. 0 or -errno. */
int proc_list(pid_list *out);
/* 0 or -errno. */
int proc_stat(int dirfd, const char *path, struct proc_stat *out);
/* The value after "KEY:" in the text of a status file, or NULL. */
const char *proc_field(const char *status, const char *key);

/* An error about the process, or about its thread `tid` when that is not 0. */
struct err *process__err(const struct process *p, pid_t tid, enum err_kind kind, int errnum, const char *hint,
			 const char *fmt, ...) __attribute__((format(printf, 6, 7), returns_nonnull));

#endif
