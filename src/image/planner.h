/* Shared by the files that make a plan (plan.c, layout.c, constants.c, rebind.c); not for others. */
#ifndef LLU_IMAGE_PLANNER_H
#define LLU_IMAGE_PLANNER_H

#include "image/plan.h"

/* A writable section of next (or live) and where it lives in VAPI space. */
struct state_section {
	vaddr_t start, end; /* in its file */
	vaddr_t home;       /* in vapi */
	const char *name;
	bool got; /* .got, .got.plt: slots are matched one by one */
};

/* A link-time relocation (-Wl,--emit-relocs) of a pc-relative value: what it was meant to lead to. */
struct exact {
	vaddr_t site;
	vaddr_t base; /* start of the section that the symbol is in */
};

typedef VEC(struct state_section) state_list;

/* A string constant of the live build, by its text. */
struct known_string {
	uint64_t hash;
	vaddr_t at;
};

/* Where a GOT slot of next is found: a slot of vapi's, or (from 1) one of the image's own. */
struct got_home {
	vaddr_t home;
	size_t own;
};

struct planner {
	struct plan *p;
	const struct live_map *map;
	state_list state, live_state; /* of next and live, in address order */
	vaddr_list targets;           /* what next refers to outside code and state, sorted: bounds of constants */
	vaddr_t *target_homes;        /* the older home decided for each of them, or 0 */
	VEC(struct known_string) strings;
	vaddr_list proven;          /* addresses of next's state that both builds use alike, sorted */
	VEC(size_t) vapi_got;       /* vapi's relocations that fill its GOT, by index */
	struct got_home *got_homes; /* by index into next's relocations; decided when first asked for */
	struct exact *exact;        /* link-time relocations of next, if it has them */
	size_t n_exact;
};

void planner__refuse(struct planner *x, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void planner__remark(struct planner *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* layout.c: proves that the state of both builds has the same layout, or refuses; fills x->state. */
void layout__check(struct planner *x);
/* Where an address of next's state lives; 0 for what is no state. An address at the end of a section
 * or in the padding behind it belongs to it. */
vaddr_t layout__home(const struct planner *x, vaddr_t next);
const struct state_section *layout__section(const struct planner *x, vaddr_t next);
/* The same for an address of live's state. */
vaddr_t layout__home_of_live(const struct planner *x, vaddr_t live);

/* constants.c: the older home of a constant at `next` that corresponds to the one at `live` (0 when
 * not known), when both hold the same; 0 when it has none and the image's own copy is to be used. */
vaddr_t constants__home(struct planner *x, vaddr_t next, vaddr_t live);
void constants__list_targets(struct planner *x);

/* rebind.c: every reference of next that must lead to VAPI space. */
void rebind__all(struct planner *x);
/* The canonical stub of a function of next, in VAPI space; takes a spare slot when it has none yet.
 * 0, and a refusal, when there is none left. */
vaddr_t rebind__stub(struct planner *x, vaddr_t function);

/* lsda.c: places of 4-byte pc-relative references to type information in one function's
 * language-specific data. False: an encoding that is not understood. */
bool lsda__references(const struct elf_file *e, vaddr_t lsda, vaddr_list *out);

#endif
