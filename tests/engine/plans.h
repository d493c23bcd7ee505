/* Plans between builds in memory, and whether two plans are the same. For tests that are linked with the engine. */
#ifndef LLU_TESTS_PLANS_H
#define LLU_TESTS_PLANS_H

#include "image/image_file.h"

/* Reads a library; `split` makes it LLU-capable first. Fails the test when that cannot be done. */
struct elf_file *library__read(const char *path, bool split);

/* All files of one update, as discover finds them in a process. */
struct step {
	struct elf_file *vapi, *live, *next; /* live may be vapi */
	struct live_map map;                 /* of live */
};

/* From `old` to `new`, both paths; nothing was updated before. */
struct step step__first(const char *old, const char *new);
/* The update was made: its image is what runs now, and `next` is to take over. Of slots that only an older image has,
 * `held` says whose they are (may be NULL). */
void step__go_on(struct step *s, const struct plan *p, const char *next, const struct elf_file *held);
void step__free(struct step *s);
struct plan *step__plan(const struct step *s);

/* Fails the test unless both plans are the same, field by field, and make the same image. */
void plan__expect_same(const struct plan *a, const struct plan *b);

#endif
