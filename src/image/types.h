/* The types of a build, by its debug information, and whether another build has the same.
 *
 * Objects that old code made live on in the heap and in the library's own data; new code will use
 * them. Their layout is proved equal here, from DWARF (versions 2 to 5) of both builds, or the
 * differences are named. What counts as a difference and what as a remark is in docs above each
 * function. The verdict speaks of layout, not of meaning: a field that keeps its place and type and
 * gets another sense is not seen.
 *
 * No process is in sight, and nothing is written. Debug information is hostile until read: damage is
 * an error, recursion and time are bounded.
 */
#ifndef LLU_IMAGE_TYPES_H
#define LLU_IMAGE_TYPES_H

#include "image/elf_file.h"

struct types;

/* A static variable that has a place in writable memory (also .data.rel.ro), or in the TLS block. */
struct type_static {
	const char *name; /* with the function or namespace that it is in: "next_id::counter" */
	const char *unit; /* the source file as the compiler was given it */
	const char *section;
	vaddr_t at;      /* address in the file; for TLS, offset in the block */
	uint64_t offset; /* within the section; for TLS, in the block */
	uint64_t size;
	const char *type; /* in words */
	uint32_t id;      /* of the type; for types__compare_statics() */
};

/* Finds and reads the debug information of a build: in the file itself, else by build-id and
 * .gnu_debuglink below `debug_root` (may be NULL) and /usr/lib/debug, else from debuginfod where
 * DEBUGINFOD_URLS is set (libdwfl does the searching: elfutils/libdwfl.h, "Standard callbacks").
 * A separate file must have the build-id of `e`, or, where there is none, the CRC that the link
 * names. Supplementary files of dwz are found by build-id, by name only from a file below /usr/lib/debug. What
 * the build says of names and places never leads out of the folders that are searched.
 *
 * That there is none is no error: then types__found() is false and types__source() says why. Damaged
 * debug information is ERR_UNREADABLE. `e` may be freed afterwards; the caller frees *out with
 * types__free(). */
MUST_CHECK struct err *types__find(const struct elf_file *e, const char *debug_root, struct types **out);
void types__free(struct types *t);
/* Which debug information types__find(e, NULL, ...) would read now: a text that is another one when a file comes,
 * goes or changes. Reads no types. NULL when it cannot be told; the caller frees it. */
char *types__stamp(const struct elf_file *e);

/* A constant that a symbol names. */
struct constant_symbol {
	char *name;
	vaddr_t at;
	uint64_t size;
};
typedef VEC(struct constant_symbol) constant_symbols;

/* The objects of read-only sections that have a symbol with a size, by address: of the build's own symbol table, or of
 * the separate file that types__find(e, NULL, ...) would read, of the same build-id. None is no error, and a damaged
 * table has none. The caller frees them with constant_symbols__free(). */
void types__constants(const struct elf_file *e, constant_symbols *out);
void constant_symbols__free(constant_symbols *l);

/* Is there debug information that describes types? */
bool types__found(const struct types *t);
/* The file that it was read from, or "none: " and the reason. */
const char *types__source(const struct types *t);
/* Does a source file that has debug information account for the code at `a`? Code of which nobody
 * knows the types (assembly without, a part built without -g) is covered by none: a proof by types
 * says nothing about it. */
bool types__covers(const struct types *t, vaddr_t a);
/* The static variables, sorted by name; they live as long as `t`. */
const struct type_static *types__statics(const struct types *t, size_t *n);

/* What a comparison found. */
struct types_report {
	VEC(char *) differences; /* sentences; empty: the same layout */
	VEC(char *) remarks;     /* what is worth knowing and no change of layout */
	size_t compared;         /* types or variables that both builds have */
	size_t n_differences;    /* also those that are not listed, see TYPES_LISTED_MAX */
};
/* How many sentences a list holds, and how many changes a sentence names. */
enum { TYPES_LISTED_MAX = 200, TYPES_CHANGES_MAX = 5 };
void types_report__free(struct types_report *r);

/* Compares every struct, class, union, enum and typedef of the old build, by name, with the new one's:
 *
 *   differences   size, alignment as given; members added, removed, moved, of another type; position
 *                 and width of bit-fields; array bounds; base classes and order of virtual functions;
 *                 enumerators removed or with another value; a type that a member holds and a build
 *                 does not describe
 *   remarks       a member, an enumerator or a type renamed in place; enumerators added; another signature
 *                 behind a function pointer; a type that only the old build has
 *
 * Pointers agree when what they point to has the same name, for that is compared by itself. Where a
 * name means several things in one build, each old meaning needs an equal new one, in the source
 * file of the same name if it is there. Both must have been found (else ERR_USAGE). `out` must be
 * zeroed or hold an earlier report, which is added to; the caller releases it. */
MUST_CHECK struct err *types__compare(const struct types *old, const struct types *new, struct types_report *out);

/* Compares the static variables: each of the new build needs one of the old, of the same name (and
 * source file, where several have it), at the same offset of the same section and of equal type. One
 * that only the old build has is a remark. As for the rest, like types__compare(). */
MUST_CHECK struct err *types__compare_statics(const struct types *old, const struct types *new,
					      struct types_report *out);

void types__cleanup(struct types **t);
#define TYPES_CLEANUP __attribute__((cleanup(types__cleanup)))

#endif
