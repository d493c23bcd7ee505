/* The place in the target where the hand works: is it what it should be, and is it free?
 *
 * A tool that is killed leaves a borrowed thread on its way home over the frame in the scratch memory, or
 * a hand that finishes its batch there. A frame written over that one would send the thread
 * somewhere else. So the first word of the scratch memory says that it is in use, from before the first change
 * until everybody is known to be gone; where it is found set, all threads are looked at until
 * none is on the pads or in the scratch memory any more.
 */
#ifndef LLU_INJECT_PLACE_H
#define LLU_INJECT_PLACE_H

#include "inject/hand.h"
#include "inject/tracee.h"

/* Errors: ERR_USAGE, ERR_REFUSED (no pads there), ERR_RETRY (still in use at `deadline`), those of tracee.h. */
MUST_CHECK struct err *place__claim(const struct process *p, const struct hand_place *place, uint64_t deadline);
/* Waits until nobody is there any more, without claiming it. Errors: as place__claim(). */
MUST_CHECK struct err *place__await(const struct process *p, const struct hand_place *place, uint64_t deadline);
/* Waits until nobody is in `r`, a range that the program knows nothing of, by its PC or its stack pointer, nor is about
 * to make a system call about an address in there. Errors: as place__claim(). */
MUST_CHECK struct err *place__await_range(const struct process *p, struct trange r, uint64_t deadline);
/* Only when the borrowed thread is home and the hand is gone. A process that is gone is no error. */
void place__release(const struct process *p, const struct hand_place *place);

/* Is a thread with these registers on the pads or in the scratch memory? */
bool place__has(const struct hand_place *place, taddr_t pc, taddr_t sp);

#endif
