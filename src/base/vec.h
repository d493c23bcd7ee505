/* Growable arrays. VEC(type) declares one; all zero is empty; vec__free() releases the items. */
#ifndef LLU_BASE_VEC_H
#define LLU_BASE_VEC_H

#include "base/alloc.h"

#define VEC(type)                                                                                                      \
	struct {                                                                                                       \
		type *items;                                                                                           \
		size_t n, cap;                                                                                         \
	}

/* Appends one item. */
#define vec__push(v, ...)                                                                                              \
	do {                                                                                                           \
		if ((v)->n == (v)->cap) {                                                                              \
			(v)->cap = (v)->cap ? (v)->cap * 2 : 16;                                                       \
			(v)->items = xreallocarray((v)->items, (v)->cap, sizeof(*(v)->items));                         \
		}                                                                                                      \
		(v)->items[(v)->n++] = (__VA_ARGS__);                                                                  \
	} while (0)

#define vec__free(v)                                                                                                   \
	do {                                                                                                           \
		free((v)->items);                                                                                      \
		(v)->items = NULL;                                                                                     \
		(v)->n = (v)->cap = 0;                                                                                 \
	} while (0)

#endif
