/* FNV-1a, 64 bits: for finding things again, where equal hashes are no harm or contents are compared too. */
#ifndef LLU_BASE_HASH_H
#define LLU_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_START 0xcbf29ce484222325ULL

/* Hashes `n` bytes on to `h`, which begins as HASH_START. */
static inline uint64_t hash__bytes(uint64_t h, const void *data, size_t n)
{
	const uint8_t *p = data;
	for (size_t i = 0; i < n; i++)
		/* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): of names that the kernel wrote */
		h = (h ^ p[i]) * 0x100000001b3ULL;
	return h;
}

#endif
