/* New files that must be refused: the reason is said, the process is untouched and works on, and a good
 * build is taken afterwards. The same files through llusplit and llusplit --check. */
#include <criterion/criterion.h>
#include <elf.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "scene.h"

TestSuite(bad_input, .fini = support__teardown);

/* The process still runs version 1 after the refusal, and a good build goes in. */
static void still_well(struct scene *s, const char *good)
{
	target__rounds(s->target, 3, 1);
	scene__install(s, good);
	scene__update(s);
	target__rounds(s->target, 3, 2);
	free(target__finish(s->target));
}

/* What llusplit --check says of a pair, and its exit code. */
static void check_says(const char *old, const char *next, int exit_code, const char *reason)
{
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llusplit", "--check", old, next, NULL}, 60);

	cr_assert_eq(r.exit_code, exit_code, "%s, %s: exit code %d\n%s%s", old, next, r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, reason), "%s, %s: no word of '%s' in:\n%s%s", old, next, reason, r.out, r.err);
	result__free(&r);
}

/* A build of fixtures/lib/VARIANT is refused for `reason`, plain in place and by --check; then `good` is taken. */
static void refuse_build(const char *name, const char *old, const char *bad, const char *good, const char *reason)
{
	struct scene s = scene__begin(name, old);

	target__rounds(s.target, 2, 1);
	scene__install_raw(&s, fixture_library(bad, s.library));
	scene__refuse(&s, reason);
	check_says(s.first, fixture_library(bad, s.library), 3, reason);
	still_well(&s, good);
}

Test(bad_input, data_layout)
{
	refuse_build("state", "v1", "bad-data", "v2", "\\.data");
}

Test(bad_input, bss_layout)
{
	refuse_build("state", "v1", "bad-bss", "v2", "\\.bss");
}

Test(bad_input, tls_layout)
{
	refuse_build("tls", "v1", "bad-tls", "v2", "TLS|\\.tdata|thread-local");
}

Test(bad_input, tls_variables_that_changed_places)
{
	static const char *const models[] = {"", "-gnu2", "-ie"};
	for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++)
		check_says(fixture_library(path_of("tls-order-1%s", models[i]), "libtlsorder.so.1"),
			   fixture_library(path_of("tls-order-2%s", models[i]), "libtlsorder.so.1"), 3,
			   "uses another thread-local variable|lies elsewhere");
}

/* Whoever has kept the table's address would come to code that is gone. */
Test(bad_input, distances_to_functions)
{
	check_says(fixture_library("distances-1", "libdistances.so.1"),
		   fixture_library("distances-2", "libdistances.so.1"), 3,
		   "of the old build seems to lead to told_by_distance by its distance");
}

/* Somebody has kept addresses of functions that must not become another's. */
Test(bad_input, functions_known_by_their_address)
{
	static const struct {
		const char *kind, *reason;
	} pairs[] = {
	    {"swapped", "takes the address of .*, which took over from another function"},
	    {"folded", "takes the address of .*, which took over from another function"},
	    {"bare", "the address of bytes among the code, at 0x[0-9a-f]+ of the new build, is taken; they changed"},
	};
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		check_says(fixture_library(path_of("%s-1", pairs[i].kind), "libkept.so.1"),
			   fixture_library(path_of("%s-2", pairs[i].kind), "libkept.so.1"), 3, pairs[i].reason);
}

/* Somebody has kept it, and it is no longer the same. */
Test(bad_input, changed_constant_that_is_compared)
{
	static const char *const kinds[] = {"default", "fallback"};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		check_says(fixture_library(path_of("%s-1", kinds[i]), "libkept.so.1"),
			   fixture_library(path_of("%s-2", kinds[i]), "libkept.so.1"), 3,
			   "the address of a constant at .* is compared with others");
}

Test(bad_input, variables_that_only_changed_code_uses)
{
	check_says(fixture_library("places-1", "libkept.so.1"), fixture_library("places-2", "libkept.so.1"), 3,
		   "uses other data than in the old build .*, and nothing shows that it is another variable");
}

Test(bad_input, missing_export)
{
	refuse_build("state", "v1", "bad-export", "v2", "state_cell_index");
}

Test(bad_input, import_that_nothing_provides)
{
	struct scene s = scene__begin("imports", "v1");

	/* Only the process can tell what it has loaded: the plan alone may find no fault. */
	target__rounds(s.target, 2, 1);
	scene__install_raw(&s, fixture_library("bad-import", s.library));
	scene__refuse(&s, "nobody_provides_this");
	still_well(&s, "v2");
}

Test(bad_input, text_relocations)
{
	refuse_build("state", "v1", "bad-textrel", "v2", "[Tt]ext relocation|TEXTREL");
}

Test(bad_input, code_that_nobody_can_read)
{
	refuse_build("state", "v1-padded", "bad-garbage", "v2-padded", "decode|no known code");
}

Test(bad_input, new_constructor)
{
	struct scene s = scene__begin("plug", "v1");

	target__ask(s.target, "open", "opened");
	target__rounds(s.target, 2, 1);
	scene__install_raw(&s, fixture_library("bad-constructor", s.library));
	scene__refuse(&s, "constructor|init_array");
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

Test(bad_input, does_not_fit_the_window)
{
	struct scene s = scene__begin("callback", "v1");

	target__rounds(s.target, 2, 1);
	scene__install_raw(&s, fixture_library("bad-big", s.library));
	scene__refuse(&s, "window");
	still_well(&s, "v2");
}

/* Code asks whether an address is a table's, and nothing says whether the table is one that changed. */
Test(bad_input, constant_whose_identity_matters)
{
	struct scene s = scene__begin("tables", "v1-compared");

	target__rounds(s.target, 2, 1);
	scene__install(&s, "bad-compared");
	scene__refuse(&s, "address of a constant at 0x[0-9a-f]+ of the new build is compared");
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

Test(bad_input, other_soname)
{
	refuse_build("state", "v1", "bad-soname", "v2", "libother\\.so\\.1");
}

Test(bad_input, another_library)
{
	struct scene s = scene__begin("state", "v1");

	scene__install_raw(&s, fixture_library("v2", "libtls.so.1"));
	scene__refuse(&s, "libtls\\.so\\.1");
	still_well(&s, "v2");
}

/* A file that is a damaged v2. */
struct damage {
	size_t offset;
	const char *bytes;
	size_t n_bytes;
	size_t keep; /* truncate to this many bytes, unless 0 */
	const char *reason;
};

static void refuse_damaged(const struct damage *d)
{
	struct scene s = scene__begin("state", "v1");
	const char *bad = path_of("%s/damaged", s.dir);

	file__copy(fixture_library("v2", s.library), bad);
	if (d->n_bytes)
		file__patch(bad, d->offset, d->bytes, d->n_bytes);
	if (d->keep)
		file__truncate(bad, d->keep);

	target__rounds(s.target, 2, 1);
	scene__install_raw(&s, bad);
	scene__refuse(&s, d->reason);

	struct result r =
	    command__run((const char *const[]){COMMAND_DIR "/llusplit", "--check", s.first, bad, NULL}, 60);
	cr_assert(r.exit_code == 3 || r.exit_code == 4, "llusplit --check: exit code %d\n%s%s", r.exit_code, r.out,
		  r.err);
	cr_assert(text__has(r.out, d->reason) || text__has(r.err, d->reason), "no word of '%s' in:\n%s%s", d->reason,
		  r.out, r.err);
	result__free(&r);

	const char *out = path_of("%s/out", s.dir);
	r = command__run((const char *const[]){COMMAND_DIR "/llusplit", bad, "-o", out, NULL}, 60);
	cr_assert(r.exit_code == 3 || r.exit_code == 4, "llusplit: exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.err, d->reason), "no word of '%s' in:\n%s", d->reason, r.err);
	result__free(&r);
	still_well(&s, "v2");
}

Test(bad_input, not_elf)
{
	refuse_damaged(&(struct damage){.bytes = "#!/bin/sh\n", .n_bytes = 10, .reason = "ELF"});
}

Test(bad_input, header_of_32_bits)
{
	refuse_damaged(&(struct damage){
	    .offset = EI_CLASS, .bytes = (char[]){ELFCLASS32}, .n_bytes = 1, .reason = "64-bit|32-bit|class"});
}

Test(bad_input, another_machine)
{
	refuse_damaged(&(struct damage){.offset = offsetof(Elf64_Ehdr, e_machine),
					.bytes = (char[]){(char)EM_AARCH64, 0},
					.n_bytes = 2,
					.reason = "machine|x86-64|AArch64"});
}

Test(bad_input, truncated)
{
	refuse_damaged(&(struct damage){.keep = 5000, .reason = "truncated|beyond|outside|past|end"});
}

Test(bad_input, truncated_within_the_header)
{
	refuse_damaged(&(struct damage){.keep = 40, .reason = "ELF|truncated|short"});
}

/* Cut off at every kilobyte: whatever is missing, the answer is a reason, never a crash or success. */
Test(bad_input, truncated_anywhere, .timeout = 120)
{
	const char *dir = temp_dir(), *whole = fixture_library("v2", "libstate.so.1"), *old = path_of("%s/old", dir);
	size_t size = file__size(whole);
	const char *out = path_of("%s/out", dir), *bad = path_of("%s/bad", dir);

	llusplit(fixture_library("v1", "libstate.so.1"), old, NULL);
	file__copy(whole, bad);
	for (size_t keep = size - size % 1024; keep > 0; keep -= 1024) {
		file__truncate(bad, keep);
		struct result r =
		    command__run((const char *const[]){COMMAND_DIR "/llusplit", bad, "-o", out, NULL}, 60);
		cr_assert(r.exit_code == 3 || r.exit_code == 4, "%zu bytes: exit code %d\n%s", keep, r.exit_code,
			  r.err);
		cr_assert(strlen(r.err) > 10, "%zu bytes: no reason", keep);
		result__free(&r);
		r = command__run((const char *const[]){COMMAND_DIR "/llusplit", "--check", old, bad, NULL}, 60);
		cr_assert(r.exit_code == 3 || r.exit_code == 4, "%zu bytes: exit code %d\n%s", keep, r.exit_code,
			  r.err);
		result__free(&r);
	}
}

Test(bad_input, static_program_in_place)
{
	struct scene s = scene__begin("state", "v1");

	scene__install_raw(&s, FIXTURE_DIR "/static_program");
	scene__refuse(&s, "static|dynamic|shared (object|library)");
	still_well(&s, "v2");
}

/* ---- llusplit alone ---- */

static void split_fails(const char *in, int exit_code, const char *reason)
{
	const char *out = path_of("%s/out", temp_dir());
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llusplit", in, "-o", out, NULL}, 60);

	cr_assert_eq(r.exit_code, exit_code, "llusplit %s: exit code %d\n%s", in, r.exit_code, r.err);
	cr_assert(text__has(r.err, reason), "no word of '%s' in:\n%s", reason, r.err);
	result__free(&r);
	struct result ls = command__run((const char *const[]){"ls", out, NULL}, 10);
	cr_assert_neq(ls.exit_code, 0, "llusplit failed and left a file");
	result__free(&ls);
}

Test(bad_input, large_code_model)
{
	split_fails(fixture_library("large-1", "libkept.so.1"), 3, "forms addresses by 64-bit distances");
}

Test(bad_input, split_static_program)
{
	split_fails(FIXTURE_DIR "/static_program", 3, "static|dynamic|shared (object|library)");
}

Test(bad_input, split_twice)
{
	const char *once = path_of("%s/once", temp_dir());

	llusplit(fixture_library("v1", "libstate.so.1"), once, NULL);
	split_fails(once, 3, "already");
}

Test(bad_input, split_nothing)
{
	split_fails("/nonexistent/lib.so", 4, "No such file");
}

Test(bad_input, split_directory)
{
	split_fails("/tmp", 4, "directory|regular file");
}

Test(bad_input, split_text_relocations)
{
	split_fails(fixture_library("bad-textrel", "libstate.so.1"), 3, "[Tt]ext relocation|TEXTREL");
}

Test(bad_input, split_code_that_nobody_can_read)
{
	split_fails(fixture_library("bad-garbage", "libstate.so.1"), 3, "decode|no known code");
}

Test(bad_input, split_usage)
{
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llusplit", "--no-such-option", NULL}, 10);

	cr_assert_eq(r.exit_code, 2);
	cr_assert(text__has(r.err, "llusplit"), "%s", r.err);
	result__free(&r);
	r = command__run((const char *const[]){COMMAND_DIR "/llusplit", NULL}, 10);
	cr_assert_eq(r.exit_code, 2);
	result__free(&r);
}

Test(bad_input, check_of_a_fit_pair)
{
	check_says(fixture_library("v1", "libstate.so.1"), fixture_library("v2", "libstate.so.1"), 0, "\nFIT\n");
}

/* The same input gives the same bytes, with --like and without. */
Test(bad_input, split_is_deterministic)
{
	const char *dir = temp_dir(), *v1 = fixture_library("v1", "libstate.so.1");
	const char *v2 = fixture_library("v2", "libstate.so.1");

	llusplit(v1, path_of("%s/1a", dir), NULL);
	llusplit(v1, path_of("%s/1b", dir), NULL);
	llusplit(v2, path_of("%s/2a", dir), path_of("%s/1a", dir));
	llusplit(v2, path_of("%s/2b", dir), path_of("%s/1b", dir));
	for (int i = 1; i <= 2; i++) {
		struct result r = command__run(
		    (const char *const[]){"cmp", path_of("%s/%da", dir, i), path_of("%s/%db", dir, i), NULL}, 10);
		cr_assert_eq(r.exit_code, 0, "%s", r.out);
		result__free(&r);
	}
}
