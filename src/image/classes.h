/* Classes of objects: union-find over interned names, in the manner of Steensgaard. Objects that are found to be of one
 * type are joined, and with them what hangs off them.
 */
#ifndef LLU_IMAGE_CLASSES_H
#define LLU_IMAGE_CLASSES_H

#include "base/types.h"
#include "base/vec.h"

enum { CLASS_UNKNOWN = 0, CLASS_STACK = 1 };

enum name_kind {
	NAME_ARGUMENT,  /* of function `a`, number b */
	NAME_RESULT,    /* of function `a` */
	NAME_CALL,      /* what call `b` in function `a` gives, of a function that does not know what it gives */
	NAME_ONLY_CALL, /* the same, of the only call of `b` in function `a` */
	NAME_DATA,      /* what lies at home `a` of the library's data */
	NAME_LOAD,      /* what the word at offset b of an object of class `a` points to */
	NAME_INDEX,     /* an element of an array in an object of class `a` */
};

struct name {
	uint32_t kind;
	uint64_t a;
	int64_t b;
	uint32_t class;
};

struct child {
	int64_t key;
	uint32_t kind, class;
};

struct object_class {
	uint32_t parent;
	uint32_t touched; /* the last function, by number, that accessed such an object */
	bool freed;       /* such an address was given to free() */
	bool on_stack;    /* some caller passes the address of something on its stack */
	bool elsewhere;   /* it may be in the heap or in static data, or on the stack of somebody outside */
	VEC(struct child) children;
};

struct classes {
	struct object_class *items;
	size_t n, cap;
	struct name *table; /* open addressing */
	size_t n_names, size;
	uint32_t serial; /* how many functions were followed */
};

/* Starts with CLASS_UNKNOWN and CLASS_STACK. Released with classes__free(). */
void classes__init(struct classes *c);
void classes__free(struct classes *c);

/* The class that stands for all that were joined with `k`. */
uint32_t classes__find(struct classes *c, uint32_t k);
/* The class with that name, made when first asked for. */
uint32_t classes__named(struct classes *c, uint32_t kind, uint64_t a, int64_t b);
/* The class of what hangs off an object: kept with the object, so that it is joined when objects are. */
uint32_t classes__child(struct classes *c, uint32_t of, uint32_t kind, int64_t key);
/* The same, CLASS_UNKNOWN when nothing was known to hang off there. */
uint32_t classes__known_child(struct classes *c, uint32_t of, uint32_t kind, int64_t key);
/* Joins two classes, and what hangs off both. Never CLASS_UNKNOWN nor CLASS_STACK. */
void classes__join(struct classes *c, uint32_t a, uint32_t b);
/* Objects of the class may be elsewhere than on stacks of the library's own functions. */
void classes__mark_elsewhere(struct classes *c, uint32_t class);

#endif
