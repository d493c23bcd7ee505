/* Shared by the files that make a plan (plan.c, layout.c, statics.c, contents.c, constants.c, distances.c, rebind.c);
 * not for others. */
#ifndef LLU_IMAGE_PLANNER_H
#define LLU_IMAGE_PLANNER_H

#include "image/plan.h"
#include "image/types.h"

/* A writable section of next (or live) and where it lives in VAPI space. */
struct state_section {
	vaddr_t start, end; /* in its file */
	vaddr_t home;       /* in vapi */
	const char *name;
	bool got;       /* .got, .got.plt: slots are matched one by one */
	bool refreshed; /* read-only after relocation: takes next's contents */
	bool by_object; /* its objects are mapped one by one: planner.objects, or the pieces of the live map */
	vaddr_t live;   /* of next: where the section of that name starts in live's file, or 0 */
};

/* An object of a section that is mapped object by object. */
struct static_object {
	vaddr_t at; /* in its file */
	uint64_t size;
	const char *name;
	vaddr_t live; /* of next: the object of live that it takes over from, or 0: it is new */
	vaddr_t home; /* of a new one: where it is to be (VAPI space or own data) */
	bool alone;   /* nothing else ends where it starts */
	bool aliased; /* it has several names */
};

typedef VEC(struct static_object) object_list;

/* An initial value of writable data that changed; the value that the process has stays. */
struct changed_value {
	vaddr_t live, next; /* the aligned word or scalar, in their files */
	uint64_t size;
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

/* How far constants of next agree with those of live that are `shift` bytes below: from one place to another. */
struct agreement {
	bool any;
	vaddr_t shift, from, to;
};

/* What code does with addresses of constants, each list sorted. */
struct uses {
	vaddr_list compared;         /* with others that it did not form itself */
	vaddr_list indexed;          /* something is added to them */
	vaddr_list taken;            /* all whose address is taken */
	VEC(struct vrange) pairs;    /* what may be a start and its end */
	VEC(struct vrange) together; /* what one function takes, next to each other */
};

struct planner {
	struct plan *p;
	const struct live_map *map;
	state_list state, live_state; /* of next and live, in address order */
	object_list objects;          /* of next, of sections that are mapped object by object; in address order */
	VEC(struct changed_value) changed_values;
	size_t disagreements;  /* references of unchanged code that lead elsewhere than before */
	vaddr_list targets;    /* what next refers to outside code and state, sorted: bounds of constants */
	vaddr_t *target_homes; /* the older home decided for each of them, or 0 */
	vaddr_t *target_lives; /* and what is there in live */
	size_t *target_ends;   /* which other one may be its end, or 0 */
	bool constants_settled;
	VEC(struct known_string) strings;
	struct agreement agreement; /* the last that was found */
	struct vrange texts;        /* the last run of texts that was found in next's constants */
	bool symbols_known;
	constant_symbols symbols, live_symbols; /* of constants of next and live */
	bool uses_known;
	struct uses uses, live_uses; /* of constants of next and live */
	vaddr_list proven;           /* addresses of next's state that both builds use alike, sorted */
	vaddr_list proven_homes;     /* and their homes */
	VEC(size_t) vapi_got;        /* vapi's relocations that fill its GOT, by index */
	struct got_home *got_homes;  /* by index into next's relocations; decided when first asked for */
	bool *unproved;              /* by next's functions, where the types are proved: which they say nothing about */
	bool stack_objects;     /* objects changed that lie on stacks of the library's own functions alone (gate.h) */
	struct code *vapi_code; /* of a plain library (unprepared.h), else NULL */
	struct exact *exact;    /* link-time relocations of next, if it has them */
	size_t n_exact;
};

void planner__refuse(struct planner *x, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void planner__remark(struct planner *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* layout.c: proves that the state of both builds has the same layout, or refuses; fills x->state. */
void layout__check(struct planner *x);
/* Where an address of next's state lives; 0 for what is no state. An address at the end of a section
 * or in the padding behind it belongs to it. In a section that is mapped object by object: the object that holds
 * it, else the one that ends there, else 0. */
vaddr_t layout__home(const struct planner *x, vaddr_t next);
/* The same for an address that may be the end of one object as well as the start of another; `old` is what the
 * old build has in the same place, or 0. 0 when it cannot be decided. */
vaddr_t layout__decide(const struct planner *x, vaddr_t next, vaddr_t old);
const struct state_section *layout__section(const struct planner *x, vaddr_t next);
/* The same for an address of live's state, as the start of an object or a place within one; and as what code or a
 * pointer means by it: 0 where it may be the end of an object as well, whose home is elsewhere. */
vaddr_t layout__meant_by_live(const struct planner *x, vaddr_t live);
/* What a reference of live's code means: what is accessed is within an object, what is taken may be an end. */
vaddr_t layout__meant_by(const struct planner *x, const struct ref *live);
vaddr_t layout__home_of_live(const struct planner *x, vaddr_t live);

/* statics.c: maps the objects of a section one by one where symbols tell them apart in both builds. `s` is next's
 * section, `old` live's. False: nothing to do, the section is laid out alike, or symbols do not say. */
bool statics__map(struct planner *x, struct state_section *s, const struct state_section *old);
/* The object of next that holds `a`, or NULL. */
const struct static_object *statics__object_at(const struct planner *x, vaddr_t a);
/* The one that ends at `a`, or NULL. */
const struct static_object *statics__object_before(const struct planner *x, vaddr_t a);
/* Writes down where each object of next is, for the update after this one. */
void statics__record(struct planner *x);
/* The symbol that names exactly one object of `e` around `a`: its name, start and size; NULL if none does. */
const char *statics__symbol(const struct elf_file *e, vaddr_t a, vaddr_t *start, uint64_t *size);

/* contents.c: compares initial contents of live's state and next's, and lists what is refreshed or noted. */
void contents__compare(struct planner *x);
/* Once references and types have been judged: lists the initial values that changed, or refuses where it is not
 * certain that they are the same variables. */
void contents__settle(struct planner *x);

/* constants.c: the older home of a constant at `next` that corresponds to the one at `live` (0 when
 * not known), when both hold the same; 0 when it has none and the image's own copy is to be used. */
vaddr_t constants__home(struct planner *x, vaddr_t next, vaddr_t live);
void constants__list_targets(struct planner *x);
/* Once constants__home() was asked for whatever is known to correspond to something in live: decides about all others,
 * and for those that may be the ends of one another. From then on it answers what was decided. */
void constants__settle(struct planner *x);
/* May code that stays use the constant `next` at an older address, while other code uses what was decided? */
bool constants__may_keep(const struct planner *x, vaddr_t next, vaddr_t older);
/* The constants of a build that anything refers to, sorted. */
void constants__list_targets_of(const struct code *c, vaddr_list *out);
void constants__free(struct planner *x);
/* Where the process has a constant of live's; 0 when it is none. */
vaddr_t constants__place_of_live(const struct planner *x, vaddr_t live);
/* Do its first words lead to code, as those of a table for switch do? */
bool constants__is_jump_table(const struct elf_file *e, vaddr_t a);
/* Is there a table of distances to other constants, which say as much as its own contents do? */
bool constants__is_table_of_distances(struct planner *x, vaddr_t next);

/* distances.c: refuses builds whose constants lead to functions in a way that cannot be followed. */
void distances__check(struct planner *x);

/* rebind.c: every reference of next that must lead to VAPI space. */
void rebind__all(struct planner *x);
/* The canonical stub of a function of next, in VAPI space; takes a spare slot when it has none yet.
 * 0, and a refusal, when there is none left. */
vaddr_t rebind__stub(struct planner *x, vaddr_t function);

/* private.c: fills private_uses and private_gives of the plan. `moves`: which functions of `a` are not gone on with as
 * they are, by index. */
void private__list(struct plan *p, const struct code *a, const struct code *b, const struct match *m,
		   const bool *moves);

/* succession.c: fills the plan's list of functions. */
void succession__list(struct planner *x);

/* lsda.c: places of 4-byte pc-relative references to type information in one function's
 * language-specific data. False: an encoding that is not understood. */
bool lsda__references(const struct elf_file *e, vaddr_t lsda, vaddr_list *out);
/* Where exceptions go on that pass through `function`, which this data belongs to. False: they are not counted from the
 * function's start, or an encoding is not understood. */
bool lsda__landing_pads(const struct elf_file *e, vaddr_t lsda, vaddr_t function, vaddr_list *out);
/* Where the data ends; 0 when it is not understood. */
vaddr_t lsda__end(const struct elf_file *e, vaddr_t lsda);

#endif
