/* Objects that code works on, told from the code alone: which accesses of memory belong to objects of
 * one type.
 *
 * An address is followed from where a function gets it (argument, result of a call, load from
 * another object, data of the library) to where it is used; calls join the caller's argument with
 * the callee's parameter, where the callee accesses what it is given. What is joined is one class,
 * in the manner of Steensgaard's points-to analysis ("Points-to Analysis in Almost Linear Time",
 * 1996). A callee that stores, frees or allocates for everybody joins nothing, or all objects of
 * the library would be one class. Both builds share the classes: matched functions have the same
 * parameters, data the same homes. So the question that matters can be asked: does new code touch
 * bytes of an object that no old code touches?
 *
 * An object that every caller has on its own stack lives no longer than the call. How it is laid out is nobody's
 * concern where no call is under way when code is exchanged; so an update that changes such objects can be had, but no
 * frame of the library may be moved or left (gate.h).
 *
 * This is evidence, not proof: an address that cannot be followed has no class.
 */
#ifndef LLU_IMAGE_OBJECTS_H
#define LLU_IMAGE_OBJECTS_H

#include "image/classes.h"
#include "image/planner.h"

struct access {
	bool stores;        /* 8 bytes of a register */
	bool holds_pointer; /* 8 bytes that code in the same build takes for an address and follows */
	uint8_t scale;      /* of the index; 0 without one */
	bool forms_address; /* lea: the address of bytes in the object, which are not accessed here */
	bool call_local;    /* the object lies on the stack of a caller in the library: it does not outlive the call */
	uint32_t class;     /* CLASS_UNKNOWN: an object that cannot be told */
	int32_t function;   /* index into its build's functions */
	vaddr_t insn;
	int64_t offset;
	uint16_t size;
};

/* An argument that ends up as the size of an allocation, or of a block that is set or copied. */
struct size_argument {
	int32_t function; /* of the new build that calls */
	vaddr_t insn;     /* where the constant is set, or added */
};

/* A mask or shift of what was loaded from memory, or in memory. */
struct bits_picked {
	vaddr_t insn;
	int32_t function; /* index into its build's functions */
	uint32_t class;   /* of the object that it was loaded from, CLASS_UNKNOWN: cannot be told */
	int64_t offset;
	uint64_t bits; /* counted from that offset; 0: cannot be told */
	bool clears;   /* to put other ones there */
};

struct objects {
	VEC(struct access) old, new;                /* sorted by class, offset, size */
	VEC(struct size_argument) sizes;            /* sorted by insn; of new code */
	VEC(struct bits_picked) old_bits, new_bits; /* sorted by class, then offset */
};

/* Follows addresses through both builds. The caller releases it with objects__free(). */
void objects__find(const struct planner *x, struct objects *out);
void objects__free(struct objects *o);

#endif
