/* Following addresses through one function: shared by follow.c, calls.c and objects.c; not for others. */
#ifndef LLU_IMAGE_FOLLOW_H
#define LLU_IMAGE_FOLLOW_H

#include "arch/detail.h"
#include "image/objects.h"

struct value {
	uint32_t class;      /* CLASS_UNKNOWN: no address that is known */
	int64_t offset;      /* into the object */
	vaddr_t constant_at; /* where a constant was set, 0 for none */
	int8_t argument;     /* the function's own argument, plus 1; 0: not one, or not only */
	bool loaded;         /* comes from memory, or may */
	uint8_t shift;       /* the value has since been shifted right so far */
	uint32_t from_class; /* the object that it was loaded from, CLASS_UNKNOWN: cannot be told */
	int64_t from;        /* and the offset there */
	uint32_t result_of;  /* the function of the library that gave it, by name, plus 1 */
};

enum { KNOWS_RESULT = 1 << 7 };
enum { SLOTS = 48, OFFSET_UNKNOWN = INT32_MIN /* far from all slots of a stack */ };

struct state {
	struct value reg[REG_COUNT];
	struct {
		int64_t at; /* relative to the stack pointer on entry */
		struct value v;
	} slot[SLOTS];
	unsigned n_slots;
};

struct label {
	vaddr_t at;
	struct state *state;
};

/* A call in function `caller` of a build. */
struct call {
	uint32_t caller, of; /* how many calls of that callee the caller makes */
	uint64_t callee;     /* the name of a function, or a hash of an import's with IS_IMPORT */
	vaddr_t insn;
};

#define IS_IMPORT ((uint64_t)1 << 63)

/* A function hands its own argument on, or returns what it was given: what the callee knows and uses as a size, it
 * knows and uses, too. */
struct handed_on {
	uint64_t caller, callee; /* names */
	int8_t argument, as;     /* the caller's argument, from 1, as the callee's, from 0; argument 0: the result */
	bool whole;              /* as it is, not a sum */
};

struct pass {
	const struct planner *x;
	struct classes *classes;
	const struct code *code;
	struct objects *out;
	uint8_t *size_params; /* bit i: argument i of the function ends up as a size; by name of function */
	uint8_t *knows;       /* bit i: the function accesses what its argument i leads to, or hands it on to one that
				 does; KNOWS_RESULT: accesses what its result leads to. By name of function */
	VEC(struct handed_on) handed_on; /* of this build, noted in the first round */
	VEC(struct call) calls;          /* of this build, noted in the first round; then sorted by instruction */
	const struct function *f;        /* being followed */
	struct state s;
	VEC(struct label) labels;
	struct state orphan; /* at the last indirect jump: what a switch's cases start with */
	uint8_t *seen;       /* by place in the function: length of the instruction that was followed there */
	size_t seen_size;
	int32_t index;   /* of the function being followed, in its build */
	uint32_t serial; /* of the function being followed */
	bool new;        /* the build is the new one */
	bool first;      /* the first round: what each function says of itself alone */
	bool record;     /* the second: accesses are noted */
	bool has_orphan;
	bool used_stack;
	bool skipped; /* something was not reached yet */
};

/* Something that comes from memory, and of which no more is known. */
static inline struct value from_memory(void)
{
	return (struct value){.loaded = true};
}

/* Functions have one number in both builds: that of the old one. */
uint64_t pass__function_id(const struct pass *p, int32_t i);
/* The function being followed knows more of its arguments or its result (see pass.knows). */
void pass__knows(struct pass *p, uint8_t what);
/* Follows function `index` of the pass's build. */
void pass__follow(struct pass *p, int32_t index);

/* calls.c: a call, or a jump that leaves the function (`comes_back` false). */
void pass__call(struct pass *p, const struct insn *i, bool comes_back, vaddr_t at);
/* calls.c: the function being followed returns `v`. */
void pass__gives(struct pass *p, struct value v);

#endif
