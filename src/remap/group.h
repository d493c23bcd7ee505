/* Which outdated libraries of a process are updated as one.
 *
 * Libraries of one package often share more than their interface (libssl and libcrypto; libgio, libgobject and
 * libglib): a new one must not run on an old one, nor an old one on a new one. What belongs to one package cannot be
 * seen in a process, so all outdated libraries of which one needs another (DT_NEEDED), directly or over other outdated
 * ones, are a group: all of them are exchanged in one freeze, or none is. But glibc keeps its promises to other
 * packages by symbol versions, so these do not wait for it; and of its own parts, one that is refused may stay
 * (glibc.h).
 */
#ifndef LLU_REMAP_GROUP_H
#define LLU_REMAP_GROUP_H

#include "remap/discover.h"
#include "remap/linkmap.h"

/* Indices into the list of libraries, in the order of commit: what a member needs comes before it. */
struct group {
	size_t *members;
	size_t n;
};
typedef VEC(struct group) group_list;

/* Every outdated library is in one group; most are alone in theirs. Libraries of different
 * namespaces are never in one, and one that the loader does not list is alone. `map` may be NULL: then nothing is known
 * of namespaces. The caller releases the
 * list with group_list__free(). */
void group_list__make(const loaded_list *libraries, const struct linkmap *map, group_list *out);
void group_list__free(group_list *g);

/* Does the library at index `a` need the one at `b`, directly or over other outdated libraries? */
bool group__depends(const loaded_list *libraries, size_t a, size_t b);

/* Needs the library another one that is outdated too, but which the process has as a plain library? That one stays
 * old, and the two may be made for each other: ERR_REFUSED. Parts of glibc do not count: it keeps its promises to
 * older and newer programs by symbol versions, and those are checked (imports.h). */
MUST_CHECK struct err *group__check_plain(const struct process *p, struct linkmap *map, const loaded_list *libraries,
					  const struct loaded *l);

#endif
