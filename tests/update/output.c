/* What llvupdate prints: the text that scripts written for AIX parse, JSON, and the log. */
#include <criterion/criterion.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scene.h"

TestSuite(output, .fini = support__teardown);

static char *read_file(const char *path)
{
	struct result r = command__run((const char *const[]){"cat", path, NULL}, 10);

	cr_assert_eq(r.exit_code, 0, "%s", r.err);
	free(r.err);
	return r.out;
}

Test(output, text)
{
	struct scene s = scene__begin("state", "v1");
	pid_t pid = target__pid(s.target);

	scene__install(&s, "v2");
	struct result r = scene__llvupdate(&s, NULL);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	static const char *const lines[] = {
	    "llvupdate preview\n",
	    "Non-interruptable live library update operation begins in\n",
	    "TRY 1\n",
	    "======== NOTIFY PHASE BEGIN ======== \\| try 1 \\| tonotify:1\n",
	    "======== NOTIFY PHASE ENDED ======== \\| try 1 \\| suspended:1\n",
	    "======== QUERY PHASE BEGIN ======== \\| try 1 \\| suspended:1\n",
	    "======== QUERY PHASE ENDED ======== \\| try 1 \\| updated:1\n",
	    "End of try 1/[0-9]+, number of processes to be retried 0\n",
	    "SUCCESS: 1 NOT UPDATED: 0 FAILURE: 0\n",
	    "LLU operation is completed\\.\n",
	};
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		cr_assert(text__has(r.out, lines[i]), "no '%s' in:\n%s", lines[i], r.out);
	cr_assert(text__has(r.out, path_of("Adding the process \\S+ pid %d to the list\n", pid)), "%s", r.out);
	cr_assert(text__has(r.out, path_of("\n%d \\S+ SUCCESS\n", pid)), "%s", r.out);
	cr_assert(text__has(r.out, "Library needs to be updated \\S*libstate\\.so\\.1\\(_impl\\)\n"), "%s", r.out);
	result__free(&r);
	free(target__finish(s.target));
}

/* Of all processes; one that is asked for by its PID is never left out silently. */
Test(output, what_is_left_out)
{
	if (geteuid() != 0)
		cr_skip_test("only root can be another user");
	struct result r = command__run(
	    (const char *const[]){"setpriv", "--reuid=54321", "--clear-groups", COMMAND_DIR "/llvupdate", "-P", NULL},
	    60);
	cr_expect(text__has(r.out,
			    "^llvupdate preview\nLeft out by rule: llvupdate itself, ([^\n]*, )?[0-9]+ that may not be "
			    "read(, [^\n]*)?\nNo process requires a Live library Update operation\\.\n"),
		  "%s%s", r.out, r.err);
	result__free(&r);
	r = command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-p", path_of("%d", getpid()), NULL}, 60);
	cr_expect(!strstr(r.out, "Left out"), "%s%s", r.out, r.err);
	result__free(&r);
}

Test(output, log)
{
	struct scene s = scene__begin("state", "v1");

	scene__install(&s, "v2");
	struct result r = scene__llvupdate(&s, NULL);
	char *log = read_file(path_of("%s/update.log", s.dir));
	cr_assert(text__has(log, path_of("%d", target__pid(s.target))), "the log does not name the process:\n%s", log);
	cr_assert(text__has(log, "SUCCESS"), "%s", log);
	free(log);
	result__free(&r);
	/* The next operation keeps the former log under a name with the date. */
	r = scene__llvupdate(&s, NULL);
	struct result ls = command__run(
	    (const char *const[]){"sh", "-c", path_of("ls %s | grep -c '^update\\.log'", s.dir), NULL}, 10);
	cr_assert_eq(atoi(ls.out), 2, "%s", ls.out);
	result__free(&ls);
	result__free(&r);
	free(target__finish(s.target));
}

/* Finds `text` as the value of any member or element, at any depth. */
static bool json_has(struct json_object *o, const char *text)
{
	switch (json_object_get_type(o)) {
	case json_type_object: {
		json_object_object_foreach(o, key, value)
		{
			(void)key;
			if (json_has(value, text))
				return true;
		}
		return false;
	}
	case json_type_array:
		for (size_t i = 0; i < json_object_array_length(o); i++)
			if (json_has(json_object_array_get_idx(o, i), text))
				return true;
		return false;
	case json_type_null:
		return false;
	default:
		return !strcmp(json_object_get_string(o), text);
	}
}

/* The whole output is one JSON object. */
static struct json_object *parse(const struct result *r)
{
	struct json_tokener *tok = json_tokener_new();
	struct json_object *o = json_tokener_parse_ex(tok, r->out, (int)strlen(r->out) + 1);

	cr_assert(o && json_tokener_get_error(tok) == json_tokener_success, "not JSON:\n%s%s", r->out, r->err);
	cr_assert_eq(json_object_get_type(o), json_type_object, "%s", r->out);
	json_tokener_free(tok);
	return o;
}

Test(output, json_of_an_update)
{
	struct scene s = scene__begin("state", "v1");
	const char *pid = path_of("%d", target__pid(s.target));

	scene__install(&s, "v2");
	struct result r = scene__llvupdate(&s, (const char *const[]){"--json", NULL});
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	struct json_object *o = parse(&r);
	cr_assert(json_has(o, pid) && json_has(o, "success"), "%s", r.out);
	json_object_put(o);
	result__free(&r);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

Test(output, json_of_a_refusal)
{
	struct scene s = scene__begin("state", "v1");
	const char *pid = path_of("%d", target__pid(s.target));

	scene__install_raw(&s, fixture_library("bad-data", s.library));
	struct result r = scene__llvupdate(&s, (const char *const[]){"--json", NULL});
	cr_assert_eq(r.exit_code, 3, "%s%s", r.out, r.err);
	struct json_object *o = parse(&r);
	cr_assert(json_has(o, pid) && json_has(o, "not updated"), "%s", r.out);
	cr_assert(strstr(r.out, ".data"), "no reason in %s", r.out);
	json_object_put(o);
	result__free(&r);
	free(target__finish(s.target));
}

Test(output, json_of_a_preview)
{
	struct scene s = scene__begin("state", "v1");
	const char *pid = path_of("%d", target__pid(s.target));

	scene__install(&s, "v2");
	struct result r = command__run(
	    (const char *const[]){COMMAND_DIR "/llvupdate", "-P", "--json", "-l", path_of("%s/log", s.dir), NULL}, 60);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	struct json_object *o = parse(&r);
	cr_assert(json_has(o, pid), "%s", r.out);
	json_object_put(o);
	result__free(&r);
	free(target__finish(s.target));
}

/* The build that /usr/bin/python3 would load, with another build-id: what takes its place is the package's. */
static void make_other_build(const char *from, const char *to)
{
	static const uint8_t note[] = {4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0};
	size_t size = file__size(from);
	uint8_t *bytes = malloc(size);
	FILE *f = fopen(from, "r");
	cr_assert(f && bytes && fread(bytes, 1, size, f) == size);
	fclose(f);
	uint8_t *at = memmem(bytes, size, note, sizeof(note));
	cr_assert_not_null(at);
	at[sizeof(note)] ^= 1;
	file__write(to, bytes, size);
	free(bytes);
}

Test(output, json_names_the_package)
{
	char installed[PATH_MAX];
	const char *dir = temp_dir(), *library = path_of("%s/liblzma.so.5", dir);
	cr_assert_not_null(realpath("/usr/lib/x86_64-linux-gnu/liblzma.so.5", installed));
	make_other_build(installed, library);
	struct target *t = target__start(
	    (const char *const[]){"/usr/bin/python3", "-c", "import lzma; print('ready', flush=True); input()", NULL},
	    (const char *const[]){path_of("LD_LIBRARY_PATH=%s", dir), NULL});
	target__expect(t, "ready");
	cr_assert(symlink(installed, path_of("%s/new", dir)) == 0 && rename(path_of("%s/new", dir), library) == 0);

	struct result dpkg = command__run(
	    (const char *const[]){"dpkg-query", "-W", "-f", "\"package\":\"${Package}\",\"new_version\":\"${Version}\"",
				  "liblzma5", NULL},
	    60);
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-P", "--json", NULL}, 60);
	struct json_object *o = parse(&r);
	const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	const char *at = strstr(text, library);
	cr_assert(dpkg.exit_code == 0 && at && strstr(at, dpkg.out), "no %s in:\n%s", dpkg.out, text);
	cr_expect(strncmp(strstr(at, dpkg.out) + strlen(dpkg.out), ",\"old_version\":null", 19) == 0,
		  "what it loaded is no file of the package: %s", text);
	json_object_put(o);
	result__free(&dpkg);
	result__free(&r);
	target__kill(t);
}

Test(output, json_of_a_check)
{
	const char *old = fixture_library("v1", "libstate.so.1");
	static const struct {
		const char *variant;
		int exit_code;
	} cases[] = {{"v2", 0}, {"bad-data", 3}, {"bad-export", 3}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct result r = command__run((const char *const[]){COMMAND_DIR "/llusplit", "--check", old,
								     fixture_library(cases[i].variant, "libstate.so.1"),
								     "--json", NULL},
					       60);
		cr_assert_eq(r.exit_code, cases[i].exit_code, "%s: exit code %d\n%s%s", cases[i].variant, r.exit_code,
			     r.out, r.err);
		json_object_put(parse(&r));
		result__free(&r);
	}
}

/* A name that is no UTF-8 does not spoil the document. */
Test(output, json_is_utf8)
{
	struct scene s = scene__begin("state", "v1");
	const char *path = path_of("%s/x\377", s.dir);
	struct target *first = s.target;

	cr_assert_eq(symlink(FIXTURE_DIR "/state_driver", path), 0);
	scene__start(&s, (const char *const[]){path, NULL});
	scene__install(&s, "v2");
	struct result r = scene__llvupdate(&s, (const char *const[]){"--json", NULL});
	cr_expect(r.exit_code == 0 && strstr(r.out, "\"x?\"") && !strchr(r.out, '\377'), "%s%s", r.out, r.err);
	json_object_put(parse(&r));
	result__free(&r);
	free(target__finish(s.target));
	free(target__finish(first));
}

/* What is printed goes nowhere then, and not to a file that was opened. */
Test(output, nothing_to_print_to)
{
	struct scene s = scene__begin("state", "v1");
	const char *log = path_of("%s/update.log", s.dir), *pid = path_of("%d", target__pid(s.target));

	for (int closed = 1; closed <= 3; closed++) {
		static const char *const how[] = {"", ">&-", "<&- >&-", "<&- >&- 2>&-"};
		scene__install(&s, path_of("v%d", 1 + closed % 3));
		struct result r = command__run(
		    (const char *const[]){
			"sh", "-c", path_of(COMMAND_DIR "/llvupdate -p %s --json -l %s %s", pid, log, how[closed]),
			NULL},
		    60);
		cr_expect_eq(r.exit_code, 0, "%s: exit code %d", how[closed], r.exit_code);
		result__free(&r);
		char *text = read_file(log);
		cr_expect(text__has(text, "^llvupdate preview\n.*SUCCESS: 1 .*is completed\\.\n$") &&
			      !strchr(text, '{'),
			  "%s: %s", how[closed], text);
		free(text);
	}
	if (geteuid() == 0) {
		char *trace = read_file("/var/log/liveupdate/trace_llu/trcfileLLU");
		cr_expect(!strstr(trace, "\"operation\""), "what was printed is in the trace:\n%s", trace);
		free(trace);
	}
	free(target__finish(s.target));
}

/* Two processes with the same builds need one plan; it is good for both. So it is on the way back, when images run. */
Test(output, plans_are_shared)
{
	struct scene a = scene__begin("state", "v1"), b = a;
	const char *env[] = {path_of("LD_LIBRARY_PATH=%s/lib:" FIXTURE_DIR "/lib/dep", a.dir), NULL};

	b.target = target__start((const char *const[]){FIXTURE_DIR "/state_driver", NULL}, env);
	target__expect(b.target, "ready");
	for (int version = 2; version <= 4; version++) {
		int shown = version == 4 ? 1 : version;
		scene__install(&a, path_of("v%d", shown));
		const char *pids = path_of("%d %d", target__pid(a.target), target__pid(b.target));
		struct result r = command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-p", pids, "-l",
								     path_of("%s/log", a.dir), "--json", NULL},
					       60);
		cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
		cr_assert(text__has(r.out, "\"state\":\"success\".*\"plan_cached\":(true|false).*\"state\":\"success\""
					   ".*\"plan_cached\":true"),
			  "%s", r.out);
		result__free(&r);
		target__rounds(a.target, 2, shown);
		target__rounds(b.target, 2, shown);
	}
	free(target__finish(a.target));
	free(target__finish(b.target));
}

/* ---- procmap ---- */

enum { PARTS_MAX = 32 };

struct part {
	char address[40], name[64];
};

/* The library's own lines of `procmap PID`, older Implementations left out. */
static size_t parts_of(const struct scene *s, struct part *out)
{
	struct result r = command__run(
	    (const char *const[]){COMMAND_DIR "/procmap", path_of("%d", target__pid(s->target)), NULL}, 60);
	const char *name = path_of("%s(", s->library);
	size_t n = 0;

	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	for (char *line = strtok(r.out, "\n"); line && n < PARTS_MAX; line = strtok(NULL, "\n")) {
		char *found = strstr(line, name);
		if (!found || strstr(found, "(older"))
			continue;
		cr_assert_eq(sscanf(line, "%39s", out[n].address), 1);
		snprintf(out[n].name, sizeof(out[n].name), "%.*s", (int)strcspn(found, ")"), found);
		n++;
	}
	result__free(&r);
	return n;
}

/* An update moves the Implementation; the VAPI and the data stay where they were. */
Test(output, procmap_before_and_after)
{
	struct scene s = scene__begin("state", "v1");
	struct part before[PARTS_MAX], after[PARTS_MAX];
	size_t n = parts_of(&s, before), impl = 0;

	scene__install(&s, "v2");
	scene__update(&s);
	cr_assert_eq(parts_of(&s, after), n);
	for (size_t i = 0; i < n; i++) {
		bool is_impl = strstr(before[i].name, "(_impl") != NULL;
		impl += is_impl;
		cr_assert_str_eq(before[i].name, after[i].name);
		cr_assert(is_impl == (strcmp(before[i].address, after[i].address) != 0), "%s was at %s, is at %s",
			  before[i].name, before[i].address, after[i].address);
	}
	cr_assert(impl >= 2 && n >= impl + 4, "%zu parts, %zu of the Implementation", n, impl);
	free(target__finish(s.target));
}

Test(output, procmap_of_others)
{
	static const struct {
		const char *argument;
		int exit_code;
	} cases[] = {{"4194305", 4}, {"none", 2}, {"0", 2}, {"self", 2}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct result r =
		    command__run((const char *const[]){COMMAND_DIR "/procmap", cases[i].argument, NULL}, 60);
		cr_assert_eq(r.exit_code, cases[i].exit_code, "procmap %s: exit code %d\n%s", cases[i].argument,
			     r.exit_code, r.err);
		cr_assert(strlen(r.err) > 10, "procmap %s says nothing", cases[i].argument);
		result__free(&r);
	}
	struct target *t = target__start((const char *const[]){"/bin/cat", NULL}, NULL);
	target__ask(t, "hello", "hello");
	struct result r =
	    command__run((const char *const[]){COMMAND_DIR "/procmap", path_of("%d", target__pid(t)), NULL}, 60);
	cr_assert_eq(r.exit_code, 1, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "libc\\.so"), "the mappings of a program without split libraries are not shown");
	result__free(&r);
	free(target__finish(t));
}

Test(output, usage)
{
	static const char *const bad[][4] = {{NULL},
					     {"-n", "0", NULL},
					     {"-n", "11", NULL},
					     {"-t", "301", NULL},
					     {"-t", "0", NULL},
					     {"-P", "-a", NULL},
					     {"-e", "1", NULL},
					     {"--upgraded", "-P", NULL},
					     {"-a", "--upgraded", NULL},
					     {"--no-such-option", NULL}};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const char *argv[8] = {COMMAND_DIR "/llvupdate"};
		size_t n = 1;
		for (; bad[i][n - 1]; n++)
			argv[n] = bad[i][n - 1];
		if (bad[i][0] && (!strcmp(bad[i][0], "-n") || !strcmp(bad[i][0], "-t"))) {
			argv[n++] = "-p";
			argv[n++] = "1";
		}
		struct result r = command__run(argv, 60);
		cr_assert_eq(r.exit_code, 2, "case %zu: exit code %d\n%s%s", i, r.exit_code, r.out, r.err);
		cr_assert(strlen(r.err) > 10, "case %zu: nothing on standard error", i);
		result__free(&r);
	}
}
