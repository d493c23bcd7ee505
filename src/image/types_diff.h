/* Where two types differ: shared by types_diff.c, which finds it, and types.c, which reports it. */
#ifndef LLU_IMAGE_TYPES_DIFF_H
#define LLU_IMAGE_TYPES_DIFF_H

#include <stdio.h>

#include "image/types_model.h"

/* A set of pairs of types; key 0 is none, for the pair (void, void) is never asked for. */
struct pair_set {
	uint64_t *keys;
	size_t n, cap;
};

struct comparer {
	const struct types *o, *n; /* old, new */
	struct types_report *out;
	struct pair_set proved;
	size_t o_root, n_root; /* length of the directory that all source files of a build are in */
	uint64_t steps;
	unsigned depth;   /* of types that are being proved equal */
	unsigned nesting; /* of structs without a name that are put into words */
	bool whole;       /* also look into what is compared by itself, where an object has it inside */
	bool too_complex;
};

struct change {
	uint64_t at;
	size_t order; /* among those at the same place: as found */
	char *text;
};

/* What is different in one type; `quiet`: whether is all that matters. */
struct changes {
	bool quiet;
	size_t n_found;
	VEC(struct change) list;
	VEC(char *) remarks;
};

void changed(struct changes *to, uint64_t at, char *text);
void changes__free(struct changes *s);

/* Notes a change; the words are made only when somebody will read them. */
#define CHANGED(to, at, ...)                                                                                           \
	do {                                                                                                           \
		if ((to)->quiet)                                                                                       \
			(to)->n_found++;                                                                               \
		else                                                                                                   \
			changed(to, at, xasprintf(__VA_ARGS__));                                                       \
	} while (0)
#define REMARK(to, ...)                                                                                                \
	do {                                                                                                           \
		if (!(to)->quiet)                                                                                      \
			vec__push(&(to)->remarks, xasprintf(__VA_ARGS__));                                             \
	} while (0)

static inline const struct type_node *node(const struct types *t, uint32_t id)
{
	return &t->nodes.items[id];
}

/* Counts the work; false when it is too much. */
bool comparer__step(struct comparer *c);
void comparer__free(struct comparer *c);

/* Compares two types that something is of at the same place `at`, in bits; `path` leads there: "u.v".
 * `value`: objects hold it, so it must be described; else its name may be all that is known. */
void comparer__held(struct comparer *c, uint32_t oid, uint32_t nid, bool value, const char *path, uint64_t at,
		    struct changes *to);
/* Compares two definitions, part by part. */
void comparer__definitions(struct comparer *c, uint32_t oid, uint32_t nid, const char *path, uint64_t base,
			   struct changes *to);

#endif
