/* Shared by the files of recovery (recover.c, recover_exchange.c); not for others. */
#ifndef LLU_REMAP_RECOVER_PARTS_H
#define LLU_REMAP_RECOVER_PARTS_H

#include "remap/discover.h"
#include "remap/journal.h"

enum { RECOVER_TIMEOUT_S = 30 }; /* for threads to leave the code, or to be borrowed */

/* A shadow that was to move. */
struct stray {
	vaddr_t at, to; /* VAPI space */
	uint64_t len;
	bool moved;            /* its contents are at `to`, however they came there */
	bool there;            /* its contents are at `at`, so that page is ours; in neither place: partly put back */
	const uint8_t *before; /* of the journal; NULL: not known */
};

/* A library whose exchange did not come to its end. */
struct part {
	struct loaded *l;
	vaddr_t image;
	uint64_t image_len; /* 0: none was newly mapped, or it is not known */
	struct vrange shadows;
	VEC(struct stray) strays; /* in the order of the exchange */
};
typedef VEC(struct part) part_list;

/* recover_exchange.c: which parts there are of an exchange; none is no error. *stopped: it has moved something, and
 * nobody has mended that. `j` may be NULL. The caller releases the list with part_list__free(). */
MUST_CHECK struct err *recover__find_parts(const struct process *p, loaded_list *libraries, const struct journal *j,
					   part_list *out, bool *stopped);
void part_list__free(part_list *l);
/* Finishes it, or takes it back, in a freeze. What is left for recover__clear() is marked in the headers, which this
 * tool owns. */
MUST_CHECK struct err *recover__settle_parts(const struct process *p, part_list *parts, bool *finished);

/* recover_way_out.c: is a thread still on a way out of the code that a dead tool laid for it (freeze/drive.h)? */
MUST_CHECK struct err *recover__has_way_out(const struct process *p, const struct loaded *l, bool *out);
/* Takes that way away, in a freeze. ERR_RETRY: the thread is at its end all the time. */
MUST_CHECK struct err *recover__clear_way_out(const struct process *p, const struct loaded *l);

/* Writes a part of a header, in the process and in the copy. */
MUST_CHECK struct err *recover__write_header(const struct process *p, struct loaded *l, size_t offset, const void *data,
					     size_t len);
MUST_CHECK struct err *recover__write_entry(const struct process *p, struct loaded *l, size_t i,
					    const struct vapi_image *image);

#endif
