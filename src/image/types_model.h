/* What types_read.c makes of DWARF and types.c compares; nobody else's business.
 *
 * A type is a number, an index into `nodes`; 0 is void. Each definition and each declaration of each
 * compilation unit is a node of its own, so the same struct occurs as often as it was compiled.
 */
#ifndef LLU_IMAGE_TYPES_MODEL_H
#define LLU_IMAGE_TYPES_MODEL_H

#include "image/types.h"

enum type_kind {
	TYPE_UNKNOWN, /* not understood, or referred to and not there: equal to nothing */
	TYPE_VOID,
	TYPE_BASE,
	TYPE_POINTER,
	TYPE_REFERENCE,
	TYPE_RVALUE_REFERENCE,
	TYPE_MEMBER_POINTER,
	TYPE_STRUCT, /* struct or class */
	TYPE_UNION,
	TYPE_ENUM,
	TYPE_ARRAY,
	TYPE_FUNCTION,
	TYPE_ALIAS, /* a typedef, or a qualifier, which has no name */
};

enum part_what {
	PART_MEMBER,
	PART_BASE,       /* a base class */
	PART_VIRTUAL,    /* a virtual function; `at` is its slot */
	PART_ENUMERATOR, /* `at` is its value */
	PART_DIMENSION,  /* of an array: `at` elements */
	PART_PARAMETER,
	PART_STRANGE, /* not understood: equal to nothing */
};

/* A dimension without a bound that is known when compiling. */
#define COUNT_OPEN UINT64_MAX

struct type_part {
	uint8_t what;
	uint32_t bits; /* width of a bit-field; 0: none */
	uint32_t type;
	const char *name; /* NULL: none */
	uint64_t at;      /* a member's offset in bits */
};

struct type_node {
	uint8_t kind;
	bool declaration;   /* only the name is known */
	bool is_class;      /* written "class" */
	bool typedef_named; /* no tag: the name is that of its typedef */
	bool ambiguous;     /* its name means several things in this build */
	bool described;     /* its name has a definition in this build */
	uint8_t encoding;   /* DW_ATE_* */
	uint8_t state;      /* of `hash` */
	uint32_t align;     /* 0: not given */
	uint32_t target;    /* pointee, element, aliased or underlying type, result */
	uint32_t first, n;  /* parts */
	uint32_t unit;
	uint64_t size;    /* in bytes */
	const char *name; /* qualified by namespaces and classes; NULL: anonymous */
	uint64_t hash;    /* of the layout; equal hashes of definitions: equal layouts */
};

struct types {
	bool found;
	char *source;
	VEC(struct type_node) nodes;
	VEC(struct type_part) parts;
	VEC(const char *) units; /* names of compilation units */
	VEC(struct type_static) statics;
	VEC(struct vrange) code;
	VEC(uint32_t) named; /* definitions and typedefs, sorted by kind of name, name and hash */
	/* strings */
	const char **strings;
	size_t n_strings, strings_cap;
};

/* How deep types and scopes may be nested, and how many parts one type may have. */
enum { TYPE_DEPTH_MAX = 200, TYPE_PARTS_MAX = 100000 };

/* The string, once; lives as long as `t`. Unprintable bytes are replaced. */
const char *types__intern(struct types *t, const char *s);
/* The type behind typedefs and qualifiers. */
uint32_t types__strip(const struct types *t, uint32_t id);
/* In words; the caller frees it. */
char *types__text(const struct types *t, uint32_t id);
uint64_t types__size(const struct types *t, uint32_t id);
/* Names anonymous types by their typedefs, computes hashes and `named`. After all nodes are there. */
MUST_CHECK struct err *types__index(struct types *t);
/* Orders nodes by what their name means: which name space, then the name. */
int type_node__compare_names(const struct type_node *a, const struct type_node *b);

struct type_part_list {
	struct type_part *items;
	size_t n, cap;
};
/* The parts of a struct or union with those of its unnamed members in their place. The caller
 * releases the list with vec__free(). False: too many, or nested too deep. */
bool types__flatten(const struct types *t, uint32_t id, struct type_part_list *out);

#endif
