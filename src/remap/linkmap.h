/* The dynamic loader's list of loaded objects, read from the process (glibc <link.h>, struct link_map;
 * gABI, DT_DEBUG), and symbol look-up in it as the loader would do it. The list is the target's
 * word: it is bounded, and what it names is checked against the mappings. */
#ifndef LLU_REMAP_LINKMAP_H
#define LLU_REMAP_LINKMAP_H

#include "image/elf_file.h"
#include "inject/process.h"

/* The name (l_name) under which the object with this load bias was loaded; NULL when it is not in the list
 * or the list cannot be read. The caller frees it. */
char *linkmap__name(const struct process *p, taddr_t bias);

/* The address that `name` with `version` means for the library at `bias`: looked up in the library and
 * what it needs, which stay loaded as long as it does. An IFUNC is taken from an object that has bound
 * it already. *found is false when nothing defines it. ERR_REFUSED when it cannot be decided: another
 * object defines it too and might interpose, or an object cannot be read. */
MUST_CHECK struct err *linkmap__lookup(const struct process *p, taddr_t bias, const char *name, const char *version,
				       bool *found, taddr_t *out);

#endif
