/* Real updates from the package archive, in real programs: liblzma and the three libraries of brotli in Debian's
 * python3, libpng in a C program, with objects open in mid-stream. tools/fetch-pair gets the builds; where the archive
 * offers only one (or cannot be reached and nothing is cached), the tests are skipped, and say so. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scene.h"

TestSuite(real_pairs, .fini = support__teardown, .timeout = 240);

struct pair {
	char old[512], new[512];
};

/* The two builds of a package's library; skips the test where there are none. */
static struct pair fetch(const char *package, const char *library)
{
	struct result r =
	    command__run((const char *const[]){SOURCE_DIR "/tools/fetch-pair", package, library, NULL}, 120);
	struct pair p;

	if (r.exit_code == 1)
		cr_skip_test("%s", r.err);
	cr_assert_eq(r.exit_code, 0, "fetch-pair %s: exit code %d\n%s", package, r.exit_code, r.err);
	cr_assert_eq(sscanf(r.out, "old %511s\nnew %511s\n", p.old, p.new), 2, "%s", r.out);
	result__free(&r);
	return p;
}

static void some_rounds(struct target *t, int n)
{
	for (int i = 0; i < n; i++)
		target__round(t);
}

/* Old to new to old, with rounds between. The builds of one upstream release name the same version, so
 * that what runs is seen from the report and the mappings. */
static void there_and_back(const char *library, const struct pair *p, const char *const argv[])
{
	struct scene s = scene__prepare(library, p->old, BY_RENAME);

	scene__start(&s, argv);
	some_rounds(s.target, 10);
	for (int i = 0; i < 2; i++) {
		scene__install_file(&s, i ? p->old : p->new);
		scene__update(&s);
		some_rounds(s.target, 20);
	}
	free(target__finish(s.target));
}

Test(real_pairs, liblzma_in_python)
{
	struct pair p = fetch("liblzma5", "liblzma.so.5");

	there_and_back("liblzma.so.5", &p,
		       (const char *const[]){"/usr/bin/python3", SOURCE_DIR "/fixtures/lzma_worker.py", NULL});
}

Test(real_pairs, libpng_in_a_c_program)
{
	struct pair p = fetch("libpng16-16", "libpng16.so.16");

	there_and_back("libpng16.so.16", &p, (const char *const[]){FIXTURE_DIR "/png_driver", NULL});
}

/* The update comes while the program works: rounds are waiting to be done when llvupdate begins. */
static void at_work(const char *library, const struct pair *p, const char *const argv[])
{
	enum { UPDATES = 8, ROUNDS = 40 };
	struct scene s = scene__prepare(library, p->old, BY_RENAME);

	scene__start(&s, argv);
	for (int i = 0; i < UPDATES; i++) {
		scene__install_file(&s, i % 2 ? p->old : p->new);
		for (int r = 0; r < ROUNDS; r++)
			target__say(s.target, "round");
		scene__update(&s);
		for (int r = 0; r < ROUNDS; r++) {
			const char *heard = target__hear(s.target);
			cr_assert(!strncmp(heard, "ok ", 3), "update %d: %s", i, heard);
		}
	}
	free(target__finish(s.target));
}

Test(real_pairs, liblzma_at_work)
{
	struct pair p = fetch("liblzma5", "liblzma.so.5");

	at_work("liblzma.so.5", &p,
		(const char *const[]){"/usr/bin/python3", SOURCE_DIR "/fixtures/lzma_worker.py", NULL});
}

Test(real_pairs, libpng_at_work)
{
	struct pair p = fetch("libpng16-16", "libpng16.so.16");

	at_work("libpng16.so.16", &p, (const char *const[]){FIXTURE_DIR "/png_driver", NULL});
}

/* Three libraries of one package: two need the third. They are updated as one, while rounds are waiting to be done.
 * (The gate does not let them back.) */
Test(real_pairs, brotli_in_python)
{
	enum { LIBRARIES = 3, WAITING = 30 };
	static const char *const names[LIBRARIES] = {"libbrotlicommon.so.1", "libbrotlidec.so.1", "libbrotlienc.so.1"};
	struct scene s[LIBRARIES];
	struct pair p[LIBRARIES];

	for (unsigned i = 0; i < LIBRARIES; i++) {
		p[i] = fetch("libbrotli1", names[i]);
		s[i] = (struct scene){
		    .dir = i ? s[0].dir : temp_dir(), .library = names[i], .how = BY_RENAME, .generation = i * 1000};
		scene__install_file(&s[i], p[i].old);
	}
	scene__start(&s[0], (const char *const[]){"/usr/bin/python3", SOURCE_DIR "/fixtures/brotli_worker.py", NULL});
	some_rounds(s[0].target, 7);
	for (int i = 0; i < LIBRARIES; i++)
		scene__install_file(&s[i], p[i].new);
	for (int i = 0; i < WAITING; i++)
		target__say(s[0].target, "round");
	scene__update(&s[0]); /* SUCCESS is that of the process: all three */
	for (int i = 0; i < WAITING; i++) {
		const char *heard = target__hear(s[0].target);
		cr_assert(!strncmp(heard, "ok ", 3), "%s", heard);
	}
	some_rounds(s[0].target, 12);
	free(target__finish(s[0].target));
}
