/* Reading bytes of a file that may be anything (cfi.c, cfi_expr.c); not for others. */
#ifndef LLU_FREEZE_CFI_READ_H
#define LLU_FREEZE_CFI_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What is still to be read. Behind the end everything is 0, and `bad` stays set. */
struct bytes {
	const uint8_t *p, *end;
	bool bad;
};

/* A little-endian number of `size` bytes, 8 at most. */
static inline uint64_t bytes__fixed(struct bytes *b, size_t size)
{
	uint64_t v = 0;
	if (b->bad || (size_t)(b->end - b->p) < size) {
		b->bad = true;
		return 0;
	}
	memcpy(&v, b->p, size);
	b->p += size;
	return v;
}

static inline uint64_t bytes__uleb(struct bytes *b)
{
	uint64_t v = 0;
	for (unsigned shift = 0;; shift += 7) {
		uint64_t byte = bytes__fixed(b, 1);
		if (b->bad || shift > 63) {
			b->bad = true;
			return 0;
		}
		v |= (byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return v;
	}
}

static inline int64_t bytes__sleb(struct bytes *b)
{
	uint64_t v = 0;
	for (unsigned shift = 0;; shift += 7) {
		uint64_t byte = bytes__fixed(b, 1);
		if (b->bad || shift > 63) {
			b->bad = true;
			return 0;
		}
		v |= (byte & 0x7f) << shift;
		if (byte & 0x80)
			continue;
		if ((byte & 0x40) && shift < 57)
			v |= ~0ull << (shift + 7);
		return (int64_t)v;
	}
}

#endif
