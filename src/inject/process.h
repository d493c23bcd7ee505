/* A process, seen from outside: what /proc says, its mappings, its threads, its memory.
 *
 * Nothing here stops a thread or writes to one. A handle stays with the process it was opened for:
 * a reused PID is noticed (pidfd_open(2), start time in /proc/PID/stat) and reported as ERR_GONE.
 * Everything read from a target may be a lie of the target; sizes are bounded here, meaning is not
 * judged.
 */
#ifndef LLU_INJECT_PROCESS_H
#define LLU_INJECT_PROCESS_H

#include <sys/types.h>

#include "base/error.h"
#include "base/types.h"
#include "trace/trace.h"

struct process;

/* One line of /proc/PID/maps (proc(5)). */
struct mapping {
	struct trange range;
	int prot;        /* PROT_* of mmap(2) */
	bool shared;     /* MAP_SHARED */
	uint64_t offset; /* bytes into the file */
	uint32_t dev_major, dev_minor;
	uint64_t inode;   /* 0: no file */
	const char *path; /* as printed, octal escapes undone, " (deleted)" removed; "" if none */
	bool deleted;     /* the kernel printed " (deleted)" */
};

struct mappings {
	struct mapping *items; /* in address order */
	size_t n;
	char *text; /* what the paths point into */
};

enum thread_state {
	THREAD_RUNNING,  /* R, or just not asleep when looked at */
	THREAD_SLEEPING, /* S: asleep in a system call or a fault, interruptible */
	THREAD_BLOCKED,  /* D: asleep and not interruptible */
	THREAD_STOPPED,  /* T, t: group-stop or ptrace-stop */
	THREAD_DEAD,     /* Z, X: gone or going */
};

/* What /proc/PID/task/TID/{stat,syscall} say without stopping the thread. */
struct thread_view {
	pid_t tid;
	enum thread_state state;
	bool traced;  /* THREAD_STOPPED by a tracer, not by job control */
	bool at_rest; /* THREAD_SLEEPING or THREAD_BLOCKED, off its CPU, and the fields below are known */
	int64_t nr;   /* system call it sleeps in, -1 when in none (a page fault) */
	uint64_t arg[6];
	taddr_t sp, pc;
	bool io_worker; /* PF_IO_WORKER: an io_uring worker that never runs user code */
};

/* Is /proc there, and of our own PID namespace? Else a PID is one process to pidfd_open(2) and another one, or none, to
 * /proc. ERR_PERMISSION. */
MUST_CHECK struct err *process__check_proc(void);

/* Opens a process. Errors: ERR_GONE (no such process, or it ended), ERR_PERMISSION, and ERR_REFUSED
 * for what is never operated on: a kernel thread, llvupdate itself, a 32-bit process (by the ELF
 * class of /proc/PID/exe), a program that is linked statically or has another dynamic loader than glibc's. The caller
 * releases it with process__close(). */
MUST_CHECK struct err *process__open(pid_t pid, struct process **out);
void process__close(struct process *p);

pid_t process__pid(const struct process *p);
/* Start time in clock ticks since boot, field 22 of /proc/PID/stat: with the PID it names a process. */
uint64_t process__start_time(const struct process *p);
/* Where the first thread's stack began when the program was started (field 28): at argc. {0} if that is not told. */
taddr_t process__stack_start(const struct process *p);
/* Name as in /proc/PID/comm; lives as long as the handle. */
const char *process__name(const struct process *p);
/* The open directory /proc/PID, for openat(2); owned by the handle. */
int process__dirfd(const struct process *p);
/* ERR_GONE once the process has ended, even if its PID is in use again. */
MUST_CHECK struct err *process__alive(const struct process *p);
/* Where steps of the operation on this process are traced, from now on; NULL (as at first): nowhere. */
void process__trace_to(struct process *p, struct trace *t);
struct trace *process__trace(const struct process *p);
/* trace__step() of this process. */
void process__did(const struct process *p, const char *what, uint64_t since, const struct err *e,
		  struct trace_arg more);
/* Where what is read of its files is kept for the next process (image/file_memo.h), from now on; NULL (as at first):
 * nowhere. */
struct file_memo;
void process__keep_files_in(struct process *p, struct file_memo *m);
struct file_memo *process__files(const struct process *p);
/* What is known of who shares memory with whom (census.h), for process__shares_memory(); NULL (as at first): nothing.
 */
struct census;
void process__know_others(struct process *p, const struct census *c);
/* PID of the tracer (TracerPid of any thread), 0 if none. */
MUST_CHECK struct err *process__tracer(const struct process *p, pid_t *out);

MUST_CHECK struct err *process__maps(const struct process *p, struct mappings *out);
void mappings__free(struct mappings *m);
/* The mapping that holds `a`, or NULL. */
const struct mapping *mappings__at(const struct mappings *m, taddr_t a);

/* Are all of these mappings still there as they were read, files and offsets included? Quick where the kernel can be
 * asked for single mappings (PROCMAP_QUERY, Linux 6.11); else all are read again. */
MUST_CHECK struct err *process__still_mapped(const struct process *p, const struct mapping *const *m, size_t n,
					     bool *out);

/* Is the same file mapped at each of these addresses as it was then, or none, as then? Quick likewise. */
MUST_CHECK struct err *process__same_files(const struct process *p, const struct mappings *then, const taddr_t *at,
					   size_t n, bool *out);

/* Opens the file behind a mapping read-only through /proc/PID/map_files, also when it is deleted or
 * in another mount namespace; without CAP_CHECKPOINT_RESTORE falls back to its path in the
 * process's root and accepts it only when device and inode agree. The caller closes the fd. */
MUST_CHECK struct err *process__open_mapped(const struct process *p, const struct mapping *m, int *fd_out);

/* Threads of the process at this moment; the caller frees the array. */
MUST_CHECK struct err *process__threads(const struct process *p, pid_t **tids_out, size_t *n_out);
/* Looks at one thread. A thread that is gone is THREAD_DEAD, not an error. */
MUST_CHECK struct err *process__look(const struct process *p, pid_t tid, struct thread_view *out);
/* From /proc/PID/task/TID/status; all 0 when the thread is gone. */
struct thread_status {
	pid_t own_tid;    /* its thread id in its own PID namespace, as it knows it itself */
	uint64_t handled; /* bit N - 1: of signal N the kernel does not do the default (fs/proc/array.c,
			     collect_sigign_sigcatch) */
	/* Context switches so far, of both kinds. A thread that was seen at rest twice has not run in between
	 * when the count before the first look is that after the second: to rest again it has to be
	 * switched out again. */
	uint64_t switches;
};
MUST_CHECK struct err *process__status(const struct process *p, pid_t tid, struct thread_status *out);
/* Does the thread sleep until its vfork(2) child has gone its way? (That child runs in this memory.) */
bool thread_view__waits_for_vfork(const struct thread_view *v);

/* ERR_REFUSED, with the PIDs, when another process shares the memory (CLONE_VM without
 * CLONE_THREAD; kcmp(2) KCMP_VM), ERR_RETRY when it is a vfork(2) child that will be gone soon.
 * `children_only` asks the target's own children alone, which is quick. */
MUST_CHECK struct err *process__shares_memory(const struct process *p, bool children_only);

/* Memory, in bulk. Reads all `len` bytes or fails (ERR_UNREADABLE names the address; ERR_GONE).
 * Reads go through process_vm_readv(2), never faulting in pages of a device mapping. */
MUST_CHECK struct err *process__read(const struct process *p, taddr_t from, void *to, size_t len);
/* Writes through /proc/PID/mem, which reaches private read-only pages as well (a private copy is made;
 * kernel mm/memory.c, __access_remote_vm with FOLL_FORCE). Not atomic: the caller sees to it that
 * every prefix of the write is harmless. */
MUST_CHECK struct err *process__write(const struct process *p, taddr_t to, const void *from, size_t len);
/* Words that are to change: each that still is `from` becomes `to`, in this order; the others stay. For a process that
 * stands still, as words are looked at many at once. Errors as above; words may have changed by then. */
struct word_change {
	taddr_t at;
	uint64_t from, to;
};
MUST_CHECK struct err *process__change_words(const struct process *p, const struct word_change *w, size_t n);

#endif
