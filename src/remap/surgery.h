/* The surgery on one library of one process: prepare, commit, or undo.
 *
 * Every step is harmless when it is the last (law 1): until the commit nothing in the process refers to what
 * was mapped, and each step of the commit leaves every slot, every word of read-only data and the
 * unwind table valid for both images, which both stay mapped.
 *
 *     prepare    (the process runs) image and its GOT into the window; shadow pages beside it: the
 *                pages of the table, of read-only data that changes, of the unwind table and of the
 *                header, with the contents they are to have
 *     commit     (frozen) each shadow page moves to its place: exchange.h, for several libraries at once
 *     undo       (the process runs) the window becomes reservation again
 */
#ifndef LLU_REMAP_SURGERY_H
#define LLU_REMAP_SURGERY_H

#include "freeze/freeze.h"
#include "inject/hand.h"
#include "remap/discover.h"
#include "remap/journal.h"

struct surgery;

/* Checks what can be checked without touching the process, as room in the window. `plan` must be free of refusals;
 * `imports` is what imports__resolve() found for it. All arguments are borrowed. ERR_REFUSED with
 * the reason. */
MUST_CHECK struct err *surgery__new(const struct process *p, const struct loaded *l, const struct plan *plan,
				    const taddr_t *imports, struct surgery **out);
void surgery__free(struct surgery *s);

typedef VEC(struct trange) trange_list;
/* Appends the executable ranges that no thread may be in at commit: the code that is live now, of an unprepared
 * library what changes of it. */
void surgery__live_ranges(const struct surgery *s, trange_list *out);
/* Appends where the constants of the live code are. */
void surgery__live_tables(const struct surgery *s, trange_list *out);
/* Adds the bytes that become jumps in the loaded library, of each entry, in address order. */
void surgery__entries(const struct surgery *s, trange_list *out);

typedef VEC(struct freeze_function) function_list;
typedef VEC(struct freeze_return) return_list;
/* Appends the functions of the live code, and where the new code has the same; their names belong to the plan's files.
 */
void surgery__functions(const struct surgery *s, function_list *out);
/* Appends the places in the others where the new code has the same left to do. */
void surgery__returns(const struct surgery *s, return_list *out);

/* Writes into the header who is at work; before a hand is raised. The header was looked at just before. */
MUST_CHECK struct err *surgery__claim(struct surgery *s);
/* Does the header say what this tool wrote, and nothing else? ERR_RETRY: another tool, which shares no lock with this
 * one (lock.h), was there. To be asked before anything is mapped, and in the freeze right before the exchange. */
MUST_CHECK struct err *surgery__still_ours(const struct surgery *s);
MUST_CHECK struct err *surgery__prepare(struct surgery *s, struct hand *h);
/* Takes back what claim and prepare did, if anything. */
MUST_CHECK struct err *surgery__undo(struct surgery *s, struct hand *h);
/* Does surgery__undo() need a hand? Else it may be NULL. */
bool surgery__has_mapped(const struct surgery *s);
/* Appends the library to a journal; with what is exchanged if `moves`. */
void surgery__record(const struct surgery *s, bool moves, struct journal *j);
/* After a commit that stopped half-way and was finished by plain writes: what is left of the shadow pages becomes
 * reservation again. */
MUST_CHECK struct err *surgery__clear_shadows(struct surgery *s, struct hand *h);
/* Reads back what must be true after the commit. ERR_SURGERY if it is not. */
MUST_CHECK struct err *surgery__verify(const struct surgery *s);

/* For the report: where things are, in VAPI space. */
struct surgery_places {
	vaddr_t image;
	uint64_t image_len;
	size_t pages_replaced; /* table, read-only data, unwind table, header */
	bool shared;           /* the image is mapped from the store, not private to the process */
};
void surgery__places(const struct surgery *s, struct surgery_places *out);

#endif
