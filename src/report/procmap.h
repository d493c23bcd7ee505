/* The memory of one process as AIX procmap shows it: for each LLU-capable library one block that tells
 * VAPI, data and Implementation apart, then all other mappings. */
#ifndef LLU_REPORT_PROCMAP_H
#define LLU_REPORT_PROCMAP_H

#include <stdio.h>

#include "remap/discover.h"

/* Prints what `maps` and `libraries` say; both are of the process `p`, read one after the other. */
void report__procmap(FILE *to, const struct process *p, const struct mappings *maps, const loaded_list *libraries);

/* Prints commands for gdb(1): each adds the symbols and unwind tables of an image that runs, from the mapping itself
 * (/proc/PID/map_files, which root can open). gdb knows a library by the path in the link map, where
 * another build stands by now. */
void report__gdb(FILE *to, const struct process *p, const struct mappings *maps, const loaded_list *libraries);

#endif
