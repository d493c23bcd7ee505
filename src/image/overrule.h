/* The overrule file: the administrator's word on objects in the heap, for named pairs of builds.
 *
 *     # comment
 *     OLD-BUILD-ID NEW-BUILD-ID who says so and why
 *
 * One line for each pair, in this direction alone: an update from OLD to NEW is not refused for
 * `layout-changed` and `layout-unclear`. Every other reason stays. Build-ids are complete, in hex; the
 * reason is mandatory. A file that others could have written, or with one line that is not understood, is not
 * used at all. */
#ifndef LLU_IMAGE_OVERRULE_H
#define LLU_IMAGE_OVERRULE_H

#include "image/plan.h"

#define OVERRULE_FILE "/etc/liveupdate/overrule"

struct overrules;

/* Reads the file, by the rules of trusted__read(). Never fails: a file that cannot be used overrules
 * nothing, and overrules__apply() says why. That there is none needs no saying unless `asked_for`. The
 * caller frees the result with overrules__free(). */
struct overrules *overrules__read(const char *path, bool asked_for);
void overrules__free(struct overrules *o);

/* Applies the file to a plan that is refused for the layout of objects; to be done once, before
 * plan__require_proof(). Where the file names its pair of builds (live, next), these reasons become remarks
 * and the verdict LAYOUT_OVERRULED. plan->overrule says what the file had to say. */
void overrules__apply(const struct overrules *o, struct plan *p);

void overrules__cleanup(struct overrules **o);

#endif
