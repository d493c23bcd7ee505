/* The relinked image as a file: what is mapped into processes.
 *
 *     +---------------------------+ 0
 *     | next's file, its relative | an ELF file still: perf and gdb find names and build-id in it;
 *     | values patched for `base` | its non-writable segments are mapped at base + p_vaddr
 *     +---------------------------+ page
 *     | pages of the loaded       | unprepared only: with entries that jump into the image
 *     | library's code            |
 *     +---------------------------+ page
 *     | struct image_tail         | what a later update needs to know about this one: its patches with
 *     | and its arrays            | the values they replaced, slots, constants, objects
 *     +---------------------------+
 *     | 8 bytes: where the tail starts, 8 bytes: magic
 *     +---------------------------+ end
 *
 * A process that runs an image holds the file, deleted or not, so the next update finds all it
 * needs to know in the process itself.
 */
#ifndef LLU_IMAGE_IMAGE_FILE_H
#define LLU_IMAGE_IMAGE_FILE_H

#include "image/plan.h"

/* Makes the bytes of the image for a place in the window. `shift` is how far the VAPI is from where it would be behind
 * the library: 0 for a split library. Same input, same bytes. The plan must be free of refusals. *size bytes; the
 * caller frees them. */
uint8_t *image_file__make(const struct plan *p, vaddr_t base, uint64_t shift, size_t *size);
/* A page of the loaded library's code as it is with these jumps into an image at `base`: LLU_PAGE bytes. */
void image_file__entries(const struct elf_file *vapi, const struct entry_jump *jumps, size_t n, vaddr_t base,
			 uint64_t shift, vaddr_t page, uint8_t *out);
/* Where in the file page `i` of plan.pages lies. */
uint64_t image_file__page(const struct plan *p, size_t i);

/* Reads an image back: the build it was made from, as it was, and what is known of it. `data` is the
 * whole file. The caller frees both. ERR_UNREADABLE when it is no image or damaged. */
MUST_CHECK struct err *image_file__read(const uint8_t *data, size_t size, const char *path, struct elf_file **next,
					struct live_map *map);

/* Only where its objects live (plan.h, struct piece); none for most images. The caller frees *out. */
MUST_CHECK struct err *image_file__read_pieces(int fd, const char *path, struct piece **out, size_t *n);

/* One segment of the image, to be mapped. */
struct image_segment {
	uint64_t at;     /* from the image's base, page-aligned */
	uint64_t len;    /* whole pages */
	uint64_t offset; /* into the file, page-aligned */
	bool exec;
};
/* The non-writable segments of a build, up to `max`; returns how many. */
size_t image_file__segments(const struct elf_file *next, struct image_segment *out, size_t max);

#endif
