/* The VAPIs of plain libraries that this program has made already: making one takes as long as reading all of the
 * library's code, and many processes have the same library. */
#ifndef LLU_REMAP_VAPI_MEMO_H
#define LLU_REMAP_VAPI_MEMO_H

#include "image/elf_file.h"

/* As unprepared__vapi(): made, or once more what was made of the very same bytes (by their SHA-256). Errors: as
 * there. */
MUST_CHECK struct err *vapi_memo__vapi(struct elf_file *plain, struct elf_file **out);

#endif
