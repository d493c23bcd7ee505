/* Shared by unprepared.c and unprepared_same.c; not for others. */
#ifndef LLU_IMAGE_UNPREPARED_PARTS_H
#define LLU_IMAGE_UNPREPARED_PARTS_H

#include "image/planner.h"
#include "image/unprepared.h"

/* A way from a function to a place of code that no instruction says: by a table for switch, or to a landing pad
 * outside of it. */
struct way {
	uint32_t from; /* the function, by index */
	vaddr_t to;
};

/* What is known while the functions of vapi are compared with next's. */
struct comparison {
	struct planner *x;
	const struct code *a, *b; /* of vapi, of next */
	const struct match *m;
	bool *moves;           /* by index into a's functions */
	struct patch *patches; /* by site */
	size_t n_patches;
	fde_list fdes_a, fdes_b;
	vaddr_list targets_a; /* constants of vapi that anything refers to, sorted; next's are the planner's */
	VEC(struct way) ways; /* of a, by function */
	vrange_list tables;   /* for switch, of next, by address */
	bool earlier_leads;   /* code of an earlier update comes to jumps by what stays */
	/* the last stretch in which constants were found to agree, `shift` bytes apart */
	vaddr_t shift, agree_from, agree_to;
};

static inline size_t index_of(const struct code *c, const struct function *f)
{
	return (size_t)(f - c->functions.items);
}

/* Lists the ways of vapi's code, and next's tables for switch. False: not all ways are known. */
bool same__prepare(struct comparison *c);
/* Do both do the same: the same bytes, whose references lead to the same functions, the same data and equal constants,
 * and the same handling of exceptions? */
bool same__function(struct comparison *c, const struct function *fa, const struct function *fb);
/* Of a reference of `fa` and one of its counterpart's. */
bool same__reference(struct comparison *c, const struct function *fa, const struct ref *ra, const struct ref *rb);
/* Are there handlers for exceptions that pass through either? */
bool same__any_handlers(const struct comparison *c, const struct function *fa, const struct function *fb);

/* Where the jump at the entry of a function of vapi would be; 0: there is no room for one. */
vaddr_t unprepared__jump_place(const struct comparison *c, const struct function *f);

#endif
