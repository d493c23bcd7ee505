/* Plans, made once: within one operation they are shared by all processes that need the same, and in the
 * store (store.h) from one operation to the next.
 *
 * A plan is taken from there only for the very same files (by a SHA-256 of their contents), the same
 * state of the process, the same debug information and the same program that made it (plan_file.h).
 * What cannot be read, trusted or written is passed over without a word: then the plan is made.
 */
#ifndef LLU_REMAP_PLAN_CACHE_H
#define LLU_REMAP_PLAN_CACHE_H

#include "base/turn.h"
#include "image/plan.h"

struct plan_cache;

/* For one operation. `folder` is where the plans are kept; NULL: the usual store. The caller frees it with
 * plan_cache__close(). */
struct plan_cache *plan_cache__open(const char *folder);
void plan_cache__close(struct plan_cache *c);
/* From now on plans are made in turns with other processes of the operation, which find them in the store. `turns` is
 * borrowed. */
void plan_cache__take_turns(struct plan_cache *c, const struct turns *turns);

/* What plan__make() makes, refused plans too; *cached says that it was not made now. Errors: as plan__make(). The
 * plan does not depend on the cache. */
MUST_CHECK struct err *plan_cache__plan(struct plan_cache *c, const struct elf_file *vapi, const struct elf_file *live,
					const struct live_map *map, const struct elf_file *next, struct plan **out,
					bool *cached);

#endif
