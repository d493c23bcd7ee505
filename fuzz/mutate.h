/* Changing ELF files so that they stay ELF files, and inputs that are made of several files.
 *
 * Plain changes of bytes break a header first, and nothing behind the reader is ever reached. So most changes here are
 * of one field of one part (header, program headers, section headers, or the contents of a section), and the file
 * keeps its length. libFuzzer's own mutator, which knows what the code compared last, works within one part.
 */
#ifndef LLU_FUZZ_MUTATE_H
#define LLU_FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

/* Numbers that follow from a seed. */
struct dice {
	uint64_t state;
};
struct dice dice__of(unsigned seed);
/* 0 to n - 1; 0 for n = 0. */
uint64_t dice__roll(struct dice *d, uint64_t n);

/* Changes an ELF file in `data` (room for `max` bytes); returns its new size. */
size_t mutate__elf(uint8_t *data, size_t size, size_t max, struct dice *d);

/* Several files in one input:
 *
 *     4 bytes: length of the first | 4 bytes: length of the second | first | second | third: the rest
 *
 * Lengths that reach beyond the end are cut. */
enum { PARTS = 3 };
struct parts {
	const uint8_t *data[PARTS];
	size_t size[PARTS];
};
struct parts parts__of(const uint8_t *data, size_t size);

/* Changes one of the files, or the first and the last alike. */
size_t mutate__parts(uint8_t *data, size_t size, size_t max, struct dice *d);

#endif
