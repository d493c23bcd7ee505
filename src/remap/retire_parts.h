/* Shared by the files of retiring (retire.c, retire_code.c); not for others. */
#ifndef LLU_REMAP_RETIRE_PARTS_H
#define LLU_REMAP_RETIRE_PARTS_H

#include "base/error.h"
#include "remap/bring.h"
#include "remap/retire.h"

enum { OLD_EXEC_MAX = 16 };

/* Code that ran before: an older image, or the code of the library's own file. */
struct old_code {
	const struct loaded *l;
	uint32_t image;                   /* index into the header's images; OLD_OWN for the file's */
	struct trange exec[OLD_EXEC_MAX]; /* its executable mappings; none when they are gone already */
	size_t n_exec;
	struct trange all; /* of an image: all of its part of the window */
	char *held;        /* why its code stays; NULL while nothing is known that holds it */
	bool constants;    /* something leads to its constants */
};

enum { OLD_OWN = UINT32_MAX };

typedef VEC(struct old_code) old_code_list;

/* retire_code.c: lists the old code of a library, with what is known to hold it without looking at memory. */
MUST_CHECK struct err *old_code__list(const struct process *p, const struct mappings *maps, const struct loaded *l,
				      old_code_list *out);
void old_code__free(old_code_list *l);
/* Says that something holds its code, unless something is known to already. */
void old_code__hold(struct old_code *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
