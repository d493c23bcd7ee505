/* Processes that loaded a plain library: what is special about them. That they do as well as others is shown by the
 * tests that are built with UNPREPARED (real_input.c, real_pairs.c). */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scene.h"

TestSuite(unprepared, .fini = support__teardown);

static const char library[] = "libstate.so.1";

/* A program on the first build as it is. */
static struct scene begin(const char *name)
{
	return scene__begin_plain(path_of("lib%s.so.1", name), "v1", path_of("%s_driver", name));
}

Test(unprepared, left_alone_by_split_only)
{
	struct scene s = begin("state");

	scene__install_raw(&s, fixture_library("v2", library));
	struct result r = scene__llvupdate(&s, (const char *const[]){"--split-only", NULL});
	cr_assert_eq(r.exit_code, 1, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

static struct json_object *get(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	cr_assert(json_object_object_get_ex(o, key, &v), "no '%s' in %s", key, json_object_to_json_string(o));
	return v;
}

Test(unprepared, is_said_in_the_report)
{
	struct scene s = begin("state");

	scene__install_raw(&s, fixture_library("v2", library));
	struct result r = scene__llvupdate(&s, (const char *const[]){"--json", NULL});
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	struct json_object *o = json_tokener_parse(r.out);
	struct json_object *l =
	    json_object_array_get_idx(get(json_object_array_get_idx(get(o, "processes"), 0), "libraries"), 0);
	cr_expect_str_eq(json_object_get_string(get(l, "kind")), "unprepared");
	cr_expect_gt(json_object_get_int(get(get(l, "image"), "entries")), 0);
	cr_expect_geq(json_object_get_int(get(get(l, "image"), "functions_moved")),
		      json_object_get_int(get(get(l, "image"), "entries")));
	json_object_put(o);
	result__free(&r);

	scene__install_raw(&s, fixture_library("v3", library));
	r = scene__llvupdate(&s, NULL);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_expect(text__has(r.out, "unprepared: [0-9]+ functions moved, by jumps at [0-9]+ entries on [0-9]+ pages"),
		  "%s", r.out);
	result__free(&r);
	target__rounds(s.target, 2, 3);
	free(target__finish(s.target));
}

/* A thread that wakes up while jumps are written could be between two instructions that become one: none is left
 * asleep. */
Test(unprepared, no_thread_is_left_asleep)
{
	const char *dir = temp_dir();
	struct scene s = {.dir = dir, .library = library, .how = BY_RENAME};
	const char *env[] = {path_of("LD_LIBRARY_PATH=%s/lib", dir), NULL};

	scene__install_raw(&s, fixture_library("v1", library));
	s.target = target__start((const char *const[]){"/usr/bin/python3", "-c",
						       "import ctypes, threading\n"
						       "ctypes.CDLL('libstate.so.1')\n"
						       "for i in range(4):\n"
						       " threading.Thread(target=threading.Event().wait, daemon=True)"
						       ".start()\n"
						       "print('ready', flush=True); input()",
						       NULL},
				 env);
	target__expect(s.target, "ready");
	scene__install_raw(&s, fixture_library("v2", library));
	struct result r = scene__llvupdate(&s, (const char *const[]){"--json", NULL});
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	struct json_object *o = json_tokener_parse(r.out);
	struct json_object *l =
	    json_object_array_get_idx(get(json_object_array_get_idx(get(o, "processes"), 0), "libraries"), 0);
	cr_expect_eq(json_object_get_int(get(get(l, "threads"), "all")), 5);
	cr_expect_eq(json_object_get_int(get(get(l, "threads"), "stopped")), 5);
	json_object_put(o);
	result__free(&r);
	target__kill(s.target);
}

/* Of each page; there is padding, or a function that nobody calls now. */
static void flip_last_bytes(int mem, struct map m)
{
	for (uint64_t page = m.start; page < m.end; page += 4096) {
		uint8_t last;
		cr_assert_eq(pread(mem, &last, 1, (off_t)(page + 4095)), 1);
		last ^= 1;
		cr_assert_eq(pwrite(mem, &last, 1, (off_t)(page + 4095)), 1);
	}
}

/* One byte that a debugger has put there: what lies on that page is not what the file says. */
Test(unprepared, code_that_somebody_changed)
{
	struct scene s = begin("state");
	struct map maps[16];
	size_t n = maps__find(target__pid(s.target), s.library, maps, 16);
	int mem = open(path_of("/proc/%d/mem", target__pid(s.target)), O_RDWR | O_CLOEXEC);
	size_t i = 0;

	while (i < n && !strchr(maps[i].prot, 'x'))
		i++;
	cr_assert(i < n && mem >= 0, "no code of %s", s.library);
	flip_last_bytes(mem, maps[i]);
	scene__install_raw(&s, fixture_library("v2", library));
	scene__refuse(&s, "its code was changed in memory");
	flip_last_bytes(mem, maps[i]);
	close(mem);
	target__rounds(s.target, 2, 1);
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* A try that came to nothing leaves no more than the next one needs, however often that happens. */
Test(unprepared, leaves_no_more_with_every_try)
{
	struct scene s = begin("callback");
	static struct map maps[256];

	target__rounds(s.target, 2, 1);
	target__ask(s.target, "enter", "entered");
	scene__install_raw(&s, fixture_library("v2", s.library));
	scene__refuse(&s, "inside|return into the code");
	size_t n = maps__find(target__pid(s.target), "", maps, 256);
	for (int i = 0; i < 3; i++)
		scene__refuse(&s, "inside|return into the code");
	cr_expect_eq(maps__find(target__pid(s.target), "", maps, 256), n);
	target__ask(s.target, "leave", "left");
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* Who is parked in old code goes on there, wherever the stack is. */
static void parked(const char *where)
{
	struct scene s = begin("park");

	target__ask(s.target, path_of("park %s", where), "done");
	scene__install_raw(&s, fixture_library("v2", s.library));
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	scene__install_raw(&s, fixture_library("v3", s.library));
	scene__update(&s);
	target__rounds(s.target, 2, 3);
	target__ask(s.target, "resume", "resumed 1");
	target__rounds(s.target, 2, 3);
	free(target__finish(s.target));
}

/* But not where it would come to an entry that changes, by functions that stay: it relies on what these leave alone.
 * Also when the entry becomes what it was. */
Test(unprepared, parked_in_front_of_a_jump)
{
	struct scene s = begin("relay");

	target__rounds(s.target, 2, 1);
	scene__install_raw(&s, fixture_library("v2", s.library));
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	target__ask(s.target, "park", "done");
	scene__install_raw(&s, fixture_library("v1", s.library));
	scene__refuse(&s, "an address in (it|the old code) is at 0x[0-9a-f]+[^\n]*: a parked stack");
	target__ask(s.target, "resume", "done");
	target__rounds(s.target, 2, 2);
	scene__update(&s);
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

Test(unprepared, parked_in_old_code)
{
	parked("malloc");
}

/* Stacks within stacks: words that no frame of the thread returns by. */
Test(unprepared, parked_on_the_stack_of_a_thread)
{
	parked("local");
	parked("thread-local");
}

Test(unprepared, parked_in_thread_local_memory)
{
	parked("tls");
	parked("thread-tls");
}

/* The only thread that could be borrowed is on a stack within its stack: what it finds below its stack pointer is its
 * own. It stays. */
Test(unprepared, on_a_stack_that_is_an_array)
{
	struct scene s = scene__begin_plain(library, "v1", "array_driver");

	target__rounds(s.target, 1, 1);
	scene__install_raw(&s, fixture_library("v2", library));
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* A context that a signal handler has saved may be parked between any two instructions. */
Test(unprepared, parked_within_an_entry)
{
	struct scene s = scene__begin_plain(library, "v1", "rights_driver");

	target__ask(s.target, "word", "done");
	scene__install_raw(&s, fixture_library("v2", library));
	scene__refuse(&s, "an address in the old code is at 0x[0-9a-f]+[^\n]*: a parked stack");
	target__rounds(s.target, 2, 1);
	target__ask(s.target, "forget", "done");
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* ---- what is refused ---- */

/* dlsym(3) would take the annex for no library's code. In a split library new code is within the library. */
Test(unprepared, caller_that_the_loader_would_not_know)
{
	struct scene s = scene__begin_plain(library, "v1-emit", "state_driver");

	target__rounds(s.target, 1, 1);
	scene__install_raw(&s, fixture_library("v2-caller", library));
	scene__refuse(&s, "calls dlsym\\(3\\), which goes by the library that it is called from");
	target__rounds(s.target, 2, 1);
	scene__install_raw(&s, fixture_library("v2-emit", library));
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

/* Somebody may be parked in a call whose return address is within the bytes that become a jump. */
Test(unprepared, call_that_returns_into_a_jump)
{
	const char *v1 = fixture_library("v1", "libsubtle.so.1"), *v2 = fixture_library("v2", "libsubtle.so.1");
	struct result r =
	    command__run((const char *const[]){COMMAND_DIR "/llusplit", "--check", "--unprepared", v1, v2, NULL}, 60);

	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "nobody may be left in their old code"), "%s", r.out);
	result__free(&r);
}

/* An unwinder that finds its way without asking the loader would not come upon the annex. */
Test(unprepared, another_unwinder)
{
	struct scene s = {.dir = temp_dir(), .library = library, .how = BY_RENAME};

	scene__install_raw(&s, fixture_library("v1", library));
	scene__start(&s, (const char *const[]){
			     "/usr/bin/env", path_of("LD_PRELOAD=%s", fixture_library("unwinder", "libunwinder.so.1")),
			     FIXTURE_DIR "/state_driver", NULL});
	target__rounds(s.target, 1, 1);
	scene__install_raw(&s, fixture_library("v2", library));
	scene__refuse(&s, "libunwinder.so.1.*has an unwinder of its own");
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

/* A function that version 2 brought, and 1 does not have, may be called by its address at any time. It was bound to old
 * places, which another update would turn into jumps. */
Test(unprepared, function_that_is_held)
{
	struct scene s = begin("state");

	target__rounds(s.target, 1, 1);
	scene__install_raw(&s, fixture_library("v2-new-callback", library));
	scene__update(&s);
	target__rounds(s.target, 2, 2);
	scene__install_raw(&s, fixture_library("v3", library));
	scene__refuse(&s, "that an earlier update brought, and that this build does not have");
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}
