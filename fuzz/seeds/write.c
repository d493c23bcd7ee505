/* Writes what only the engine makes: write OLD_SPLIT NEW IMAGE PLAN TABLE. IMAGE is the relinked image of the update,
 * PLAN its plan without head and checksum, TABLE the unwind table of the split library. */
#include <stdio.h>

#include "image/image_file.h"
#include "image/plan_file.h"

enum { HEAD_SIZE = 56, SUM_SIZE = 32 }; /* plan_file.c */

static void must(struct err *e)
{
	if (!e)
		return;
	fprintf(stderr, "%s\n", err__text(e));
	exit(1);
}

static void write_file(const char *path, const void *data, size_t size)
{
	FILE *f = fopen(path, "w");
	if (!f || fwrite(data, size, 1, f) != 1 || fclose(f) != 0) {
		perror(path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	const struct plan_key key = {{0}};
	struct elf_file *old, *new;
	struct plan *p;
	size_t size;
	if (argc != 6)
		return 2;
	must(elf_file__read(argv[1], &old));
	must(elf_file__read(argv[2], &new));
	must(plan__make(old, old, NULL, new, &p));
	if (p->refusals.n) {
		fprintf(stderr, "refused: %s\n", p->refusals.items[0].text);
		return 1;
	}
	uint8_t *image = image_file__make(p, old->vapi.window, 0, &size);
	write_file(argv[3], image, size);
	uint8_t *plan = plan_file__encode(p, &key, &size);
	write_file(argv[4], plan + HEAD_SIZE, size - HEAD_SIZE - SUM_SIZE);
	write_file(argv[5], elf_file__at(old, old->vapi.eh_frame_hdr, old->vapi.eh_frame_hdr_cap),
		   old->vapi.eh_frame_hdr_cap);
	free(image);
	free(plan);
	plan__free(p);
	elf_file__free(old);
	elf_file__free(new);
	return 0;
}
