/* Times one plan, in milliseconds: made, read from the store, found in memory; and what a look into the cache
 * consists of. OLD is split first.   plan OLD NEW FOLDER REPETITIONS */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "image/plan_file.h"
#include "image/types.h"
#include "remap/plan_cache.h"

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void must(struct err *e)
{
	if (!e)
		return;
	fprintf(stderr, "%s\n", err__text(e));
	exit(1);
}

static struct elf_file *read_split(const char *path)
{
	struct elf_file *e, *out;
	struct split_options opt = {0};
	uint8_t *bytes;
	size_t size;
	must(elf_file__read(path, &e));
	must(split__make(e, &opt, &bytes, &size));
	must(elf_file__read_memory(bytes, size, path, &out));
	free(bytes);
	elf_file__free(e);
	return out;
}

static void plan(const char *what, struct plan_cache *c, const struct elf_file *old, const struct elf_file *new,
		 bool expected)
{
	struct plan *p;
	bool cached;
	double start = now_ms();
	must(plan_cache__plan(c, old, old, NULL, new, &p, &cached));
	printf("%s %.3f\n", what, now_ms() - start);
	if (cached != expected)
		exit(1);
	plan__free(p);
}

/* Hashing both files and the rest, and looking for debug information. */
static void parts(const struct elf_file *old, const struct elf_file *new)
{
	double start = now_ms();
	char *a = types__stamp(old), *b = types__stamp(new);
	printf("stamp %.3f\n", now_ms() - start);
	start = now_ms();
	plan_key__make(&(struct plan_inputs){
	    .vapi = old, .live = old, .next = new, .live_debug = a, .next_debug = b, .maker = ""});
	printf("key %.3f\n", now_ms() - start);
	free(a);
	free(b);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	struct elf_file *old = read_split(argv[1]), *new = read_split(argv[2]);
	for (int i = 0; i < atoi(argv[4]); i++) {
		char *folder = xasprintf("%s/%d", argv[3], i);
		struct plan_cache *first = plan_cache__open(folder), *second = plan_cache__open(folder);
		plan("made", first, old, new, false);
		plan("stored", second, old, new, true);
		plan("remembered", second, old, new, true);
		parts(old, new);
		plan_cache__close(first);
		plan_cache__close(second);
		free(folder);
	}
	elf_file__free(old);
	elf_file__free(new);
	return 0;
}
