/* Where the new imports of a build lead: to what the process has loaded, or to a new export of another library that
 * is updated with it.
 *
 * A new export is in no symbol table that the loader knows of. A function gets a spare slot of its library's VAPI, so
 * that its address stays the same for the life of the process and leads to its successor after each
 * further update.
 */
#ifndef LLU_REMAP_IMPORTS_H
#define LLU_REMAP_IMPORTS_H

#include "remap/discover.h"
#include "remap/linkmap.h"

/* A split library of the process. */
struct provider {
	const struct loaded *library;
	struct plan *plan; /* free of refusals; NULL: the library is not updated now */
	size_t order;      /* position in the commit; meaningless without a plan */
};

/* The words of a plan that may be imports, in the order of imports__resolve(): its new_got, then its own_words. */
size_t imports__count(const struct plan *plan);
/* Has the plan any imports that vapi does not have? */
bool imports__any(const struct plan *plan);

/* Fills `out`, imports__count() of them; 0 for those that are no import, and for weak ones that nothing
 * provides. `self` is the importer's index in `providers`. Assigns spare slots in the plans of providers; doing it
 * again gives the same. ERR_REFUSED: nothing provides an import, or it cannot be decided what does, or it is no
 * function, or its provider would be committed after the importer. */
MUST_CHECK struct err *imports__resolve(struct linkmap *map, const struct provider *providers, size_t n, size_t self,
					taddr_t *out);

#endif
