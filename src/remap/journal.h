/* The journal of an operation on one process (law 2, docs/design.md): PID.journal in the folder of lock.h, written
 * before the process is touched, replaced as a whole at each step, removed when the operation on that process is over.
 *
 *     llu-journal 1
 *     tool PID START PIDNS
 *     target PID START NAME
 *     step prepare
 *     library BIAS HEADER GENERATION IMAGE IMAGE-LEN SHADOWS SHADOWS-LEN PATH
 *     move AT TO LEN HASH                                  from "exchange" on: pages of that library; of their
 *                                                          new contents
 *     pages BYTES                                          with the step "exchange":
 *     (what is at each TO before, one after the other)
 *
 * Addresses are in VAPI space, but for BIAS and HEADER. What recovery does it decides by the process; of the journal it
 * needs what the process no longer has: the contents before the exchange, and which contents were meant.
 */
#ifndef LLU_REMAP_JOURNAL_H
#define LLU_REMAP_JOURNAL_H

#include <sys/types.h>

#include "base/error.h"
#include "base/types.h"
#include "base/vec.h"

enum journal_step {
	JOURNAL_PREPARE,  /* images and shadow pages are being mapped */
	JOURNAL_EXCHANGE, /* shadow pages are about to move, or have */
	JOURNAL_UNDO,     /* what was mapped is being unmapped; nothing has moved, or all was put back */
	JOURNAL_SETTLE,   /* the new code is live; what remains is tidying up */
};

/* Pages that are to take the place of others. */
struct journal_move {
	vaddr_t at, to;
	uint64_t len;
	uint64_t hash;   /* of the contents at `at` (hash.h) */
	uint8_t *before; /* len bytes, what was at `to`, or NULL */
};

struct journal_library {
	char *path;
	taddr_t bias, header;
	uint64_t generation; /* before */
	vaddr_t image;       /* what is newly mapped there, if image_len is not 0 */
	uint64_t image_len;
	vaddr_t shadows;
	uint64_t shadows_len;
	VEC(struct journal_move) moves; /* in the order of the exchange */
};

/* Room that is made beside an unprepared library (annex.h). */
struct journal_annex {
	struct trange range;
	taddr_t bias; /* of the library */
};

typedef VEC(struct journal_annex) annex_list;

struct journal {
	pid_t tool;
	uint64_t tool_start, tool_pidns;
	pid_t target;
	uint64_t target_start;
	char *name; /* of the target */
	enum journal_step step;
	VEC(struct journal_library) libraries; /* in the order of the exchange */
	annex_list annexes;
};

/* An empty one, by this tool. The caller releases it with journal__free(). */
struct journal *journal__new(pid_t target, uint64_t start, const char *name);
void journal__free(struct journal *j);

/* Replaces what there is. ERR_SYSTEM: it cannot be written (disk full). ERR_REFUSED: it would be too large. */
MUST_CHECK struct err *journal__write(const struct journal *j);
/* ERR_UNREADABLE when it is none. `name` is a file in the folder. */
MUST_CHECK struct err *journal__read(const char *name, struct journal **out);
/* NULL where there is none for this process that can be read and is about it. */
struct journal *journal__of(pid_t target, uint64_t start);
void journal__remove(pid_t target);

/* Files in the folder that are, or were to become, journals; the caller frees the names and releases the list. */
struct journal_file {
	char *name;
	pid_t target;
	bool temporary; /* a tool died while it wrote this one */
};
typedef VEC(struct journal_file) journal_list;
MUST_CHECK struct err *journal__list(journal_list *out);
void journal_list__free(journal_list *l);
/* Removes a file of that list. */
void journal__remove_file(const char *name);

#endif
