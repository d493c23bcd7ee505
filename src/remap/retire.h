/* Retire: old code goes.
 *
 * After an update no thread is in the code that ran before, but all of it is still mapped. Nothing leads into it
 * but return addresses and labels: functions have one address for the life of the process, their stub. So when
 * nobody can be found who holds an address there, nobody will ever come there, since to make such an
 * address one has to run that code. Then its pages become reservation again, and part of the next window.
 *
 *     who may lead there                         who looks
 *     threads: PC and stacks                     a freeze (freeze/freeze.h)
 *     memory: coroutines, contexts, tables       freeze/holders.h, while the process runs
 *     the kernel: signal handlers, restorers     the hand asks rt_sigaction(2)
 *     the code that runs now                     the record of its references (image/image_file.h)
 *
 * Two looks at memory that change meanwhile could miss what is moved between them only by a thread that runs the old
 * code or copies its stack. That nobody runs it is seen: its pages are taken out of the page table before
 * (MADV_DONTNEED; they are the file's, and come back by themselves), and whoever runs or reads
 * them brings them back. That stacks are copied is known of some runtimes, by name.
 *
 * What is found keeps the old code mapped, and is named. Constants stay, and are not executable; those of older images
 * go when their room is needed and it is shown that nothing leads to them (retire_constants.c).
 */
#ifndef LLU_REMAP_RETIRE_H
#define LLU_REMAP_RETIRE_H

#include "base/turn.h"
#include "base/vec.h"
#include "remap/discover.h"

struct retire_options {
	unsigned timeout_s;        /* for a thread to be borrowed, and for all memory to be looked through */
	bool strict;               /* stop sleeping threads too */
	const struct turns *turns; /* as in update_options (update.h) */
};

/* What became of the old code of one library. */
struct retired {
	taddr_t bias;       /* of the library */
	char *held_by;      /* why some of it stays; NULL: all of it is gone */
	uint64_t frozen_ns; /* how long threads stood still for it; the same for all libraries of a process */
};

typedef VEC(struct retired) retired_list;

/* Retires what can be, in all split libraries of the process that have old code. The caller holds the lock of the
 * process, and no hand is raised. The list gets one entry for each library that had any, and is released with
 * retired_list__free(). That code stays is no error; errors are those of looking: ERR_GONE and the like. The process
 * is right and whole in any case. */
MUST_CHECK struct err *retire__process(const struct process *p, const struct retire_options *opt, retired_list *out);
void retired_list__free(retired_list *l);

/* Finishes what a tool that was killed had begun to retire: what the header says is gone becomes reservation. *did:
 * was there anything? Errors: those of the hand. */
MUST_CHECK struct err *retire__finish(const struct process *p, const struct loaded *l, struct hand *h, bool *did);

#endif
