/* Parts of glibc that a process loaded plain, which are made for each other and for the dynamic loader.
 *
 * The dynamic loader runs as long as the process, and is not updated; a part whose plan is refused stays as well. So
 * what new code of the others uses of them, and what they use of it, must be as in their own builds (image/contract.h),
 * and what runs must be of one build, as what stands on disk. Which builds belong together says the line that libc.so.6
 * and the dynamic loader print when they are run as programs (glibc, csu/version.c, elf/rtld.c): "... (Debian GLIBC
 * 2.36-9+deb12u7) stable release version 2.36."
 */
#ifndef LLU_REMAP_GLIBC_H
#define LLU_REMAP_GLIBC_H

#include "remap/discover.h"
#include "remap/linkmap.h"

struct target;

/* Is this the SONAME of a part of glibc? Of the dynamic loader? */
bool glibc__is_part(const char *soname);
bool glibc__is_loader(const char *soname);
/* Is it a library whose code is on every thread's stack: libc, split? */
bool glibc__is_everywhere(const struct loaded *l);

/* Refuses, in the results, what must not be updated; `map` is NULL where the loader's list cannot be read, and `no_map`
 * says why. Once all plans are made, and before groups are. */
void glibc__judge(struct target *t, struct linkmap *map, const struct err *no_map);

#endif
