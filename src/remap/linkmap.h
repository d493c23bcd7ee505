/* The dynamic loader's list of loaded objects, read from the process (glibc <link.h>, struct link_map;
 * gABI, DT_DEBUG), and symbol look-up in it as the loader would do it. The list is the target's
 * word: it is bounded, and what it names is checked against the mappings. Objects of other namespaces
 * (dlmopen(3)) are in lists of their own, which are not read. */
#ifndef LLU_REMAP_LINKMAP_H
#define LLU_REMAP_LINKMAP_H

#include "image/elf_file.h"
#include "inject/process.h"

/* The name (l_name) under which the object with this load bias was loaded; NULL when it is not in the list
 * or the list cannot be read. The caller frees it. */
char *linkmap__name(const struct process *p, taddr_t bias);

/* The list as it is now. `p` is borrowed. The caller frees it with linkmap__free(). Errors: ERR_REFUSED (a static
 * program, or a loader that is not known), ERR_UNREADABLE, and those of reading the process. */
struct linkmap;
MUST_CHECK struct err *linkmap__read(const struct process *p, struct linkmap **out);
void linkmap__free(struct linkmap *m);
void linkmap__cleanup(struct linkmap **m);
#define LINKMAP_CLEANUP __attribute__((cleanup(linkmap__cleanup)))

/* One object; both pointers live as long as the list. */
struct linkmap_object {
	taddr_t bias;
	const char *name;              /* l_name; "" for the program */
	const struct mapping *mapping; /* what is mapped at `bias`, or NULL */
};
size_t linkmap__count(const struct linkmap *m);
struct linkmap_object linkmap__object(const struct linkmap *m, size_t i);
bool linkmap__has(const struct linkmap *m, taddr_t bias);
/* Object i's mapped file, read when first asked for and owned by the list; *out is NULL for the vDSO, which has
 * none. Errors: as process__open_mapped() and elf_file__read_fd(). */
MUST_CHECK struct err *linkmap__file(struct linkmap *m, size_t i, const struct elf_file **out);

/* The address that `name` with `version` means for the library at `bias`: looked up in the library and
 * what it needs, which stay loaded as long as it does. An IFUNC is taken from an object that has bound
 * it already. *found is false when nothing defines it. ERR_REFUSED when it cannot be decided: another
 * object defines it too and might interpose, or an object cannot be read. */
MUST_CHECK struct err *linkmap__lookup(struct linkmap *m, taddr_t bias, const char *name, const char *version,
				       bool *found, taddr_t *out);
/* Is the object at `other` among what the library at `bias` needs, directly or not? */
MUST_CHECK struct err *linkmap__in_scope(struct linkmap *m, taddr_t bias, taddr_t other, bool *out);

/* The exported symbol of a file that an import of `name` with `version` ("" for none) binds to, or NULL. */
const struct elf_symbol *linkmap__definition(const struct elf_file *e, const char *name, const char *version);

#endif
