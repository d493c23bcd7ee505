/* Reading a relinked image: from memory, as an update reads the running one, and its pieces from a file, as it reads
 * older ones. Both are files of the process's own choice. */
#include "image/image_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "mutate.h"

enum { SEGMENTS_MAX = 16 };

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	struct dice d = dice__of(seed);
	return mutate__elf(data, size, max, &d);
}

static void read_pieces(const uint8_t *data, size_t size)
{
	struct piece *pieces = NULL;
	size_t n = 0;
	CLOSE_CLEANUP int fd = memfd_create("image", MFD_CLOEXEC);
	MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	ERR_CLEANUP struct err *failed = image_file__read_pieces(fd, "input", &pieces, &n);
	for (size_t i = 0; !failed && i < n; i++)
		MUST(pieces[i].len <= INT32_MAX && pieces[i].at <= INT32_MAX);
	free(pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	ELF_CLEANUP struct elf_file *e = NULL;
	struct live_map map = {0};
	struct image_segment segments[SEGMENTS_MAX];
	ERR_CLEANUP struct err *failed = image_file__read(data, size, "input", &e, &map);
	MUST(!failed == (e != NULL));
	if (e)
		(void)image_file__segments(e, segments, SEGMENTS_MAX);
	live_map__free(&map);
	read_pieces(data, size);
	return 0;
}
