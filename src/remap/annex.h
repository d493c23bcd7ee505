/* The annex: the VAPI of a library that was loaded plain (image/unprepared.h), in a place of its own.
 *
 * What llusplit would have appended to the library lies somewhere within reach of its code's 32-bit distances, and is
 * mapped when a process is updated for the first time:
 *
 *     reservation      the whole of it; by a borrowed thread (inject/borrow.h), as is what the hand needs (scratch)
 *     pads             R and RX, from a file in the store (image/vapi_file.h), the same for all processes; by the hand
 *     table, header    anonymous memory
 *     window           stays reservation
 *
 * A try that comes to nothing before the dynamic loader is told of it (unwinding.h) gives it back; after that it stays
 * for the next one. It is found again by its file's name, and believed when its bytes are those that the library's file
 * gives and its header names the library. Until the header is written nothing in the process refers to any of it.
 */
#ifndef LLU_REMAP_ANNEX_H
#define LLU_REMAP_ANNEX_H

#include "remap/discover.h"

/* Finds an annex of the library at l->bias, with l->vapi made, among the mappings from *at on, where it goes on the
 * next time: sets l->shift, or leaves it 0 when there is none. One of a library that was at that place before and was
 * unloaded looks the same (annex__is_current()). */
MUST_CHECK struct err *annex__find(const struct process *p, const struct mappings *maps, size_t *at, struct loaded *l);
/* Is the annex, whose header and live image have been read, of the library that is there now? Errors: those of reading
 * the process. */
MUST_CHECK struct err *annex__is_current(const struct process *p, const struct mappings *maps, const struct loaded *l,
					 bool *out);
/* Does one begin at `a`, by the name of the file? */
bool annex__at(const struct mappings *maps, taddr_t a);
/* The load biases of libraries for which there are annexes, by what these say of themselves: they are to be found then.
 * ERR_REFUSED: more than there could be. The caller frees *out, after an error as well. */
MUST_CHECK struct err *annex__libraries(const struct process *p, const struct mappings *maps, taddr_t **out, size_t *n);

/* Chooses the place of a new one: sets l->shift. ERR_REFUSED: no room within reach. */
MUST_CHECK struct err *annex__choose(const struct process *p, struct loaded *l);
/* Makes it there: l->fresh is set, on an error too, as there may be a part of it. Errors: as hand__raise(). */
MUST_CHECK struct err *annex__make(const struct process *p, struct loaded *l, int timeout_ms);
/* Makes free address space of it again, of what there is: l->shift is 0. Nothing may refer to it. On an error it stays:
 * ERR_RETRY, when a thread is in there yet, and as hand__raise(). */
MUST_CHECK struct err *annex__remove(const struct process *p, struct loaded *l, int timeout_ms);

/* Takes away what a tool that died has left at `r`, where it was about to make one for the library at `bias`. Nothing
 * happens where anything else is mapped, that library is not loaded, or it says for which library it is: then it is
 * complete, and the dynamic loader may know of it. Errors: as annex__remove(). */
MUST_CHECK struct err *annex__clear(const struct process *p, struct trange r, taddr_t bias, int timeout_ms);

/* All of it. */
struct trange annex__range(const struct loaded *l);

#endif
