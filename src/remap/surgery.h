/* The surgery on one library of one process: prepare, commit, or undo.
 *
 * Every step is harmless when it is the last (law 1): until the commit nothing in the process refers to what
 * was mapped, and each step of the commit leaves every slot, every word of read-only data and the
 * unwind table valid for both images, which both stay mapped.
 *
 *     prepare    (the process runs) image and its GOT into the window; shadow pages beside it: the
 *                pages of the table, of read-only data that changes, of the unwind table and of the
 *                header, with the contents they are to have
 *     commit     (frozen) one batch of the hand: each shadow page moves to its place (mremap(2)),
 *                unwind table first, header last; what the shadows took becomes reservation again
 *     undo       (the process runs) the window becomes reservation again
 */
#ifndef LLU_REMAP_SURGERY_H
#define LLU_REMAP_SURGERY_H

#include "inject/hand.h"
#include "remap/discover.h"

struct surgery;

/* Checks what can be checked without touching the process: room in the window, new imports. `plan` must
 * be free of refusals; all arguments are borrowed. ERR_REFUSED with the reason. */
MUST_CHECK struct err *surgery__new(const struct process *p, const struct loaded *l, const struct plan *plan,
				    struct surgery **out);
void surgery__free(struct surgery *s);

struct hand_place surgery__hand_place(const struct surgery *s);

/* Executable ranges that no thread may be in at commit: the code that is live now. */
size_t surgery__live_ranges(const struct surgery *s, struct trange *out, size_t max);

MUST_CHECK struct err *surgery__prepare(struct surgery *s, struct hand *h);
/* Loads the batch that surgery__commit() runs, so that nothing but running it is left for the freeze. */
MUST_CHECK struct err *surgery__load(struct surgery *s, struct hand *h);
/* *committed says whether the new code is live; with an error too (then the rest of the batch failed
 * and was finished or put right by plain writes). Uses the hand up. */
MUST_CHECK struct err *surgery__commit(struct surgery *s, struct hand *h, bool *committed);
/* Takes back what surgery__prepare() did. */
MUST_CHECK struct err *surgery__undo(struct surgery *s, struct hand *h);
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
