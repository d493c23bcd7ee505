/* .eh_frame_hdr: the sorted table by which unwinders find the FDE of an address (LSB core,
 * "Exception Frame Header"). The VAPI carries its own, which PT_GNU_EH_FRAME names and which is
 * made anew on every update, so that exceptions and cancellation unwind through new code. */
#ifndef LLU_IMAGE_UNWIND_TABLE_H
#define LLU_IMAGE_UNWIND_TABLE_H

#include "base/types.h"
#include "base/vec.h"

struct unwind_row {
	vaddr_t start; /* first address of a function */
	vaddr_t fde;   /* where its entry lies */
};

typedef VEC(struct unwind_row) unwind_rows;

/* Bytes of a table with `n` rows. */
size_t unwind_table__size(size_t n);
/* Sorts `rows` and writes the table that will lie at `at`; `eh_frame` is where some .eh_frame
 * begins. `out` has unwind_table__size(rows->n) bytes. */
void unwind_table__write(uint8_t *out, vaddr_t at, vaddr_t eh_frame, unwind_rows *rows);

/* Reads a table that unwind_table__write() made back; false when it is damaged. */
bool unwind_table__read(const uint8_t *p, size_t size, vaddr_t at, unwind_rows *out);

#endif
