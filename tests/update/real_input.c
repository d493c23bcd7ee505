/* Updates of the fixtures' libraries in running programs: each has one thing that an update can break
 * (fixtures/lib says which), and goes v1, v2, v3 and back to v1 in one process.
 *
 * With UNPREPARED the programs run on the libraries as they are (test_unprepared_real_input). */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"

TestSuite(real_input, .fini = support__teardown);

static void walk(const char *name, const char *variant)
{
	struct scene s = scene__begin(name, path_of("v1%s", variant));

	scene__walk(&s, variant);
	free(target__finish(s.target));
}

#ifdef UNPREPARED
/* What cannot be done without stubs is refused by name. */
static void stays(const char *name, const char *variant, int version, int next, const char *reason)
{
	struct scene s = scene__begin(name, path_of("v%d%s", version, variant));

	target__rounds(s.target, 2, version);
	scene__install(&s, path_of("v%d%s", next, variant));
	scene__refuse(&s, reason);
	target__rounds(s.target, 2, version);
	free(target__finish(s.target));
}
#endif

static void walk_clang(const char *name)
{
	if (access(FIXTURE_DIR "/lib/v1-clang", F_OK) != 0)
		cr_skip_test("clang is not installed");
	walk(name, "-clang");
}

/* ---- writable state, tables of pointers, stored and compared addresses, jump tables ---- */

Test(real_input, state)
{
	walk("state", "");
}

Test(real_input, state_stripped)
{
	walk("state", "-stripped");
}

Test(real_input, state_with_emitted_relocations)
{
	walk("state", "-emit");
}

Test(real_input, state_with_packed_relative_relocations)
{
	walk("state", "-relr");
}

Test(real_input, state_with_debug_information)
{
	walk("state", "-debug");
}

/* Who wants no less than proof gets it from debug information, and a refusal without. */
Test(real_input, proof_required)
{
	struct scene proved = scene__begin("state", "v1-debug"), unproved = scene__begin("state", "v1");
	const char *const require[] = {"--require-proof", NULL};

	target__rounds(proved.target, 1, 1);
	scene__install(&proved, "v2-debug");
	struct result r = scene__llvupdate(&proved, require);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	result__free(&r);
	target__rounds(proved.target, 2, 2);
	free(target__finish(proved.target));

	target__rounds(unproved.target, 1, 1);
	scene__install(&unproved, "v2");
	r = scene__llvupdate(&unproved, require);
	cr_assert_eq(r.exit_code, 3, "%s%s", r.out, r.err);
	cr_assert(text__has(r.out, "is not proved by debug information"), "%s", r.out);
	result__free(&r);
	target__rounds(unproved.target, 1, 1);
	free(target__finish(unproved.target));
}

Test(real_input, state_bound_at_start)
{
	walk("state", "-now");
}

Test(real_input, state_with_control_flow_protection)
{
	walk("state", "-cet");
}

Test(real_input, state_not_optimised)
{
	walk("state", "-O0");
}

Test(real_input, state_optimised_for_size)
{
#ifdef UNPREPARED
	stays("state", "-Os", 1, 2, "op_mul changed, and is shorter than the jump that is to replace it");
#else
	walk("state", "-Os");
#endif
}

Test(real_input, state_with_vector_code)
{
	if (!__builtin_cpu_supports("avx2"))
		cr_skip_test("no AVX2 here");
	walk("state", "-O3");
}

Test(real_input, state_by_clang)
{
	walk_clang("state");
}

Test(real_input, state_with_bytes_that_are_proven_harmless)
{
	struct scene s = scene__begin("state", "v1-padded");

	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2-table");
	scene__update(&s);
	target__rounds(s.target, 3, 2);
	free(target__finish(s.target));
}

/* Addresses of constants in .rodata that an object of the old version holds are compared by the new one. */
Test(real_input, constants_compared_by_address)
{
	struct scene s = scene__begin("state", "v1");

	target__rounds(s.target, 2, 1);
	target__ask(s.target, "rodata", "rodata same");
	scene__install(&s, "v2");
	scene__update(&s);
	target__rounds(s.target, 1, 2);
	target__ask(s.target, "rodata", "rodata same");
	free(target__finish(s.target));
}

/* .data.rel.ro has a new object: taken or refused, but the process is right in either case. */
Test(real_input, grown_relro)
{
	struct scene s = scene__begin("state", "v1");

	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2-grown-relro");
	struct result r = scene__llvupdate(&s, NULL);
	char *state = report_state(r.out, target__pid(s.target));
	if (r.exit_code == 0) {
		cr_assert_str_eq(state, "SUCCESS");
		target__rounds(s.target, 3, 2);
	} else {
		cr_assert_eq(r.exit_code, 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
		cr_assert_str_eq(state, "NOT UPDATED");
		cr_assert(text__has(r.out, "data\\.rel\\.ro|relro|RELRO"), "%s", r.out);
		target__rounds(s.target, 3, 1);
	}
	free(state);
	result__free(&r);
	free(target__finish(s.target));
}

/* A build brings a function whose address it hands out; the build before has no such function. Going back, the
 * image that has it stays for those who kept the address, and coming again it is the same function. */
Test(real_input, new_function_whose_address_is_taken)
{
	struct scene s = scene__begin("state", "v1");

	target__rounds(s.target, 2, 1);
	for (int i = 0; i < 2; i++) {
		scene__install(&s, "v2-new-callback");
		scene__update(&s);
		target__rounds(s.target, 2, 2);
		scene__install(&s, "v1");
		struct result r = scene__llvupdate(&s, NULL);
		cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
		cr_assert(text__has(r.out, "odd_first is not in the new build; who keeps its address"), "%s", r.out);
		result__free(&r);
		target__rounds(s.target, 2, 1);
	}
	free(target__finish(s.target));
}

/* ---- thread-local storage ---- */

Test(real_input, tls_general_dynamic)
{
	walk("tls", "");
}

Test(real_input, tls_initial_exec)
{
	walk("tls", "-ie");
}

Test(real_input, tls_descriptors)
{
	walk("tls", "-gnu2");
}

Test(real_input, tls_with_emitted_relocations)
{
	walk("tls", "-emit");
}

Test(real_input, tls_by_clang)
{
	walk_clang("tls");
}

/* ---- symbols ---- */

Test(real_input, ifunc)
{
	walk("ifunc", "");
}

Test(real_input, ifunc_bound_at_start)
{
	walk("ifunc", "-now");
}

Test(real_input, ifunc_by_clang)
{
	walk_clang("ifunc");
}

/* v2 has a version node more than v1 and v3. */
Test(real_input, versions_weak_symbols_and_aliases)
{
#ifdef UNPREPARED
	stays("symver", "", 1, 3,
	      "symver_alias_[ac] cannot be followed: by its name and by its code another function takes over");
#else
	walk("symver", "");
#endif
}

Test(real_input, copy_relocations)
{
	walk("copy", "");
}

/* The first call of dep_late is made after the update: the loader binds it for the new code. */
static void late(int version)
{
	struct scene s = scene__begin("imports", "v1");

	target__rounds(s.target, 2, 1);
	for (int v = 2; v <= version; v++) {
		scene__install(&s, path_of("v%d", v));
		scene__update(&s);
		target__rounds(s.target, 2, v);
	}
	target__ask(s.target, "late", "late ok");
	target__rounds(s.target, 2, version);
	scene__install(&s, "v1");
	scene__update(&s);
	target__rounds(s.target, 2, 1);
	target__ask(s.target, "late", "late ok");
	free(target__finish(s.target));
}

Test(real_input, call_that_binds_lazily_after_one_update)
{
	late(2);
}

Test(real_input, call_that_binds_lazily_after_two_updates)
{
	late(3);
}

Test(real_input, call_that_binds_lazily_after_going_back)
{
	struct scene s = scene__begin("imports", "v1");

	scene__walk(&s, "");
	target__ask(s.target, "late", "late ok");
	free(target__finish(s.target));
}

Test(real_input, call_that_was_bound_before)
{
	struct scene s = scene__begin("imports", "v1");

	target__ask(s.target, "late", "late ok");
	scene__walk(&s, "");
	target__ask(s.target, "late", "late ok");
	free(target__finish(s.target));
}

/* imports and exports that the old version does not have */
Test(real_input, new_imports_and_exports)
{
	walk("imports", "");
}

Test(real_input, new_imports_bound_at_start)
{
	walk("imports", "-now");
}

/* A build calls an export of its own that the one before does not have. It is called, its address is not
 * taken: there is a way back. */
Test(real_input, back_from_a_build_that_calls_its_new_export)
{
	struct scene s = scene__begin("imports", "v1");

	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2-export-calls");
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	scene__install(&s, "v1");
	scene__update(&s);
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

/* What a new import of an IFUNC binds to is for the resolver to say, which runs in the process: bound as
 * somebody else in the process has it, or refused; right in either case. */
Test(real_input, new_import_of_an_ifunc)
{
	struct scene s = scene__begin("imports", "v1");

	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2-ifunc-import");
	struct result r = scene__llvupdate(&s, NULL);
	cr_assert(r.exit_code == 0 || (r.exit_code == 3 && text__has(r.out, "strspn.*IFUNC")), "exit code %d\n%s%s",
		  r.exit_code, r.out, r.err);
	target__rounds(s.target, 2, r.exit_code == 0 ? 2 : 1);
	result__free(&r);
	free(target__finish(s.target));
}

Test(real_input, labels)
{
	walk("labels", "");
}

Test(real_input, labels_by_clang)
{
	walk_clang("labels");
}

/* Functions whose bytes are the same, and that differ all the same. */
Test(real_input, same_bytes)
{
	walk("same", "");
}

Test(real_input, same_bytes_in_assembly)
{
	walk("subtle", "");
}

/* Code refers into the middle of a table, and what changed lies far behind that. */
Test(real_input, tables_without_symbols)
{
	walk("tables", "");
}

/* What lies in front of a table and behind it changes. */
Test(real_input, ranges)
{
	walk("ranges", "");
}

/* A thread is between the start of a table and its end, which is another one in the new build: it cannot be moved. */
Test(real_input, a_walk_through_a_table)
{
	struct scene s = scene__begin("ranges", "v1");
	for (int v = 2; v <= 3; v++) {
		target__ask(s.target, "walk", "waiting");
		scene__install(&s, path_of("v%d", v));
		scene__refuse(&s, "thread [0-9]+: .*it waits in read\\(2\\), called from ranges_walk");
		target__ask(s.target, "go", "walked");
		scene__update(&s);
		target__rounds(s.target, 2, v);
	}
	free(target__finish(s.target));
}

Test(real_input, ranges_with_symbols)
{
	walk("ranges", "-symbols");
}

Test(real_input, ranges_by_clang)
{
	walk_clang("ranges");
}

/* A hook that made pages writable would find them read-only again. */
Test(real_input, permissions_that_were_changed)
{
#ifdef UNPREPARED
	static const char *const changed[] = {"code", "relro"};
#else
	static const char *const changed[] = {"relro"};
#endif
	struct scene s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), BY_RENAME);

	scene__start(&s, (const char *const[]){FIXTURE_DIR "/rights_driver", NULL});
	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2");
	for (size_t i = 0; i < sizeof(changed) / sizeof(changed[0]); i++) {
		target__ask(s.target, changed[i], "done");
		scene__refuse(&s, "pages of it that are to be replaced have other permissions than it wants");
		target__ask(s.target, "back", "done");
	}
	target__rounds(s.target, 2, 1);
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

Test(real_input, texts_by_a_table_of_pointers)
{
	walk("texts", "");
}

Test(real_input, texts_by_a_table_of_distances)
{
	walk_clang("texts");
}

/* A table of label addresses leads into the middle of a function. Taken or refused; right in either case. */
Test(real_input, labels_by_address)
{
	struct scene s = scene__begin("labels", "v1-absolute");

	target__rounds(s.target, 2, 1);
	scene__install(&s, "v2-absolute");
	struct result r = scene__llvupdate(&s, NULL);
	cr_assert(r.exit_code == 0 || (r.exit_code == 3 && text__has(r.out, "middle of a function")),
		  "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	target__rounds(s.target, 2, r.exit_code == 0 ? 2 : 1);
	result__free(&r);
	free(target__finish(s.target));
}

/* ---- control flow ---- */

Test(real_input, callbacks)
{
	walk("callback", "");
}

Test(real_input, callbacks_by_clang)
{
	walk_clang("callback");
}

static void walk_busy(const char *threads)
{
	struct scene s = scene__prepare("libcallback.so.1", fixture_library("v1", "libcallback.so.1"), BY_RENAME);

	scene__start(&s, (const char *const[]){FIXTURE_DIR "/callback_driver", threads, NULL});
	scene__walk(&s, "");
	free(target__finish(s.target));
}

Test(real_input, one_busy_thread)
{
	walk_busy("1");
}

Test(real_input, four_busy_threads)
{
	walk_busy("4");
}

Test(real_input, sixteen_busy_threads)
{
	walk_busy("16");
}

/* A thread that is inside keeps the update off, and is told of; when it has left, the update goes through. */
Test(real_input, thread_inside)
{
	struct scene s = scene__begin("callback", "v1");

	target__rounds(s.target, 2, 1);
	target__ask(s.target, "enter", "entered");
	scene__install(&s, "v2");
	scene__refuse(&s, "inside|return into the code");
	target__rounds(s.target, 2, 1);
	target__ask(s.target, "leave", "left");
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* Tries again until the thread has left: `leave` is said while llvupdate is at it. */
Test(real_input, thread_inside_leaves_in_time)
{
	struct scene s = scene__begin("callback", "v1");

	target__ask(s.target, "enter", "entered");
	scene__install(&s, "v2");
	pid_t tool =
	    command__start((const char *const[]){COMMAND_DIR "/llvupdate", "-p", path_of("%d", target__pid(s.target)),
						 "-n", "3", "-t", "20", "-l", path_of("%s/log", s.dir), NULL});
	target__rounds(s.target, 50, 1);
	target__ask(s.target, "leave", "left");
	cr_assert_eq(command__wait(tool, 60), 0);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* The only thread sleeps in read(2) of a named pipe, which may be interrupted like that of any pipe. */
Test(real_input, asleep_on_a_named_pipe)
{
	struct scene s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), BY_RENAME);
	const char *fifo = path_of("%s/fifo", s.dir);
	const char *env[] = {path_of("LD_LIBRARY_PATH=%s/lib", s.dir), NULL};

	cr_assert_eq(mkfifo(fifo, 0600), 0);
	s.target = target__start(
	    (const char *const[]){"/bin/sh", "-c", path_of("exec " FIXTURE_DIR "/state_driver <%s", fifo), NULL}, env);
	int out = open(fifo, O_WRONLY | O_CLOEXEC);
	cr_assert_geq(out, 0);
	target__expect(s.target, "ready");
	for (int version = 1; version <= 3; version++) {
		if (version > 1) {
			scene__install(&s, path_of("v%d", version));
			scene__update(&s);
		}
		cr_assert_eq(write(out, "round\n", 6), 6);
		target__expect(s.target, path_of("ok %d version=%d", version, version));
	}
	close(out);
	free(target__finish(s.target));
}

/* Two libraries of one process are updated at once: the C and the C++ one must be of one version. */
Test(real_input, exceptions)
{
	struct scene c = scene__prepare("libthrow.so.1", fixture_library("v1", "libthrow.so.1"), BY_RENAME);
	struct scene cxx = scene__prepare("libthrowxx.so.1", fixture_library("v1", "libthrowxx.so.1"), BY_RENAME);
	const char *env[] = {path_of("LD_LIBRARY_PATH=%s/lib:%s/lib", c.dir, cxx.dir), NULL};

	c.target = cxx.target = target__start((const char *const[]){FIXTURE_DIR "/throw_driver", NULL}, env);
	target__expect(c.target, "ready");
	target__rounds(c.target, 2, 1);
	target__ask(c.target, "keep", "keeping");
	for (int version = 2; version <= 4; version++) {
		const char *variant = path_of("v%d", version == 4 ? 1 : version);
		scene__install(&c, variant);
		scene__install(&cxx, variant);
		scene__update(&c);
		target__rounds(c.target, 3, version == 4 ? 1 : version);
		target__ask(c.target, "kept", "kept ok");
		target__ask(c.target, "keep", "keeping");
	}
	free(target__finish(c.target));
}

/* ---- loading and unloading ---- */

static const char *finis(int version)
{
	return path_of("fini destructor-2 version=%d\nfini destructor-1 version=%d\nfini dt-fini version=%d\n", version,
		       version, version);
}

Test(real_input, opened_and_closed_at_run_time)
{
	struct scene s = scene__begin("plug", "v1");
	struct map maps[1];

	for (int i = 0; i < 2; i++) {
		target__ask(s.target, "open", "opened");
		target__rounds(s.target, 2, 1);
		scene__install(&s, "v2");
		scene__update(&s);
		target__rounds(s.target, 2, 2);
		scene__install(&s, "v3");
		scene__update(&s);
		target__rounds(s.target, 2, 3);
		target__ask(s.target, "close", "fini destructor-2 version=3");
		target__expect(s.target, "fini destructor-1 version=3");
		target__expect(s.target, "fini dt-fini version=3");
		target__expect(s.target, "closed");
		cr_assert_eq(maps__find(target__pid(s.target), s.dir, maps, 1), 0, "dlclose left %s mapped",
			     maps[0].path);
		scene__install(&s, "v1");
	}
	free(target__finish(s.target));
}

Test(real_input, destructors_at_exit)
{
	struct scene s = scene__begin("plug", "v1");

	target__ask(s.target, "open", "opened");
	target__ask(s.target, "atexit", "registered");
	target__rounds(s.target, 1, 1);
	scene__install(&s, "v2");
	scene__update(&s);
	target__rounds(s.target, 1, 2);
	char *last = target__finish(s.target);
	cr_assert_str_eq(last, path_of("fini atexit version=2\n%s", finis(2)));
	free(last);
}

/* ---- how the new file arrives ---- */

Test(real_input, arrives_by_symlink)
{
	struct scene s = scene__begin_by("state", "v1", BY_SYMLINK);

	scene__walk(&s, "");
	free(target__finish(s.target));
}

Test(real_input, arrives_in_a_new_directory)
{
	struct scene s = scene__begin_by("state", "v1", BY_DIRECTORY);

	scene__walk(&s, "");
	free(target__finish(s.target));
}

/* The new build need not be split. */
Test(real_input, arrives_as_a_plain_library)
{
	struct scene s = scene__begin("state", "v1");

	target__rounds(s.target, 2, 1);
	scene__install_raw(&s, fixture_library("v2", "libstate.so.1"));
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* A file that is replaced by the same build needs no update. */
Test(real_input, same_build_in_a_new_file)
{
	struct scene s = scene__begin("state", "v1");

	target__rounds(s.target, 2, 1);
	scene__install(&s, "v1");
	cr_assert(!scene__preview_lists(&s), "listed for the same build");
	struct result r = scene__llvupdate(&s, NULL);
	cr_assert_eq(r.exit_code, 1, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "No process requires a Live library Update operation\\."), "%s", r.out);
	result__free(&r);
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

Test(real_input, many_updates_in_one_process)
{
	struct scene s = scene__begin("state", "v1");
	int version = 1;

	for (int i = 0; i < 12; i++) {
		target__rounds(s.target, 1, version);
		version = version % 3 + 1;
		scene__install(&s, path_of("v%d", version));
		scene__update(&s);
	}
	target__rounds(s.target, 2, version);
	free(target__finish(s.target));
}

/* ---- several processes ---- */

Test(real_input, two_processes_at_once)
{
	struct scene a = scene__begin("state", "v1"), b = a;
	const char *argv[] = {FIXTURE_DIR "/state_driver", NULL};

	scene__start(&b, argv);
	target__rounds(a.target, 2, 1);
	target__rounds(b.target, 4, 1);
	scene__install(&a, "v2");
	const char *both = path_of("%d %d", target__pid(a.target), target__pid(b.target));
	struct result r = command__run(
	    (const char *const[]){COMMAND_DIR "/llvupdate", "-p", both, "-l", path_of("%s/log", a.dir), NULL}, 60);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "SUCCESS: 2 NOT UPDATED: 0 FAILURE: 0"), "%s", r.out);
	result__free(&r);
	target__rounds(a.target, 2, 2);
	target__rounds(b.target, 2, 2);
	free(target__finish(a.target));
	free(target__finish(b.target));
}

Test(real_input, all_processes_but_one)
{
	struct scene a = scene__begin("state", "v1"), b = a;

	scene__start(&b, (const char *const[]){FIXTURE_DIR "/state_driver", NULL});
	scene__install(&a, "v2");
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-a", "-e",
							     path_of("%d", target__pid(b.target)), "-l",
							     path_of("%s/log", a.dir), NULL},
				       120);
	char *of_a = report_state(r.out, target__pid(a.target)), *of_b = report_state(r.out, target__pid(b.target));
	cr_assert_str_eq(of_a, "SUCCESS", "%s%s", r.out, r.err);
	cr_assert_str_eq(of_b, "", "the excluded process is in the report:\n%s", r.out);
	free(of_a);
	free(of_b);
	result__free(&r);
	target__rounds(a.target, 2, 2);
	target__rounds(b.target, 2, 1);
	free(target__finish(a.target));
	free(target__finish(b.target));
}

#ifndef UNPREPARED
/* New code is mapped inside the span that the library had from the start; its data stays where it was. */
Test(real_input, new_code_lies_within_the_library)
{
	struct scene s = scene__begin("state", "v1");
	struct map before[32];
	size_t n_before = maps__find(target__pid(s.target), s.library, before, 32);

	scene__install(&s, "v2");
	struct result r = scene__llvupdate(&s, (const char *const[]){"--json", NULL});
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	const char *image = strstr(r.out, "\"image\"");
	unsigned long address = 0, size = 0;
	cr_assert(image && (image = strstr(image, "\"address\"")) &&
		      sscanf(image, "\"address\":\"0x%lx\",%*[ \n]\"size\":%lu", &address, &size) == 2,
		  "no place of the image in %s", r.out);
	result__free(&r);

	cr_assert(n_before > 0 && n_before <= 32);
	cr_assert_gt(address, before[0].start, "the image lies in front of the library");
	/* The window is the last part of the library, a mapping without a file behind the last with one. */
	cr_assert_lt(address + size - before[n_before - 1].end, 16u << 20, "the image lies far behind the library");
	target__rounds(s.target, 1, 2);
	free(target__finish(s.target));
}
#endif
