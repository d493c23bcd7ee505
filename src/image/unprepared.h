/* Processes that loaded a plain library: only what changed moves.
 *
 * Such a library has no stubs, so its functions are known by their own entries, and those stay. The new build is
 * relinked as for a split library. But of its functions only those run that are not the same as the loaded build's: the
 * entry of each of these, in the loaded library, becomes a jump; from there on it is the new code, which calls
 * what did not change at its old place. A function is the same when its bytes are, and when each reference leads to
 * the same function, the same data or equal constants.
 *
 * Of -fipa-ra and its like, by which a caller relies on what a local function leaves alone: a caller that stays is,
 * byte by byte, a caller in the new build too, where it was compiled with the new function in sight. One that changed
 * is not on any stack when the jumps are written.
 *
 * Old code of a function that moved may still be run by somebody who no thread is at the moment: a coroutine that is
 * parked in it. It does what it did, unless it comes to one of the jumps: calls a function that moved (-fipa-ra again),
 * or goes back to its own start in a loop. A plan where that can happen is *entangled*, and more must be shown before.
 *
 * All else (spare entry points, header, window) is as in a split library, whose appended part stands beside the
 * library instead of behind it. So the VAPI is made of the plain file in memory, and addresses of its
 * appended part are those that it would have there.
 */
#ifndef LLU_IMAGE_UNPREPARED_H
#define LLU_IMAGE_UNPREPARED_H

#include "image/planner.h"

/* The VAPI of a plain library, which it takes over unless there is an error. The caller frees it. ERR_REFUSED when it
 * cannot be made (split.h). */
MUST_CHECK struct err *unprepared__vapi(struct elf_file *plain, struct elf_file **out);

/* The page that is mapped from the image's file as long as these jumps are there, even if there are none: by it a
 * library that was loaded anew at the same place is told from the one that was updated. */
vaddr_t unprepared__beacon(const struct elf_file *vapi, const struct entry_jump *jumps, size_t n);

/* For a plan with references rebound: which functions move; references to the others are bound to their old places.
 * Refuses what cannot be done. */
void unprepared__settle(struct planner *x);

#endif
