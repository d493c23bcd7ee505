/* The dynamic loader's lists of loaded objects, one for each namespace (dlmopen(3)), read from the process (glibc
 * <link.h>, struct link_map, struct r_debug_extended; gABI, DT_DEBUG), and symbol look-up in them as the loader
 * would do it. They are the target's word: they are bounded, and what they name is checked against the
 * mappings. */
#ifndef LLU_REMAP_LINKMAP_H
#define LLU_REMAP_LINKMAP_H

#include "image/elf_file.h"
#include "inject/process.h"

/* The name (l_name) under which the object with this load bias was loaded; NULL when it is not in the list
 * or the list cannot be read. The caller frees it. */
char *linkmap__name(const struct process *p, taddr_t bias);

/* Is an object with this load bias in one of the lists? Errors: the lists cannot be read. */
MUST_CHECK struct err *linkmap__lists(const struct process *p, taddr_t bias, bool *out);

/* The lists as they are now. `p` is borrowed. The caller frees it with linkmap__free(). Errors: ERR_REFUSED (a static
 * program, or a loader that is not known), ERR_RETRY (they are being changed, dlopen(3)), ERR_UNREADABLE, and those of
 * reading the process. */
struct linkmap;
MUST_CHECK struct err *linkmap__read(const struct process *p, struct linkmap **out);
void linkmap__free(struct linkmap *m);
void linkmap__cleanup(struct linkmap **m);
#define LINKMAP_CLEANUP __attribute__((cleanup(linkmap__cleanup)))

/* One object; both pointers live as long as the list. */
struct linkmap_object {
	taddr_t at; /* struct link_map */
	taddr_t bias;
	const char *name;              /* l_name; "" for the program */
	const struct mapping *mapping; /* what is mapped at `bias`, or NULL */
};
size_t linkmap__count(const struct linkmap *m);
struct linkmap_object linkmap__object(const struct linkmap *m, size_t i);
/* Are both in the list, and in the same namespace? */
bool linkmap__same_namespace(const struct linkmap *m, taddr_t a, taddr_t b);
/* Object i's mapped file, read when first asked for and owned by the list; *out is NULL for the vDSO, which has
 * none. Errors: as process__open_mapped() and elf_file__read_fd(); ERR_RETRY when the lists have changed meanwhile. */
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
