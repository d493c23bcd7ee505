/* Recovery: finishes or undoes what an operation left whose tool died (cllvupdate -u).
 *
 * It goes by what each process itself says: an entry of a VAPI's header that is being prepared, an owner who is dead, a
 * place of a hand in use, the list of the batch that stopped. So it does not matter where the tool died, nor whether
 * the journal is still there; with it, an exchange that stopped before anything new could be reached is taken back,
 * without it (or behind the first table) it is finished. Every step can be the last one, and be done again: recovery
 * may be killed too.
 */
#ifndef LLU_REMAP_RECOVER_H
#define LLU_REMAP_RECOVER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/vec.h"
#include "inject/process.h"

/* One thing that was found. */
struct recovery {
	pid_t pid;     /* 0: about no process */
	char *name;    /* of the process, or NULL */
	char *library; /* its path, or NULL */
	char *text;    /* what was done, or why nothing could be */
	char *hint;    /* for what could not be done; may be NULL */
	bool failed;
	enum err_kind kind; /* if it failed */
};
typedef VEC(struct recovery) recovery_list;

/* For llvupdate, before it writes a journal of its own: ERR_REFUSED when the one that is there is needed, as an
 * exchange stopped half-way. All else that a dead tool left, an update takes away by itself. */
MUST_CHECK struct err *recover__check(const struct process *p);

/* Looks at all processes that may be operated on, and at all journals. ERR_BUSY while an operation is under way;
 * other errors when it cannot be begun. What becomes of each process is in the list, which the caller releases. */
MUST_CHECK struct err *recover__all(recovery_list *out);
void recovery_list__free(recovery_list *l);

#endif
