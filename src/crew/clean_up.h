/* Recovery for a program that is not ours: it traces processes, so a process of ours does it (guest.h). */
#ifndef LLU_CREW_CLEAN_UP_H
#define LLU_CREW_CLEAN_UP_H

#include "remap/recover.h"

/* As recover__all(), in a process of its own, which is waited for. ERR_SYSTEM also when none could be made, or it ended
 * before it was done: then recovery may be run again. */
MUST_CHECK struct err *clean_up__all(recovery_list *out);

#endif
