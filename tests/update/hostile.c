/* Files made to do harm: libraries with damaged bytes everywhere a reader looks. Whatever is in the file,
 * llusplit ends with one of its exit codes and, when it fails, says why. A build with sanitizers sees more.
 *
 * The damage is the same in every run: it comes from a generator with a fixed seed. */
#include <criterion/criterion.h>
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scene.h"

TestSuite(hostile, .fini = support__teardown, .timeout = 300);

enum { RUNS = 150 };

static uint64_t random_next(uint64_t *state)
{
	/* xorshift64* */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717ull;
}

/* A value that a reader may stumble over. */
static uint64_t nasty(uint64_t *seed)
{
	static const uint64_t values[] = {0,
					  1,
					  7,
					  0x7f,
					  0xff,
					  0xfff,
					  0x1000,
					  0x7fffffff,
					  0x80000000,
					  0xffffffff,
					  0x100000000,
					  0x7fffffffffffffff,
					  0x8000000000000000,
					  0xfffffffffffff000,
					  0xffffffffffffffff};
	uint64_t r = random_next(seed);

	return r % 4 == 0 ? random_next(seed) : values[r / 4 % (sizeof(values) / sizeof(values[0]))];
}

/* What a reader interprets: the headers, and every section but code and plain data. */
struct part {
	size_t start, len;
};

static size_t parts_of(const char *image, struct part *parts, size_t max)
{
	Elf64_Ehdr eh;
	size_t n = 0;

	memcpy(&eh, image, sizeof(eh));
	parts[n++] = (struct part){0, sizeof(eh)};
	parts[n++] = (struct part){eh.e_phoff, (size_t)eh.e_phnum * sizeof(Elf64_Phdr)};
	parts[n++] = (struct part){eh.e_shoff, (size_t)eh.e_shnum * sizeof(Elf64_Shdr)};
	for (unsigned i = 1; i < eh.e_shnum && n < max; i++) {
		Elf64_Shdr sh;
		memcpy(&sh, image + eh.e_shoff + i * sizeof(sh), sizeof(sh));
		if (sh.sh_type != SHT_NOBITS && sh.sh_size && !(sh.sh_flags & SHF_EXECINSTR))
			parts[n++] = (struct part){sh.sh_offset, sh.sh_size};
	}
	return n;
}

/* `usage` too: a --like that is no longer a split library is a wrong argument. */
static void in_order(const char *const argv[], unsigned run, bool usage)
{
	struct result r = command__run(argv, 60);

	cr_assert(r.exit_code == 0 || r.exit_code == 3 || r.exit_code == 4 || (usage && r.exit_code == 2),
		  "run %u: %s ended with %d\n%s", run, argv[1], r.exit_code, r.err);
	cr_assert(r.exit_code == 0 || strlen(r.err) + strlen(r.out) > 10, "run %u: failed without a reason", run);
	result__free(&r);
}

static void damage_and_read(const char *variant, const char *library, bool split_first)
{
	const char *dir = temp_dir(), *good = fixture_library(variant, library), *old = path_of("%s/old", dir);
	const char *bad = path_of("%s/bad", dir), *out = path_of("%s/out", dir);
	struct part parts[64];
	uint64_t seed = 0x9e3779b97f4a7c15ull;

	llusplit(good, old, NULL);
	if (split_first)
		good = old;
	size_t size = file__size(good);
	int fd = open(good, O_RDONLY | O_CLOEXEC);
	char *image = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	cr_assert(image != MAP_FAILED);
	close(fd);
	size_t n_parts = parts_of(image, parts, 64);

	for (unsigned run = 0; run < RUNS; run++) {
		unlink(bad);
		file__write(bad, image, size);
		for (uint64_t changes = 1 + random_next(&seed) % 4; changes > 0; changes--) {
			const struct part *p = &parts[random_next(&seed) % n_parts];
			size_t width = (size_t)1 << random_next(&seed) % 4, at;
			uint64_t value = nasty(&seed);
			if (p->len < width)
				continue;
			at = random_next(&seed) % (p->len - width + 1);
			file__patch(bad, p->start + at - at % width, &value, width);
		}
		if (split_first) {
			in_order((const char *const[]){COMMAND_DIR "/llusplit", "--check", bad,
						       fixture_library("v2", library), NULL},
				 run, false);
			in_order((const char *const[]){COMMAND_DIR "/llusplit", fixture_library("v2", library), "-o",
						       out, "--like", bad, NULL},
				 run, true);
		} else {
			in_order((const char *const[]){COMMAND_DIR "/llusplit", bad, "-o", out, NULL}, run, false);
			in_order((const char *const[]){COMMAND_DIR "/llusplit", "--check", old, bad, NULL}, run, false);
		}
	}
	munmap(image, size);
}

Test(hostile, state)
{
	damage_and_read("v1", "libstate.so.1", false);
}

Test(hostile, state_with_emitted_relocations)
{
	damage_and_read("v1-emit", "libstate.so.1", false);
}

Test(hostile, state_with_packed_relative_relocations)
{
	damage_and_read("v1-relr", "libstate.so.1", false);
}

Test(hostile, cxx)
{
	damage_and_read("v1", "libthrowxx.so.1", false);
}

Test(hostile, split_library)
{
	damage_and_read("v1", "libstate.so.1", true);
}
