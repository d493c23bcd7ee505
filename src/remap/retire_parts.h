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
	bool full[OLD_EXEC_MAX];          /* code up to the last byte: what follows it can be a return address */
	size_t n_exec;
	struct trange all; /* of an image: all of its part of the window */
	char *held;        /* why its code stays; NULL while nothing is known that holds it */
	bool constants;    /* something leads to its constants, for all that is known */
};

enum { OLD_OWN = UINT32_MAX };

typedef VEC(struct old_code) old_code_list;
typedef VEC(struct trange) range_list;

struct retire {
	const struct process *p;
	const struct retire_options *opt;
	loaded_list libraries;
	old_code_list old;
	struct hand *hand;
	uint64_t frozen_ns;
};

enum { RETIRE_STOP_MS = 20 }; /* for one thread to stop */

/* retire_code.c: lists the old code of a library, with what is known to hold it without looking at memory. */
MUST_CHECK struct err *old_code__list(const struct process *p, const struct mappings *maps, const struct loaded *l,
				      old_code_list *out);
void old_code__free(old_code_list *l);
/* Can `a` be an address in its code? */
bool old_code__has(const struct old_code *o, taddr_t a);
/* Says that something holds its code, unless something is known to already. */
void old_code__hold(struct old_code *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* retire_constants.c: of which older images do constants have to go, as their room is needed, and can go? Sets
 * `constants` of the others. Errors only from looking. */
MUST_CHECK struct err *retire__ask_for_constants(struct retire *r);

/* retire.c: what hands and tools have left in memory, which means nothing. */
void retire__list_skipped(const struct retire *r, range_list *out);

#endif
