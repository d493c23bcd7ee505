/* The notes of an ELF file: its build-id, and where the VAPI of a split library is. Part of reading it (elf_file.c);
 * not for others. */
#ifndef LLU_IMAGE_ELF_NOTES_H
#define LLU_IMAGE_ELF_NOTES_H

#include "image/elf_file.h"

/* Fills build_id, split, vapi and slots. Program headers and sections have been read and checked. Errors:
 * ERR_UNREADABLE (a damaged note), ERR_REFUSED (made by another version). */
MUST_CHECK struct err *elf_notes__read(struct elf_file *e);

#endif
