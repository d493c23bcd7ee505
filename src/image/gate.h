/* The gate: do objects in the heap, made by the old build, fit the new one?
 *
 * A library's own data is not all its state. Where an update moves a field of a struct or makes it
 * larger, exchanging the code would corrupt memory without a sound. The verdict comes from the
 * strongest evidence there is. It speaks of layout, not of meaning.
 */
#ifndef LLU_IMAGE_GATE_H
#define LLU_IMAGE_GATE_H

#include "image/planner.h"

/* Judges the update from the debug information of both builds, when both have it for all their code but what did not
 * change, or is marked in x->unproved for gate__judge(): the layout is proved, or refused with the difference. False:
 * not to be had; the code must tell. */
bool proof__judge(struct planner *x);

/* Judges the update from the code of both builds and writes x->p->layout. Needs match, state layout and
 * slots of the plan. Where the layout is proved already, sizes of allocations alone are compared: no type says how many
 * elements an array in the heap has. */
void gate__judge(struct planner *x);

/* "no sign of change", ...: for messages. */
const char *layout_verdict__name(enum layout_verdict v);

#endif
