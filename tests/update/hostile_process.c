/* Processes that lie (fixtures/drivers/liar_driver.c): whatever they show, llvupdate ends soon, by itself, with a
 * sentence that a terminal can be shown; the memory that an update has no business with is as it was, and so are the
 * files, and a bystander that runs on the same library. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"

TestSuite(hostile_process, .fini = support__teardown, .timeout = 240);

/* LARGE: of sparse files, which are read. */
enum { SOON_S = 30, FLIP_MS = 1000, FLIP_RUNS = 5 };
#define LARGE ((size_t)256 << 20)

/* ---- what is looked at ---- */

/* Nothing in it that a terminal obeys. */
static void expect_harmless(const char *text)
{
	for (const char *c = text; *c; c++)
		cr_assert(((unsigned char)*c >= ' ' && *c != 0x7f) || *c == '\n', "byte %02x in:\n%s",
			  (unsigned char)*c, text);
	cr_assert(!strstr(text, "\302\233"), "a control character beyond ASCII in:\n%s", text);
}

static struct result run(const struct scene *s, const char *const extra[])
{
	const char *argv[16] = {COMMAND_DIR "/llvupdate",
				"-p",
				path_of("%d", target__pid(s->target)),
				"-l",
				path_of("%s/log", s->dir),
				"-n",
				"1",
				"-t",
				"1"};
	size_t n = 9;

	for (; extra && *extra; extra++)
		argv[n++] = *extra;
	struct result r = command__run(argv, SOON_S);
	cr_assert(r.exit_code >= 0 && r.exit_code <= 5 && r.exit_code != 2, "exit code %d\n%s%s", r.exit_code, r.out,
		  r.err);
	cr_assert(r.exit_code == 1 || strlen(r.out) + strlen(r.err) > 100, "no sentence:\n%s%s", r.out, r.err);
	expect_harmless(r.out);
	expect_harmless(r.err);
	return r;
}

struct stage {
	struct scene s; /* the liar's */
	struct target *bystander;
	const char *loaded; /* another name of the file that both have loaded */
	const char *file;   /* of the new build, which nobody may write to */
	struct stat before;
};

static struct stage begin(void)
{
	struct stage x = {.s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), BY_RENAME)};
	static const char *const liar[] = {FIXTURE_DIR "/liar_driver", NULL};

	scene__start(&x.s, liar);
	x.bystander = x.s.target;
	target__ask(x.bystander, "remember", "remembered");
	scene__start(&x.s, liar);
	target__rounds(x.s.target, 1, 1);
	x.file = path_of("%s/lib/libstate.so.1", x.s.dir);
	x.loaded = path_of("%s/loaded", x.s.dir);
	cr_assert_eq(link(x.file, x.loaded), 0);
	scene__install(&x.s, "v2");
	cr_assert_eq(stat(x.file, &x.before), 0);
	return x;
}

static void nobody_else_was_touched(const struct stage *x)
{
	struct stat now;

	target__ask(x->bystander, "compare", "same");
	target__rounds(x->bystander, 1, 1);
	target__ask(x->bystander, "remember", "remembered"); /* the round was no trespass */
	cr_assert_eq(stat(x->file, &now), 0);
	cr_assert(now.st_mtim.tv_sec == x->before.st_mtim.tv_sec && now.st_mtim.tv_nsec == x->before.st_mtim.tv_nsec &&
		      now.st_size == x->before.st_size && now.st_ino == x->before.st_ino,
		  "%s was written to", x->file);
}

/* No word of the truth is lost: the process can be updated as if it had never lied. */
static void ends_well(struct stage *x)
{
	struct result r = run(&x->s, NULL);

	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	target__rounds(x->s.target, 2, 2);
	nobody_else_was_touched(x);
	free(target__finish(x->s.target));
	free(target__finish(x->bystander));
}

/* One lie, told and taken back. `reason` (NULL: any) is in what llvupdate says, which must not be SUCCESS. */
static void refuse_lie(const struct stage *x, const char *what, const char *reason)
{
	target__ask(x->s.target, path_of("lie %s", what), "lied");
	target__ask(x->s.target, "remember", "remembered");
	struct result r = run(&x->s, NULL);
	cr_assert_eq(r.exit_code, 3, "%s: exit code %d\n%s%s", what, r.exit_code, r.out, r.err);
	cr_assert(!reason || text__has(r.out, reason), "%s: no word of '%s' in:\n%s%s", what, reason, r.out, r.err);
	result__free(&r);
	target__ask(x->s.target, "compare", "same");
	target__ask(x->s.target, "truth", "truth");
	target__rounds(x->s.target, 1, 1);
	nobody_else_was_touched(x);
}

/* One that is none of the update's business, or that the process alone suffers from: it may succeed. */
static void survive_lie(const struct stage *x, const char *what)
{
	target__ask(x->s.target, path_of("lie %s", what), "lied");
	target__ask(x->s.target, "remember", "remembered");
	struct result r = run(&x->s, (const char *const[]){"--require-proof", NULL}); /* looks, and refuses then */
	cr_assert_eq(r.exit_code, 3, "%s: exit code %d\n%s%s", what, r.exit_code, r.out, r.err);
	result__free(&r);
	target__ask(x->s.target, "compare", "same");
	target__ask(x->s.target, "truth", "truth");
	nobody_else_was_touched(x);
}

/* ---- memory ---- */

Test(hostile_process, link_map)
{
	struct stage x = begin();

	survive_lie(&x, "map_loops");
	survive_lie(&x, "map_ends_nowhere");
	survive_lie(&x, "map_is_long");
	survive_lie(&x, "map_repeats");
	survive_lie(&x, "name_is_nowhere");
	survive_lie(&x, "name_has_no_end");
	survive_lie(&x, "name_is_huge");
	survive_lie(&x, "name_has_escapes");
	survive_lie(&x, "name_is /proc/self/mem");
	survive_lie(&x, "name_is /dev/zero");
	survive_lie(&x, "name_is /../../../../../../../dev/kmsg");
	survive_lie(&x, "debug_leads_nowhere");
	survive_lie(&x, "namespaces_loop");
	ends_well(&x);
}

Test(hostile_process, header)
{
	struct stage x = begin();

	refuse_lie(&x, "header_is_noise", "header of the VAPI is damaged");
	refuse_lie(&x, "header_names_no_image 1", "header of the VAPI is damaged");
	refuse_lie(&x, "header_names_no_image 25", "header of the VAPI is damaged");
	refuse_lie(&x, "header_names_no_image 0xffffffffffffffff", "header of the VAPI is damaged");
	refuse_lie(&x, "image_behind_the_window", "header of the VAPI is damaged");
	refuse_lie(&x, "image_before_the_window", "header of the VAPI is damaged");
	refuse_lie(&x, "image_wraps_around", "header of the VAPI is damaged");
	refuse_lie(&x, "image_between_pages", "header of the VAPI is damaged");
	refuse_lie(&x, "build_id_is_long", "header of the VAPI is damaged");
	refuse_lie(&x, "image_is_not_mapped", "image that the header names is not mapped");
	refuse_lie(&x, "images_overlap", "not mapped|overlap|damaged");
	ends_well(&x);
}

Test(hostile_process, table_and_pads)
{
	struct stage x = begin();

	refuse_lie(&x, "table_leads_nowhere", "table of the VAPI leads to unknown code");
	refuse_lie(&x, "table_leads_to_memory", "table of the VAPI leads to unknown code");
	refuse_lie(&x, "pads_are_no_pads", "not where its file says");
	ends_well(&x);
}

/* Each is for good: a new liar for each. */
Test(hostile_process, window)
{
	static const struct {
		const char *lie, *reason;
	} lies[] = {
	    {"window_holds_something", "does not fit into what is free of the window"},
	    {"window_is_gone", "does not fit into what is free of the window"},
	    {"header_is_gone", "not where its file says|cannot be read"},
	    {"scratch_is_gone", "not where its file says"},
	};

	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct stage x = begin();
		refuse_lie(&x, lies[i].lie, lies[i].reason);
		support__teardown();
	}
}

/* Files in the window that the header calls the running image. */
Test(hostile_process, running_image)
{
	const char *dir = temp_dir(), *empty = path_of("%s/image", dir), *big = path_of("%s/big", dir);
	char page[4096] = "\177ELF";

	file__write(empty, page, sizeof(page));
	file__write(big, page, sizeof(page));
	file__truncate(big, LARGE);
	const char *const files[] = {empty, big, fixture_library("v2", "libstate.so.1"), "/etc/passwd"};
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		struct stage x = begin();
		refuse_lie(&x, path_of("image_is_file %s", files[i]), "no relinked image, or a damaged one");
		targets__kill_all();
	}
}

/* ---- what changes under the reader ---- */

static bool is_over(int64_t end, unsigned runs)
{
	return support__now_ms() >= end && runs >= FLIP_RUNS;
}

/* A liar that changes `what` all the time may ruin itself, and nobody else. */
static void flip(const char *what, bool touch)
{
	struct stage x = begin();
	int64_t end = support__now_ms() + FLIP_MS;
	unsigned runs = 0, sane = 0;

	target__ask(x.s.target, path_of("flip %s", what), "flipping");
	for (; !is_over(end, runs); runs++) {
		static const char *const look[] = {"--require-proof", NULL};
		struct result r = run(&x.s, touch ? NULL : look);
		sane += r.exit_code == 3 || r.exit_code == 0 || (touch && r.exit_code == 4); /* it ended */
		result__free(&r);
		if (!target__alive(x.s.target)) {
			cr_assert(touch, "%s: the process died of being looked at", what);
			nobody_else_was_touched(&x);
			targets__kill_all();
			x = begin(); /* another one would load the new build */
			target__ask(x.s.target, path_of("flip %s", what), "flipping");
		}
	}
	cr_assert(sane > 0, "%s: not one of %u runs came to its end in order", what, runs);
	nobody_else_was_touched(&x);
	if (!touch) {
		target__ask(x.s.target, "truth", "truth");
		ends_well(&x);
	}
}

Test(hostile_process, header_changes)
{
	flip("header", false);
	flip("header", true);
}

Test(hostile_process, table_changes)
{
	flip("table", false);
	flip("table", true);
}

Test(hostile_process, link_map_changes)
{
	flip("map", false);
}

Test(hostile_process, mappings_change)
{
	flip("mappings", false);
	flip("mappings", true);
}

Test(hostile_process, pads_change)
{
	flip("pads", false);
}

/* ---- files ---- */

/* The name of the library is by turns the new build, a FIFO, devices, a loop. */
Test(hostile_process, file_changes)
{
	struct stage x = begin();
	int64_t end = support__now_ms() + FLIP_MS;
	unsigned runs = 0;

	cr_assert_eq(link(x.file, path_of("%s.good", x.file)), 0);
	target__ask(x.s.target, path_of("flip path %s", x.file), "flipping");
	target__ask(x.s.target, "remember", "remembered");
	for (; !is_over(end, runs); runs++) {
		struct result r = run(&x.s, (const char *const[]){"--require-proof", NULL});
		result__free(&r);
	}
	target__ask(x.s.target, "compare", "same");
	target__ask(x.s.target, "truth", "truth");
	target__ask(x.bystander, "compare", "same");
	struct result r = run(&x.s, NULL);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	target__rounds(x.s.target, 1, 2);
}

static void make_directory(const char *path)
{
	cr_assert_eq(mkdir(path, 0755), 0);
}

static void make_fifo(const char *path)
{
	cr_assert_eq(mkfifo(path, 0644), 0);
}

static void make_loop(const char *path)
{
	cr_assert_eq(symlink(path, path), 0);
}

static void make_device(const char *path)
{
	cr_assert_eq(symlink("/dev/zero", path), 0);
}

static void make_huge(const char *path)
{
	file__write(path, "\177ELF", 4);
	file__truncate(path, (size_t)64 << 30);
}

static void make_sparse(const char *path)
{
	file__write(path, "\177ELF", 4);
	file__truncate(path, LARGE);
}

Test(hostile_process, file_is_none)
{
	static void (*const make[])(const char *) = {make_directory, make_fifo, make_loop,
						     make_device,    make_huge, make_sparse};
	struct stage x = begin();

	target__ask(x.s.target, "remember", "remembered");
	for (size_t i = 0; i < sizeof(make) / sizeof(make[0]); i++) {
		cr_assert(rename(x.file, path_of("%s.%zu", x.file, i)) == 0);
		make[i](x.file);
		struct result r = run(&x.s, NULL);
		/* what is no file counts as none, and then there is nothing to do */
		cr_assert(r.exit_code == 3 || r.exit_code == 1, "%zu: exit code %d\n%s%s", i, r.exit_code, r.out,
			  r.err);
		result__free(&r);
		target__ask(x.s.target, "compare", "same");
		target__ask(x.bystander, "compare", "same");
	}
}

/* A file that looks like a split library is not one as long as nothing of it is code in the process: whoever can make
 * a process map a file must not be able to keep it from being updated. */
Test(hostile_process, file_that_is_only_read)
{
	struct stage x = begin();
	const char *fake = path_of("%s/fake", x.s.dir);
	char junk[4096];

	file__copy(x.file, fake);
	memset(junk, 0xa5, sizeof(junk));
	for (size_t at = 4096; at + sizeof(junk) <= file__size(fake); at += sizeof(junk))
		file__patch(fake, at, junk, sizeof(junk));
	target__ask(x.s.target, path_of("lie maps_file %s", fake), "lied");
	target__ask(x.s.target, path_of("lie maps_file %s", x.file), "lied");
	target__ask(x.s.target, path_of("lie maps_file %s", x.loaded), "lied");
	ends_well(&x);
}

/* ---- names and numbers ---- */

/* Names that are commands for a terminal, or lines of a report that nobody wrote. */
Test(hostile_process, names)
{
	const char *dir = path_of("%s/\033[2J\n4711 init SUCCESS\302\233", temp_dir());
	const char *tool[] = {COMMAND_DIR "/procmap", NULL, NULL};

	cr_assert_eq(mkdir(dir, 0755), 0, "%s", strerror(errno));
	llusplit(fixture_library("v1", "libstate.so.1"), path_of("%s/libstate.so.1", dir), NULL);
	const char *env[] = {path_of("LD_LIBRARY_PATH=%s", dir), NULL};
	struct scene s = {.dir = temp_dir()};
	s.target = target__start((const char *const[]){FIXTURE_DIR "/liar_driver", NULL}, env);
	target__expect(s.target, "ready");
	target__ask(s.target, "lie name_is_forged", "lied");
	llusplit(fixture_library("v2", "libstate.so.1"), path_of("%s/new", dir), NULL);
	cr_assert_eq(rename(path_of("%s/new", dir), path_of("%s/libstate.so.1", dir)), 0);
	tool[1] = path_of("%d", target__pid(s.target));
	struct result r = command__run(tool, SOON_S);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	expect_harmless(r.out);
	cr_assert(text__has(r.out, "4711 init SUCCESS"), "%s", r.out);
	result__free(&r);
	r = run(&s, (const char *const[]){"--require-proof", NULL});
	cr_assert(!text__has(r.out, "(^|\n)4711 ") && text__has(r.out, "4711_init_SUCCESS"), "%s", r.out);
	result__free(&r);
	r = run(&s, NULL);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(!text__has(r.out, "(^|\n)4711 "), "%s", r.out);
	result__free(&r);
	target__rounds(s.target, 1, 2);
	free(target__finish(s.target));
}

Test(hostile_process, thousands_of_mappings)
{
	struct stage x = begin();

	/* each begins like a split library, and must be looked at */
	target__ask(x.s.target, path_of("lie maps_thousands %s", x.file), "lied");
	struct result r = run(&x.s, NULL);
	cr_assert(r.exit_code == 0 || r.exit_code == 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	target__rounds(x.s.target, 1, r.exit_code == 0 ? 2 : 1);
	result__free(&r);
	nobody_else_was_touched(&x);
}

Test(hostile_process, thousands_of_threads)
{
	struct stage x = begin();

	target__ask(x.s.target, "lie has_thousands_of_threads", "lied");
	struct result r = run(&x.s, NULL);
	cr_assert(r.exit_code == 0 || r.exit_code == 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	target__rounds(x.s.target, 1, r.exit_code == 0 ? 2 : 1);
	result__free(&r);
	nobody_else_was_touched(&x);
}
