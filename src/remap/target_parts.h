/* Shared by the files of the operation on one process (update.c, operate.c); not for others. */
#ifndef LLU_REMAP_TARGET_PARTS_H
#define LLU_REMAP_TARGET_PARTS_H

#include "remap/linkmap.h"
#include "remap/update.h"

/* ---- update.c ---- */

/* What became of a library, and why; all texts are copied, `hint` may be NULL. */
void target__set_reason(struct result *r, enum outcome outcome, enum err_kind kind, const char *code, const char *text,
			const char *hint);

struct result *target__member(const struct target *t, const struct group *g, size_t i);
/* All of a group are pending, or none is. */
bool target__group_pending(const struct target *t, const struct group *g);

enum { TARGET_ALL_ALIKE = -1 };
/* An error before the commit, about the member `at_fault` or about TARGET_ALL_ALIKE. */
void target__group_failed(const struct target *t, const struct group *g, const struct err *e, int at_fault);

/* Where the new imports of a group's members lead. *at_fault: whose cannot be resolved. */
MUST_CHECK struct err *target__resolve_imports(const struct target *t, const struct group *g, struct linkmap *map,
					       int *at_fault);
bool target__any_imports(const struct target *t, const struct group *g);

/* ---- operate.c ---- */

/* Lets the hand go and frees what was prepared; the process is not touched otherwise. */
void target__release_surgeries(struct target *t, const struct group *g);

#endif
