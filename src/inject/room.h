/* How much memory a process may still get. */
#ifndef LLU_INJECT_ROOM_H
#define LLU_INJECT_ROOM_H

#include "inject/process.h"

/* Bytes that can still be charged to the process's memory cgroup and those above it before the kernel looks for
 * somebody to kill: what is free below the limit, and file pages that were not used lately. UINT64_MAX: no limit, or
 * none that can be seen from here (cgroups(7): a cgroup namespace shows nothing above its root; nothing is mounted). */
uint64_t process__memory_room(const struct process *p);

/* How many mappings it may still have (vm.max_map_count). Those of its own doing meanwhile are not foreseen. */
MUST_CHECK struct err *process__mapping_room(const struct process *p, size_t *out);

#endif
