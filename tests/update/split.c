/* llusplit: programs run on split libraries as on plain ones, and the tools of the trade read them. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"

TestSuite(split, .fini = support__teardown);

/* Each version of a variant, split alone: twenty rounds. */
static void run_split(const char *name, const char *variant)
{
	for (int version = 1; version <= 3; version++) {
		struct scene s = scene__begin(name, path_of("v%d%s", version, variant));
		target__rounds(s.target, 20, version);
		free(target__finish(s.target));
	}
}

Test(split, state)
{
	static const char *const variants[] = {"",     "-stripped", "-emit", "-relr", "-debug",
					       "-now", "-cet",      "-O0",   "-Os",   "-padded"};

	for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++)
		run_split("state", variants[i]);
	if (__builtin_cpu_supports("avx2"))
		run_split("state", "-O3");
}

Test(split, built_by_clang)
{
	if (access(FIXTURE_DIR "/lib/v1-clang", F_OK) != 0)
		cr_skip_test("clang is not installed");
	static const char *const names[] = {"state", "tls", "ifunc", "callback", "labels"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		run_split(names[i], "-clang");
}

Test(split, thread_local_storage)
{
	run_split("tls", "");
	run_split("tls", "-ie");
	run_split("tls", "-gnu2");
	run_split("tls", "-emit");
}

Test(split, symbols)
{
	run_split("ifunc", "");
	run_split("ifunc", "-now");
	run_split("symver", "");
	run_split("copy", "");
	run_split("imports", "-now");
}

Test(split, control_flow)
{
	run_split("labels", "");
	run_split("callback", "");
}

Test(split, lazy_binding)
{
	for (int version = 1; version <= 3; version++) {
		struct scene s = scene__begin("imports", path_of("v%d", version));
		target__rounds(s.target, 2, version);
		target__ask(s.target, "late", "late ok");
		target__rounds(s.target, 2, version);
		free(target__finish(s.target));
	}
}

Test(split, exceptions)
{
	struct scene c = scene__prepare("libthrow.so.1", fixture_library("v2", "libthrow.so.1"), BY_RENAME);
	struct scene cxx = scene__prepare("libthrowxx.so.1", fixture_library("v2", "libthrowxx.so.1"), BY_RENAME);
	const char *env[] = {path_of("LD_LIBRARY_PATH=%s/lib:%s/lib", c.dir, cxx.dir), NULL};
	struct target *t = target__start((const char *const[]){FIXTURE_DIR "/throw_driver", NULL}, env);

	target__expect(t, "ready");
	target__ask(t, "keep", "keeping");
	target__rounds(t, 5, 2);
	target__ask(t, "kept", "kept ok");
	free(target__finish(t));
}

/* Constructors and destructors run once each, in order, at dlclose and at exit. */
Test(split, loading_and_unloading)
{
	struct scene s = scene__begin("plug", "v1");
	struct map maps[1];

	target__ask(s.target, "open", "opened");
	target__rounds(s.target, 2, 1);
	target__ask(s.target, "close", "fini destructor-2 version=1");
	target__expect(s.target, "fini destructor-1 version=1");
	target__expect(s.target, "fini dt-fini version=1");
	target__expect(s.target, "closed");
	cr_assert_eq(maps__find(target__pid(s.target), s.dir, maps, 1), 0, "dlclose left %s mapped", maps[0].path);
	target__ask(s.target, "open", "opened");
	target__ask(s.target, "atexit", "registered");
	target__rounds(s.target, 2, 1);
	char *last = target__finish(s.target);
	cr_assert_str_eq(last, "fini atexit version=1\nfini destructor-2 version=1\nfini destructor-1 version=1\n"
			       "fini dt-fini version=1\n");
	free(last);
}

/* Libraries of the distribution, split together with the C library, under a program that uses them all. */
Test(split, stock_libraries, .timeout = 120)
{
	static const char *const names[] = {"libc.so.6",       "libm.so.6",      "libz.so.1",   "liblzma.so.5",
					    "libbz2.so.1.0",   "libcrypto.so.3", "libssl.so.3", "libexpat.so.1",
					    "libsqlite3.so.0", "libuuid.so.1",   "libffi.so.8", "libgcc_s.so.1"};
	const char *dir = temp_dir();
	size_t found = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *stock = path_of("/lib/x86_64-linux-gnu/%s", names[i]);
		if (access(stock, R_OK) != 0)
			continue;
		llusplit(stock, path_of("%s/%s", dir, names[i]), NULL);
		found++;
	}
	cr_assert_geq(found, 4, "no stock libraries");
	const char *env[] = {path_of("LD_LIBRARY_PATH=%s", dir), NULL};
	struct target *t =
	    target__start((const char *const[]){"/usr/bin/python3", SOURCE_DIR "/fixtures/stock_worker.py", NULL}, env);
	target__expect(t, "ok");
	free(target__finish(t));
}

/* ---- other tools ---- */

/* `command FILE` (through a shell) succeeds and has nothing to complain of. */
static void tool_is_happy(const char *command, const char *file)
{
	struct result r =
	    command__run((const char *const[]){"sh", "-c", path_of("%s %s >/dev/null", command, file), NULL}, 60);

	cr_assert_eq(r.exit_code, 0, "%s: exit code %d\n%s", command, r.exit_code, r.err);
	cr_assert_str_eq(r.err, "", "%s: %s", command, r.err);
	result__free(&r);
}

Test(split, binutils_read_it)
{
	static const char *const libraries[][2] = {{"v1", "libstate.so.1"},      {"v1-emit", "libstate.so.1"},
						   {"v1-relr", "libstate.so.1"}, {"v1-debug", "libstate.so.1"},
						   {"v1", "libthrowxx.so.1"},    {"v1", "libsymver.so.1"},
						   {"v1", "libifunc.so.1"},      {"v1", "libtls.so.1"}};
	const char *dir = temp_dir();

	for (size_t i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++) {
		const char *out = path_of("%s/%zu", dir, i);
		llusplit(fixture_library(libraries[i][0], libraries[i][1]), out, NULL);
		tool_is_happy("readelf -aW", out);
		tool_is_happy("readelf --debug-dump=frames", out);
		tool_is_happy("objdump -dTR", out);
	}
}

/* dh_strip and others run strip over every library; what they make of it still works, and is updatable. */
Test(split, strip_leaves_it_working)
{
	struct scene s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), BY_RENAME);
	const char *installed = path_of("%s/lib/libstate.so.1", s.dir);

	tool_is_happy("strip", installed);
	scene__start(&s, (const char *const[]){FIXTURE_DIR "/state_driver", NULL});
	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2");
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* The file's mode is kept, and a failure leaves what was there. */
Test(split, output_file)
{
	const char *dir = temp_dir(), *out = path_of("%s/out", dir);
	struct stat st;

	file__write(out, "precious", 8);
	struct result r =
	    command__run((const char *const[]){COMMAND_DIR "/llusplit", "/dev/null", "-o", out, NULL}, 60);
	cr_assert_eq(r.exit_code, 4, "exit code %d\n%s", r.exit_code, r.err);
	result__free(&r);
	cr_assert_eq(file__size(out), 8);
	cr_assert(stat(fixture_library("v1", "libstate.so.1"), &st) == 0);
	mode_t mode = st.st_mode;
	llusplit(fixture_library("v1", "libstate.so.1"), out, NULL);
	cr_assert(stat(out, &st) == 0 && st.st_mode == mode, "mode %o", st.st_mode);
}
