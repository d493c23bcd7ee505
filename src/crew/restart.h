/* Why a process needs a restart: code of it is outdated (machine/outdated.h), and no update brings it up to date. */
#ifndef LLU_CREW_RESTART_H
#define LLU_CREW_RESTART_H

#include "machine/outdated.h"
#include "report/record.h"

/* Fills what `t`, which was looked at, says of a restart. What an update has brought up to date or would, or what the
 * user may not update but somebody else may, is no reason; nor is
 *
 *   a library that was removed from a folder for temporary files   programs do so with what they unpack
 *   a removed file without a library's name                        or with code that they make
 *
 * A process that may not be looked at stays unknown. `split_only`: as plan_options has it. */
void restart__find(struct scan *s, struct report_target *t, bool split_only);

#endif
