/* Unwinding through the new code of an unprepared library.
 *
 * Unwinders ask the dynamic loader which object an address belongs to (_dl_find_object(3)). An annex belongs to none, so
 * a stack cannot be unwound through its functions: an exception ends the program there, and the destructors of
 * frames further out are passed over when a thread is cancelled or ends by pthread_exit(3). Both matter only where frames
 * have something to do when they are unwound, which their object's .gcc_except_table says (Itanium C++ ABI:
 * Exception Handling, 1.5). The C library has one too; what it does there is to free memory and to reset a
 * pthread_once_t.
 */
#ifndef LLU_REMAP_UNWINDING_H
#define LLU_REMAP_UNWINDING_H

#include "remap/linkmap.h"

/* ERR_REFUSED when an object of the process has such a table, or it cannot be told. */
MUST_CHECK struct err *unwinding__check(const struct process *p, const struct linkmap *map);

#endif
