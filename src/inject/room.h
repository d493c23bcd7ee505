/* May a process be given more memory, and will it be of the kind that is asked for? */
#ifndef LLU_INJECT_ROOM_H
#define LLU_INJECT_ROOM_H

#include "inject/process.h"

/* ERR_RETRY, with the numbers, when the process may not be given `bytes` of memory and `mappings` more:
 *
 * - Bytes are what can still be charged to its memory cgroup and those above it before the kernel looks for somebody to
 *   kill: what is free below the limit, and file pages that were not used lately. A limit that cannot be seen from here
 *   is none (cgroups(7): a cgroup namespace shows nothing above its root; nothing is mounted).
 * - Mappings are bounded by vm.max_map_count. What it maps itself meanwhile is not foreseen.
 *
 * ERR_REFUSED when a thread's mappings all come out executable (personality(2), READ_IMPLIES_EXEC). */
MUST_CHECK struct err *process__has_room(const struct process *p, uint64_t bytes, size_t mappings);

#endif
