/* The exchange: one batch of the hand that makes the new code of one or more prepared libraries live.
 *
 * For each library, in the order given, which is that of need (what one needs comes before it):
 *
 *     unwind table | read-only data | table | header | the shadows' place becomes reservation again
 *
 * Every prefix is a safe state: each slot of each library leads to old or new code, all of which is mapped.
 * New code that calls a new export of another library cannot run before that export's slot leads
 * somewhere, as the other's table changed before. When a call fails, all go back if no table has changed,
 * else all go forward. A tool that is killed does not stop the batch; were it killed and a call failed
 * too, each library is old or new by its own header, and the next update brings the rest over.
 */
#ifndef LLU_REMAP_EXCHANGE_H
#define LLU_REMAP_EXCHANGE_H

#include "remap/surgery.h"

struct exchange;

/* `members` are borrowed, and prepared or about to be. ERR_REFUSED when the batch would be too long. The caller frees
 * it with exchange__free(). */
MUST_CHECK struct err *exchange__new(struct surgery *const *members, size_t n, struct exchange **out);
void exchange__free(struct exchange *x);

/* Loads the batch into the hand, so that nothing but running it is left for the freeze. */
MUST_CHECK struct err *exchange__load(struct exchange *x, struct hand *h);
/* Runs it, and uses the hand up. *committed says whether the new code is live, in all of them or in none; with an
 * error too (then the batch stopped, and what was left was finished or put right by plain writes). */
MUST_CHECK struct err *exchange__run(struct exchange *x, struct hand *h, bool *committed);
/* Traces the calls that were made, when no thread stands still any more. */
void exchange__trace(struct exchange *x);

#endif
