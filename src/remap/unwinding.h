/* Unwinding through the new code of an unprepared library.
 *
 * Unwinders ask the dynamic loader which object an address belongs to (_dl_find_object(3), glibc 2.35). An annex
 * belongs to none, so a stack could not be unwound through its functions: an exception would end the program there. So
 * the loader is told. It keeps an array of the objects that are never unloaded, in the order of addresses, which it
 * does not change after the program has started (glibc, elf/dl-find_object.c: _dlfo_nodelete_mappings, its size, its
 * end; each in memory that is read-only after relocation). These three words are led to arrays of ours in the annex:
 *
 *     pointer -> A      a copy, with entries behind its end that no address is in
 *     size + n          now those count
 *     pointer -> B      the same with n annexes in their places instead
 *
 * Between two of these steps lies a moment at which nobody is in the dynamic loader, so that no thread reads one word
 * before a step and the other one behind the next: the second and the third are made in freezes, in which sleepers may
 * be left asleep. Each step leaves the array right, so the tool may be killed in between. Where the words are is
 * found by what they lead to: each entry must name an object of the loader's list. The loader is stripped; but its code
 * tells which words it has, and one function must use all three.
 */
#ifndef LLU_REMAP_UNWINDING_H
#define LLU_REMAP_UNWINDING_H

#include "remap/discover.h"

struct unwinding;

/* Finds out beforehand what unwinding__prepare() wants to know of files, where that is kept (process__keep_files_in(),
 * and for loaders here). */
struct linkmap;
void unwinding__foresee(struct linkmap *map);
/* Writes the arrays for the annexes of `n` libraries, into that of the first, with a hand in the process, and takes the
 * first step. *out is NULL when the loader has been told of all of them before. ERR_REFUSED where its words are not
 * found (a glibc before 2.35, or another one). */
MUST_CHECK struct err *unwinding__prepare(const struct process *p, const struct loaded *const *l, size_t n,
					  struct hand *h, struct unwinding **out);
/* The loader's code, which nobody may be in. */
struct trange unwinding__loader(const struct unwinding *u);
/* The second step, and the third, each in a freeze of its own. ERR_RETRY when the words have changed. */
MUST_CHECK struct err *unwinding__make_room(const struct unwinding *u);
MUST_CHECK struct err *unwinding__tell(const struct unwinding *u);
void unwinding__free(struct unwinding *u);

#endif
