/* A scene with two libraries of one package: libupper needs liblower (fixtures/lib/pair.h). */
#ifndef LLU_TESTS_UPDATE_PAIR_H
#define LLU_TESTS_UPDATE_PAIR_H

#include "scene.h"

struct pair {
	struct scene upper, lower; /* in one directory, with one target */
	struct target *target;
};

/* Starts pair_driver on version 1 of both. */
struct pair pair__begin(void);
/* The same, with the lower of fixtures/lib/VARIANT. */
struct pair pair__begin_on(const char *lower);
/* The same with busy threads; `apart`: they may see one library updated without the other (drivers/pair_driver.c). */
struct pair pair__begin_busy(bool apart);
/* The same with a third library, of version 1, that neither of them needs nor knows. */
struct pair pair__begin_with(struct scene *third, const char *library);
/* Puts builds of fixtures/lib/VARIANT in place; NULL: leaves what is there. */
void pair__install(struct pair *p, const char *upper, const char *lower);
/* Both are listed, updated in one operation, and answer as `version`. */
void pair__update(struct pair *p, int version);
/* llvupdate -p; to be released with result__free(). */
struct result pair__llvupdate(const struct pair *p, const char *const extra[]);
/* Refused with `reason` (an extended regular expression), and the process answers as `version`. */
void pair__refuse(struct pair *p, const char *reason, int version);
void pair__finish(struct pair *p);

#endif
