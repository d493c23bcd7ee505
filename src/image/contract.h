/* What libraries of one package promise each other alone, where the code of one changes and another stays as it is.
 *
 * The libraries of glibc use functions and data of each other that have the version GLIBC_PRIVATE, and that may change
 * with every build (glibc, elf/Versions and its like). New code of one of
 * them was made for the others of its own build. So what it uses of one that stays must be as in its own build, and
 * what one that stays uses of it must not change:
 *
 *     uses   the private imports that code uses which moves, but where the loaded build has the same instructions that
 *            use the same. A function counts with all that it calls, as far as instructions say
 *     gives  the private exports that move
 *
 * Code that does not move goes on with those that stay as it always did. Layouts of shared structures are a matter of
 * the types and the gate (types.h, gate.h) of each library; of data that one has and another reads by its symbol, the
 * size must be the same.
 */
#ifndef LLU_IMAGE_CONTRACT_H
#define LLU_IMAGE_CONTRACT_H

#include "image/elf_file.h"
#include "image/plan.h"

/* May the code that moves by this plan run beside a library that stays, `running`, of which `made_for` is the build
 * that it was made with? ERR_REFUSED, and the sentence says what differs; ERR_UNREADABLE for a damaged file. */
MUST_CHECK struct err *contract__check_uses(const struct plan *p, const struct elf_file *running,
					    const struct elf_file *made_for);
/* Does the library that stays use anything that moves by this plan? ERR_REFUSED if so. */
MUST_CHECK struct err *contract__check_gives(const struct plan *p, const struct elf_file *running);

/* Functions of `a` that have other instructions in `b`, or that one of the two has not. */
MUST_CHECK struct err *contract__count_changed(const struct elf_file *a, const struct elf_file *b, size_t *out);

/* Is it a symbol that only libraries of the same package may use? */
bool contract__is_private(const struct elf_symbol *s);

#endif
