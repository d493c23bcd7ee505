/* The VAPI of a split library as a file of its own.
 *
 * After an update the library's file is replaced on disk, but processes go on running the stubs from the old
 * one. So that no executable mapping of a replaced file stays, they get them from this: a small ELF file with the
 * VAPI's R and RX segments at their addresses, the same bytes for all processes that loaded the same file.
 *
 *     +---------------------------+ 0
 *     | ELF header                | no sections; program headers: PT_LOAD R, PT_LOAD RX, PT_GNU_EH_FRAME, which
 *     |                           | leads to the entries of stubs and pads alone
 *     +---------------------------+ page
 *     | R                         | unwinders find the stubs' entries here
 *     +---------------------------+ page
 *     | RX                        | stubs and pads: what is mapped
 *     +---------------------------+ end
 */
#ifndef LLU_IMAGE_VAPI_FILE_H
#define LLU_IMAGE_VAPI_FILE_H

#include "image/elf_file.h"

/* Makes the bytes of the file; the caller frees them. *text_at: the offset of RX in it. NULL when the library is
 * not as llusplit makes it. */
uint8_t *vapi_file__make(const struct elf_file *vapi, size_t *size, uint64_t *text_at);

#endif
