/* The three kinds of address, which must never be mixed up, and ranges of them.
 *
 *   in our own memory      an ordinary pointer
 *   in an ELF file         vaddr_t: a virtual address as the file states it, before the load bias
 *   in another process     taddr_t: a struct, so that the compiler refuses to mix it with the others
 */
#ifndef LLU_BASE_TYPES_H
#define LLU_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t vaddr_t;
typedef struct {
	uint64_t v;
} taddr_t;

/* A half-open range [start, end) in an ELF file. */
struct vrange {
	vaddr_t start, end;
};

/* A half-open range [start, end) in a target. */
struct trange {
	taddr_t start, end;
};

static inline taddr_t taddr(uint64_t v)
{
	return (taddr_t){v};
}

static inline taddr_t taddr_add(taddr_t a, uint64_t n)
{
	return (taddr_t){a.v + n};
}

static inline bool vrange__has(struct vrange r, vaddr_t a)
{
	return a >= r.start && a < r.end;
}

static inline bool trange__has(struct trange r, taddr_t a)
{
	return a.v >= r.start.v && a.v < r.end.v;
}

static inline uint64_t align_up(uint64_t v, uint64_t a)
{
	return (v + a - 1) & ~(a - 1);
}

static inline uint64_t align_down(uint64_t v, uint64_t a)
{
	return v & ~(a - 1);
}

/* x86-64 base page; every mapping that the product makes is in units of it. */
enum { LLU_PAGE = 4096 };

#endif
