/* Reading debug information into the model of types_model.h. */
#ifndef LLU_IMAGE_TYPES_READ_H
#define LLU_IMAGE_TYPES_READ_H

#include <elfutils/libdw.h>

#include "image/types_model.h"

/* Reads `dw`, which describes `e`, into `t`, whose `source` says where it is from. When what it
 * describes is elsewhere and missing, `found` stays false and `source` says so. */
MUST_CHECK struct err *types__read(struct types *t, Dwarf *dw, const struct elf_file *e);

#endif
