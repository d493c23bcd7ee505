/* The annex: the VAPI of a library that was loaded plain (image/unprepared.h), in a place of its own.
 *
 * What llusplit would have appended to the library lies somewhere within reach of its code's 32-bit distances, and is
 * mapped when a process is updated for the first time:
 *
 *     reservation       the whole of it; by a borrowed thread (inject/borrow.h), as is what the hand needs: scratch,
 * pads R, RX             from a file in the store (image/vapi_file.h), the same for all processes; by the hand table,
 * header     anonymous window            stays reservation
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
/* Is the annex, whose header and live image have been read, of the library that is there now? */
bool annex__is_current(const struct mappings *maps, const struct loaded *l);
/* Does one begin at `a`, by the name of the file? */
bool annex__at(const struct mappings *maps, taddr_t a);
/* Is there, by what an annex says of itself, one of a library at `bias`? It is to be found then. */
bool annex__any(const struct process *p, const struct mappings *maps, taddr_t bias);

/* Chooses the place of a new one: sets l->shift. ERR_REFUSED: no room within reach. */
MUST_CHECK struct err *annex__choose(const struct process *p, struct loaded *l);
/* Makes it there. On an error nothing stays, if it can be taken back, and l->shift is 0. Errors: as hand__raise(). */
MUST_CHECK struct err *annex__make(const struct process *p, struct loaded *l, int timeout_ms);
/* Makes free address space of it again: l->shift is 0. Nobody may be in there, no hand either, and nothing may refer to
 * it. */
MUST_CHECK struct err *annex__remove(const struct process *p, struct loaded *l, int timeout_ms);

/* Takes away what a tool that died has left at `r`, where it was about to make one, and that is not known as an annex.
 * Nothing happens where anything else is mapped. */
MUST_CHECK struct err *annex__clear(const struct process *p, struct trange r, int timeout_ms);

/* All of it. */
struct trange annex__range(const struct loaded *l);

#endif
