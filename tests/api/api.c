/* libllu in a program that is not ours (host.c): it does what llvupdate does, and leaves the program as it was. */
#include <criterion/criterion.h>
#include <json-c/json.h>
#include <llu.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"

TestSuite(api, .fini = support__teardown);

static struct result host(const char *const args[])
{
	const char *argv[8] = {BUILD_DIR "/tests/api/api_host"};
	for (size_t i = 0; args[i]; i++)
		argv[i + 1] = args[i];
	return command__run(argv, 120);
}

static struct result host_update(const struct scene *s, const char *const more[3])
{
	const char *pid = path_of("%d", target__pid(s->target));
	return host((const char *const[]){"update", pid, more ? more[0] : NULL, more ? more[1] : NULL, NULL});
}

static void has_line(const struct result *r, const char *line)
{
	const char *at = strstr(r->out, line);
	cr_assert(at && (at == r->out || at[-1] == '\n') && at[strlen(line)] == '\n', "no line '%s' in\n%s%s", line,
		  r->out, r->err);
}

static struct scene outdated(void)
{
	struct scene s = scene__begin("state", "v1");
	target__rounds(s.target, 3, 1);
	scene__install(&s, "v2");
	return s;
}

/* ---- a program with files and handlers of its own ---- */

Test(api, updates_a_process)
{
	struct scene s = outdated();
	struct result r = host_update(&s, NULL);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	has_line(&r, path_of("looked: 1, outcome %d, pending 1", LLU_PENDING));
	has_line(&r, path_of("pid %d name state_driver outcome %d status %d", target__pid(s.target), LLU_SUCCESS,
			     LLU_STATUS_DONE));
	cr_assert(text__has(r.out, "details: Process state_driver pid [0-9]+: .*/libstate\\.so\\.1.* runs build "),
		  "%s", r.out);
	struct json_object *o = json_tokener_parse(strstr(r.out, "json: ") + 6), *operation;
	cr_assert(json_object_object_get_ex(o, "operation", &operation));
	cr_assert_str_eq(json_object_get_string(operation), "update");
	json_object_put(o);
	target__rounds(s.target, 3, 2);
	result__free(&r);
}

Test(api, leaves_the_program_as_it_was)
{
	struct scene s = outdated();
	struct result r = host_update(&s, NULL);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	has_line(&r, "pipe own");
	has_line(&r, "children there, not seen");
	has_line(&r, "handlers stayed here, limit as before, children gone");
	result__free(&r);
}

Test(api, refuses_a_program_with_threads)
{
	struct scene s = outdated();
	struct result r = host_update(&s, (const char *const[]){"threads", NULL, NULL});
	cr_assert_eq(r.exit_code, 1);
	has_line(&r, path_of("error %d: this program has several threads, and processes would be forked from it",
			     LLU_ERROR_REFUSED));
	has_line(&r, "hint: start a program that has one thread, or llvupdate --json");
	target__rounds(s.target, 3, 1);
	result__free(&r);
}

Test(api, writes_numbers_as_readers_want_them)
{
	static const char definition[] =
	    "LC_NUMERIC\ndecimal_point \",\"\nthousands_sep \"\"\ngrouping -1\nEND LC_NUMERIC\n";
	const char *dir = temp_dir(), *source = path_of("%s/source", dir);
	file__write(source, definition, strlen(definition));
	/* it warns that the other categories are missing, and exits with 1 */
	struct result made = command__run(
	    (const char *const[]){"localedef", "-c", "--quiet", "-i", source, path_of("%s/comma", dir), NULL}, 60);
	setenv("LOCPATH", dir, 1);
	struct scene s = outdated();
	struct result r = host_update(&s, (const char *const[]){"locale", "comma", NULL});
	cr_assert_eq(r.exit_code, 0, "%s%s%s", made.err, r.out, r.err);
	cr_assert(text__has(r.out, "frozen [0-9]+\\.[0-9]+ ms"), "%s", r.out);
	struct json_object *o = json_tokener_parse(strstr(r.out, "json: ") + 6);
	cr_assert(o, "no JSON: %s", r.out);
	json_object_put(o);
	result__free(&r);
	result__free(&made);
}

/* ---- what must not be done ---- */

/* It may have other processes stand still for it. */
Test(api, programs_that_use_it_are_not_updated)
{
#ifdef __SANITIZE_ADDRESS__
	cr_skip_test("libllu with AddressSanitizer cannot be loaded into another program");
#endif
	struct scene s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), BY_RENAME);
	setenv("LD_PRELOAD", COMMAND_DIR "/libllu.so.0", 1);
	scene__start(&s, (const char *const[]){FIXTURE_DIR "/state_driver", NULL});
	unsetenv("LD_PRELOAD");
	scene__install(&s, "v2");
	scene__refuse(&s, "it has libllu loaded, and may be at work on other processes itself");
	target__rounds(s.target, 3, 1);
}

Test(api, refuses_a_program_with_more_rights_than_its_user)
{
	const char *program = path_of("%s/api_host", temp_dir());
	if (geteuid() != 0)
		cr_skip_test("only root can make a program of another group");
	file__copy(BUILD_DIR "/tests/api/api_host", program);
	cr_assert(chown(program, 0, 42) == 0 && chmod(program, 02755) == 0);
	struct result r = command__run((const char *const[]){program, "misuse", NULL}, 60);
	cr_assert_eq(r.exit_code, 1, "%s%s", r.out, r.err);
	has_line(&r, path_of("options of before: error %d: this program has more rights than who has started it "
			     "(set-user-ID, set-group-ID or file capabilities)",
			     LLU_ERROR_REFUSED));
	result__free(&r);
}

Test(api, says_that_a_document_is_not_written)
{
	struct result r = host((const char *const[]){"preview", "/dev/full", NULL});
	has_line(&r, "json No space left on device");
	has_line(&r, path_of("error %d: a preview tries nothing", LLU_ERROR_USAGE));
	result__free(&r);
}

Test(api, refuses_misuse)
{
	struct result r = host((const char *const[]){"misuse", NULL});
	const char *usage = path_of("error %d: ", LLU_ERROR_USAGE);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	has_line(&r, path_of("no size: %sthe options do not say their size", usage));
	has_line(&r, "later options, unused: done");
	has_line(&r, path_of("later options, used: %san option is set that libllu %s does not have", usage, "0.1.0"));
	has_line(&r, "options of before: done");
	has_line(&r, path_of("try before the look: %san operation looks first", usage));
	has_line(&r, "look: done");
	has_line(&r, path_of("look again: %san operation looks once", usage));
	has_line(&r, path_of("trace behind the look: %sa trace begins before the look, and once", usage));
	has_line(&r, path_of("try behind the end: %sthe operation is over", usage));
	has_line(&r, "process 7: none");
	has_line(&r, path_of("PID 0: %swhat is named is no PID", usage));
	has_line(&r, path_of("long timeout: %sthe timeout is too long", usage));
	has_line(&r,
		 path_of("all but one of one: %sprocesses are left out of all, not of those that are named", usage));
	has_line(&r, path_of("nobody: %sno process is named", usage));
	has_line(&r, path_of("an empty list: %sno process is named", usage));
	has_line(&r, path_of("no options: %sno process is named", usage));
	has_line(&r, path_of("all and one: %sit is all processes or those that are named, not both", usage));
	has_line(&r, path_of("reserved: %swhat is reserved is not zero", usage));
	has_line(&r, path_of("a wild size: %sthe options do not say their size", usage));
	const char *closed = path_of("error %d: file descriptor 0 of this program is closed", LLU_ERROR_REFUSED);
	has_line(&r, path_of("no standard input: %s", closed));
	has_line(&r, path_of("no standard input to recover: %s", closed));
	has_line(&r, "no plan and no error: not written");
	result__free(&r);
}

Test(api, plans)
{
	const char *first = fixture_library("v1", "libstate.so.1");
	struct result r = host((const char *const[]){"plan", first, fixture_library("v2", "libstate.so.1"), NULL});
	has_line(&r, "fits: 1");
	result__free(&r);
	r = host((const char *const[]){"plan", first, fixture_library("v1", "libtls.so.1"), NULL});
	cr_assert(strstr(r.out, "fits: 0") || r.exit_code == 1, "%s", r.out);
	result__free(&r);
	r = host((const char *const[]){"plan", first, "/dev/null", NULL});
	cr_assert(text__has(r.out, path_of("^error %d: /dev/null", LLU_ERROR_UNREADABLE)), "%s", r.out);
	result__free(&r);
}
