/* llvupdate -P says which processes run old code that needs a restart: as text, JSON and metrics. Only what concerns
 * the test's own processes is looked at, since a preview is of the whole machine. */
#include <criterion/criterion.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "scene.h"
#include "support/forked.h"

TestSuite(restart, .fini = support__teardown);

static const char library[] = "libstate.so.1";

/* ---- what is said ---- */

static struct result preview(const char *option)
{
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-P", option, NULL}, 120);

	cr_assert(r.exit_code == 0 || r.exit_code == 1 || r.exit_code == 3 || r.exit_code == 5, "exit code %d\n%s%s",
		  r.exit_code, r.out, r.err);
	return r;
}

static bool is_among(const char *pids, pid_t pid)
{
	for (const char *p = pids; isdigit((unsigned char)*p);) {
		char *end;
		if (strtol(p, &end, 10) == pid)
			return true;
		p = end + strspn(end, ", ");
	}
	return false;
}

/* The lines of the section that are of this process, each without the PIDs: "UNIT: NAME: PATH (...)\n". */
static const char *lines_of(const char *text, pid_t pid)
{
	static char found[8192];
	const char *line = strstr(text, "\nThese processes run old code that needs a restart:\n");
	size_t n = 0;

	found[0] = '\0';
	line = line ? strchr(line + 1, '\n') + 1 : "";
	for (; strncmp(line, "  ", 2) == 0; line += strcspn(line, "\n") + 1) {
		const char *end = line + strcspn(line, "\n"), *pids = strstr(line, " pid ");
		cr_assert(*end == '\n' && pids && pids < end, "%s", line);
		const char *rest = strchr(pids, ':');
		if (is_among(pids + 5, pid))
			n += (size_t)snprintf(found + n, sizeof(found) - n, "%.*s%.*s", (int)(pids - line - 2),
					      line + 2, (int)(end + 1 - rest), rest);
		cr_assert_lt(n, sizeof(found));
	}
	cr_assert(!*line || strcmp(line, "run: llvupdate -a\n") == 0, "behind the section: %s", line);
	return found;
}

/* The unit, as the line has it in front; of processes that the test did not put anywhere it is not known. */
static void expect_lines(pid_t pid, const char *want)
{
	struct result r = preview(NULL);
	const char *have = lines_of(r.out, pid);
	size_t n = strlen(have), len = strlen(want);

	if (*want)
		cr_assert(n >= len && strcmp(have + n - len, want) == 0 && (n == len || have[n - len - 1] == ' '),
			  "pid %d: not\n%s but\n%s in\n%s", pid, want, have, r.out);
	else
		cr_assert_str_eq(have, "", "pid %d: %s", pid, r.out);
	result__free(&r);
}

static struct json_object *get(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	cr_assert(json_object_object_get_ex(o, key, &v), "no '%s' in %s", key, json_object_to_json_string(o));
	return v;
}

static const char *text(struct json_object *o, const char *key)
{
	const char *s = json_object_get_string(get(o, key));
	return s ? s : "null";
}

/* The process in a document, or NULL. */
static struct json_object *process_of(struct json_object *document, pid_t pid)
{
	struct json_object *all = get(document, "processes");
	for (size_t i = 0; i < json_object_array_length(all); i++)
		if (json_object_get_int(get(json_object_array_get_idx(all, i), "pid")) == pid)
			return json_object_array_get_idx(all, i);
	return NULL;
}

/* The entry of needs_restart that has the process, or NULL. */
static struct json_object *entry_of(struct json_object *document, pid_t pid)
{
	struct json_object *all = get(document, "needs_restart"), *found = NULL;
	for (size_t i = 0; i < json_object_array_length(all); i++) {
		struct json_object *entry = json_object_array_get_idx(all, i), *pids = get(entry, "processes");
		for (size_t k = 0; k < json_object_array_length(pids); k++)
			if (json_object_get_int(json_object_array_get_idx(pids, k)) == pid) {
				cr_assert_null(found, "twice in %s", json_object_to_json_string(all));
				found = entry;
			}
	}
	return found;
}

static struct json_object *preview_json(void)
{
	struct result r = preview("--json");
	struct json_object *o = json_tokener_parse(r.out);

	cr_assert(o && json_object_get_int(get(o, "exit_code")) == r.exit_code, "%s", r.out);
	result__free(&r);
	return o;
}

/* ---- processes ---- */

/* Starts a copy of `file` as DIR/NAME; it is expected to say something when it is told something. */
static struct target *start_copy(const char *file, const char *path)
{
	struct target *t;

	file__copy(file, path);
	cr_assert_eq(chmod(path, 0755), 0);
	t = target__start((const char *const[]){path, NULL}, NULL);
	return t;
}

static void replace(const char *path, const char *by)
{
	const char *fresh = path_of("%s.fresh", path);
	file__copy(by, fresh);
	cr_assert_eq(rename(fresh, path), 0);
}

/* ---- what is listed, and what not ---- */

Test(restart, program_that_was_replaced)
{
	const char *path = path_of("%s/prog", temp_dir());
	struct target *t = start_copy("/bin/cat", path);
	target__ask(t, "hello", "hello");
	expect_lines(target__pid(t), "");
	replace(path, "/bin/cat"); /* the same build */
	expect_lines(target__pid(t), "");
	replace(path, "/bin/sleep");
	expect_lines(target__pid(t), path_of("prog: %s (replaced)\n", path));
	cr_assert_eq(unlink(path), 0);
	expect_lines(target__pid(t), path_of("prog: %s (removed)\n", path));

	struct json_object *o = preview_json(), *p = process_of(o, target__pid(t)), *list = get(p, "restart");
	cr_expect_str_eq(text(p, "state"), "current");
	cr_expect_null(get(p, "reason"));
	cr_assert_eq(json_object_array_length(list), 1);
	struct json_object *x = json_object_array_get_idx(list, 0);
	cr_expect_str_eq(text(x, "path"), path);
	cr_expect_str_eq(text(x, "kind"), "program");
	cr_expect_str_eq(text(x, "how"), "removed");
	cr_expect_str_eq(text(get(x, "why"), "code"), "program");
	cr_assert_not_null(entry_of(o, target__pid(t)));
	cr_expect_str_eq(text(entry_of(o, target__pid(t)), "unit"), text(p, "unit"));
	json_object_put(o);
	free(target__finish(t));
}

/* Exit code and preview are as without them. */
Test(restart, processes_that_are_never_updated)
{
	static const char *const programs[] = {"static_program", "musl_program", "program32"};
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		const char *path = path_of("%s/%s", temp_dir(), programs[i]);
		struct target *t = start_copy(path_of(FIXTURE_DIR "/%s", programs[i]), path);
		if (i == 2 && access("/proc/sys/abi/vsyscall32", F_OK) != 0)
			continue;
		target__expect(t, "ready");
		struct json_object *o = preview_json();
		cr_expect_null(process_of(o, target__pid(t)), "%s", programs[i]);
		json_object_put(o);

		replace(path, "/bin/sleep");
		expect_lines(target__pid(t), path_of("%.15s: %s (replaced)\n", programs[i], path));
		o = preview_json();
		struct json_object *p = process_of(o, target__pid(t));
		cr_expect_str_eq(text(p, "name"), path_of("%.15s", programs[i]));
		cr_expect_str_eq(text(p, "state"), "current");
		cr_expect_str_eq(text(get(p, "reason"), "code"), "refused");
		json_object_put(o);
		struct result r = preview(NULL);
		cr_expect(!text__has(r.out, path_of("Cannot look at pid %d", target__pid(t))), "%s", r.out);
		result__free(&r);
		free(target__finish(t));
	}
}

/* The dynamic loader that the program names, in a folder with a name that is short enough. */
Test(restart, dynamic_loader)
{
	static const char usual[] = "/lib64/ld-linux-x86-64.so.2";
	char folder[] = "/tmp/A", file[4096];
	while (mkdir(folder, 0755) < 0 && ++folder[5] <= 'Z')
		;
	if (folder[5] > 'Z')
		cr_skip_test("no folder could be made");
	const char *loader = path_of("%s/ld-linux-x86-64.so.2", folder), *program = path_of("%s/prog", temp_dir());
	cr_assert_eq(strlen(loader), strlen(usual));
	file__copy(usual, loader);
	file__copy("/bin/cat", program);
	int fd = open(program, O_RDONLY | O_CLOEXEC);
	cr_assert_eq(read(fd, file, sizeof(file)), (ssize_t)sizeof(file));
	close(fd);
	const char *at = memmem(file, sizeof(file), usual, sizeof(usual));
	cr_assert_not_null(at);
	file__patch(program, (size_t)(at - file), loader, strlen(loader));
	cr_assert_eq(chmod(program, 0755) | chmod(loader, 0755), 0);
	struct target *t = target__start((const char *const[]){program, NULL}, NULL);
	target__ask(t, "hello", "hello");
	replace(loader, fixture_library("v1", library));
	struct result r = preview(NULL);
	const char *have = lines_of(r.out, target__pid(t));
	unlink(loader);
	rmdir(folder);
	cr_assert(strstr(have, path_of("prog: %s (replaced: the dynamic loader is never updated)\n", loader)), "%s",
		  r.out);
	result__free(&r);
	free(target__finish(t));
}

/* Programs unpack what they load, and remove it. */
Test(restart, what_a_program_removed_itself)
{
	const char *lib = path_of("%s/libx.so", temp_dir()), *other = path_of("%s/x.tmp", temp_dir());
	file__copy("/bin/sleep", lib);
	file__copy("/bin/sleep", other);
	pid_t a = forked__start(map_code, lib), b = forked__start(map_code, other);
	unlink(lib);
	unlink(other);
	expect_lines(a, "");
	expect_lines(b, "");
	forked__end(a);
	forked__end(b);
}

static void updated(struct scene *s)
{
	pid_t pid = target__pid(s->target);
	expect_lines(pid, "");
	struct json_object *o = preview_json();
	cr_expect_str_eq(text(process_of(o, pid), "state"), "to update");
	cr_expect_eq(json_object_array_length(get(process_of(o, pid), "restart")), 0);
	cr_expect_null(entry_of(o, pid));
	json_object_put(o);
	scene__update(s);
	target__rounds(s->target, 2, 2);
	expect_lines(pid, "");
	o = preview_json();
	if (process_of(o, pid))
		cr_expect_eq(json_object_array_length(get(process_of(o, pid), "restart")), 0);
	cr_expect_null(entry_of(o, pid));
	json_object_put(o);
}

Test(restart, updated_process)
{
	struct scene s = scene__begin("state", "v1");
	scene__install(&s, "v2");
	updated(&s);
	scene__install_raw(&s, fixture_library("bad-data", library));
	expect_lines(target__pid(s.target),
		     path_of("state_driver: %s/lib/%s (refused: state-shape)\n", s.dir, library));
	free(target__finish(s.target));
}

Test(restart, library_that_was_to_be_left_alone)
{
	struct scene s = scene__begin_plain(library, "v1", "state_driver");
	scene__install_raw(&s, fixture_library("v2", library));
	struct result r = preview("--split-only");
	cr_expect(strstr(lines_of(r.out, target__pid(s.target)),
			 path_of("state_driver: %s/lib/%s (replaced: it was loaded plain)\n", s.dir, library)),
		  "%s", r.out);
	result__free(&r);
	free(target__finish(s.target));
}

/* Its old file stays mapped in part. */
Test(restart, updated_process_that_was_not_prepared)
{
	struct scene s = scene__begin_plain(library, "v1", "state_driver");
	scene__install_raw(&s, fixture_library("v2", library));
	updated(&s);
	free(target__finish(s.target));
}

Test(restart, refused_library)
{
	struct scene s = scene__begin_plain(library, "v1", "state_driver");
	pid_t pid = target__pid(s.target);
	scene__install_raw(&s, fixture_library("bad-data", library));

	struct json_object *o = preview_json(), *p = process_of(o, pid);
	struct json_object *why = get(json_object_array_get_idx(get(p, "libraries"), 0), "reason");
	struct json_object *x = json_object_array_get_idx(get(p, "restart"), 0);
	cr_assert_eq(json_object_array_length(get(p, "restart")), 1);
	cr_expect_str_eq(text(x, "path"), path_of("%s/lib/%s", s.dir, library));
	cr_expect_str_eq(text(x, "kind"), "library");
	cr_expect_str_eq(text(x, "how"), "replaced");
	cr_expect_str_eq(json_object_to_json_string(get(x, "why")), json_object_to_json_string(why));
	cr_expect_str_eq(text(p, "state"), "not updated");
	(void)get(p, "unit");
	(void)get(p, "user_unit");
	(void)get(p, "container");
	cr_expect_not_null(entry_of(o, pid));
	expect_lines(pid, path_of("state_driver: %s/lib/%s (refused: %s)\n", s.dir, library, text(why, "code")));
	json_object_put(o);

	/* an update says nothing of restarts */
	struct result r = scene__llvupdate(&s, (const char *const[]){"--json", NULL});
	cr_assert_eq(r.exit_code, 3, "%s%s", r.out, r.err);
	o = json_tokener_parse(r.out);
	cr_expect(!json_object_object_get_ex(o, "needs_restart", NULL));
	cr_expect(!json_object_object_get_ex(process_of(o, pid), "restart", NULL));
	(void)get(process_of(o, pid), "unit");
	json_object_put(o);
	result__free(&r);
	r = scene__llvupdate(&s, NULL);
	cr_expect_null(strstr(r.out, "needs a restart"), "%s", r.out);
	result__free(&r);
	free(target__finish(s.target));
}

/* ---- units ---- */

/* A control group as systemd makes one for a unit, with the process in it. NULL: it cannot be made here. */
static const char *make_unit(const char *unit, pid_t pid)
{
	static const char *const trees[] = {"/sys/fs/cgroup/systemd", "/sys/fs/cgroup"};
	for (size_t i = 0; i < 2; i++) {
		const char *folder = path_of("%s/%s", trees[i], unit);
		if (access(path_of("%s/cgroup.procs", trees[i]), W_OK) < 0 || mkdir(folder, 0755) < 0)
			continue;
		int fd = open(path_of("%s/cgroup.procs", folder), O_WRONLY | O_CLOEXEC);
		bool ok = fd >= 0 && dprintf(fd, "%d\n", pid) > 0;
		close(fd);
		if (ok)
			return folder;
		rmdir(folder);
	}
	return NULL;
}

static void remove_unit(const char *folder)
{
	for (int i = 0; rmdir(folder) < 0 && errno == EBUSY && i < 1000; i++)
		usleep(1000);
}

Test(restart, unit_is_named)
{
	struct scene s = scene__begin("state", "v1");
	pid_t pid = target__pid(s.target);
	const char *unit = path_of("llu-test-%d.service", pid), *folder = make_unit(unit, pid);

	if (!folder)
		cr_skip_test("no control group can be made here");
	scene__install_raw(&s, fixture_library("bad-data", library));
	struct result r = preview(NULL), refused = scene__llvupdate(&s, NULL);
	const char *have = lines_of(r.out, pid);
	struct json_object *o = preview_json();
	struct result metrics = preview("--metrics");
	free(target__finish(s.target));
	remove_unit(folder);

	cr_expect_str_eq(have, path_of("%s: state_driver: %s/lib/%s (refused: state-shape)\n", unit, s.dir, library));
	cr_expect(strstr(refused.out, path_of("\nProcess state_driver pid %d (%s): %s/lib/%s is not updated: ", pid,
					      unit, s.dir, library)),
		  "%s", refused.out);
	/* what scripts read is as it was */
	cr_expect(strstr(r.out, path_of("An LLU-capable library is newer for process state_driver pid %d.\n"
					"Library needs to be updated %s/lib/%s(_impl)\n"
					"Validating new module %s/lib/%s\n",
					pid, s.dir, library, s.dir, library)),
		  "%s", r.out);
	cr_expect(strstr(refused.out, path_of("\nProcess state_driver pid %d (%s): ", pid, unit)), "%s", refused.out);
	cr_expect(strstr(refused.out, path_of("\n%d state_driver NOT UPDATED\n", pid)), "%s", refused.out);
	cr_expect_str_eq(text(process_of(o, pid), "unit"), unit);
	cr_expect_str_eq(text(entry_of(o, pid), "unit"), unit);
	cr_expect(strstr(metrics.out, path_of("\nllvupdate_restart_needed{unit=\"%s\"} 1\n", unit)), "%s", metrics.out);
	json_object_put(o);
	result__free(&r);
	result__free(&refused);
	result__free(&metrics);
}

/* ---- metrics ---- */

static bool is_name(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!(isalpha((unsigned char)s[i]) || s[i] == '_' || (i && isdigit((unsigned char)s[i]))))
			return false;
	return n > 0;
}

/* Reads the labels from '{' on; returns what stands behind '}'. */
static const char *parse_labels(const char *p)
{
	while (*p++ != '}') {
		size_t n = strcspn(p, "=");
		cr_assert(is_name(p, n) && strncmp(p + n, "=\"", 2) == 0, "%s", p);
		for (p += n + 2; *p != '"'; p++) {
			cr_assert((unsigned char)*p >= ' ' && *p != 0x7f, "%s", p);
			if (*p == '\\') {
				p++;
				cr_assert(*p && strchr("\\\"n", *p), "%s", p);
			}
		}
		p++;
		cr_assert(*p == ',' || *p == '}', "%s", p);
	}
	return p;
}

/* The text is as version 0.0.4 of the exposition format wants it: HELP, TYPE, and the samples of that family, each
 * once; every line ends with a newline. */
static void parse_metrics(const char *all)
{
	enum { SEEN_MAX = 4096 };
	static const char *seen[SEEN_MAX];
	static size_t len[SEEN_MAX];
	const char *family = NULL, *line = all;
	size_t n_family = 0, n = 0;
	for (; *line; line += strcspn(line, "\n") + 1) {
		const char *end = line + strcspn(line, "\n");
		cr_assert(*end == '\n' && end > line, "%s", line);
		if (strncmp(line, "# HELP ", 7) == 0) {
			family = line + 7;
			n_family = strcspn(family, " \n");
			cr_assert(is_name(family, n_family), "%s", line);
			for (size_t i = 0; i < n; i++)
				cr_assert(!(len[i] == n_family && strncmp(seen[i], family, len[i]) == 0), "%s", line);
			const char *type = end + 1;
			cr_assert(strncmp(type, "# TYPE ", 7) == 0 && strncmp(type + 7, family, n_family) == 0 &&
				      strncmp(type + 7 + n_family, " gauge\n", 7) == 0,
				  "%s", type);
			line = type;
			continue;
		}
		cr_assert(family && strncmp(line, family, n_family) == 0, "%s", line);
		const char *p = line + n_family;
		if (*p == '{')
			p = parse_labels(p);
		cr_assert(n < SEEN_MAX);
		seen[n] = line;
		len[n] = (size_t)(p - line);
		for (size_t i = 0; i < n; i++)
			cr_assert(len[i] != len[n] || strncmp(seen[i], line, len[n]) != 0, "twice: %s", line);
		n++;
		char *after;
		cr_assert(*p == ' ' && p[1] != ' ', "%s", line);
		cr_assert(strtod(p + 1, &after) >= 0 && after == end, "%s", line);
	}
	cr_assert_gt(n, 0);
}

/* The value of a sample, -1: there is none. */
static double value_of(const char *all, const char *sample)
{
	const char *p = strstr(all, path_of("\n%s ", sample));
	return p ? strtod(p + strlen(sample) + 2, NULL) : -1;
}

Test(restart, metrics)
{
	struct scene s = scene__begin("state", "v1"), other = scene__begin("state", "v1");
	const char *path = path_of("%s/lib/%s", s.dir, library), *other_path = path_of("%s/lib/%s", other.dir, library);
	const char *env[] = {path_of("LD_LIBRARY_PATH=%s/lib:" FIXTURE_DIR "/lib/dep", s.dir), NULL};
	struct target *second = target__start((const char *const[]){FIXTURE_DIR "/state_driver", NULL}, env);
	target__expect(second, "ready");
	scene__install(&s, "v2");
	scene__install_raw(&other, fixture_library("bad-data", library));

	struct result r = preview("--metrics");
	time_t now = time(NULL);
	parse_metrics(r.out);
	cr_expect_eq(value_of(r.out, path_of("llvupdate_outdated_libraries{library=\"%s\"}", path)), 2, "%s", r.out);
	cr_expect_eq(value_of(r.out, path_of("llvupdate_outdated_libraries{library=\"%s\"}", other_path)), 1, "%s",
		     r.out);
	static const char *const states[] = {"current", "to_update", "not_updated", "unknown", "passed_over"};
	static const double least[] = {1, 2, 1, 0, 0};
	for (size_t i = 0; i < 5; i++)
		cr_expect_geq(value_of(r.out, path_of("llvupdate_processes{state=\"%s\"}", states[i])), least[i],
			      "%s: %s", states[i], r.out);
	double when = value_of(r.out, "llvupdate_preview_timestamp_seconds");
	cr_expect(when <= (double)now + 1 && when > (double)now - 60, "%s", r.out);
	double took = value_of(r.out, "llvupdate_preview_duration_seconds");
	cr_expect(took > 0 && took < 120, "%s", r.out);
	cr_expect(r.exit_code == 0 || r.exit_code == 5, "exit code %d", r.exit_code);
	result__free(&r);
	free(target__finish(second));
	free(target__finish(s.target));
	free(target__finish(other.target));
}

Test(restart, metrics_that_cannot_be_written)
{
	struct result r = command__run(
	    (const char *const[]){"sh", "-c", COMMAND_DIR "/llvupdate -P --metrics >/dev/full", NULL}, 120);
	cr_expect_eq(r.exit_code, 4);
	cr_expect(strstr(r.err, "cannot be written"), "%s", r.err);
	result__free(&r);
}

Test(restart, usage)
{
	static const char *const bad[][3] = {{"-a", "--metrics"}, {"-p1", "--metrics"}, {"-P", "--json", "--metrics"}};
	for (size_t i = 0; i < 3; i++) {
		struct result r = command__run(
		    (const char *const[]){COMMAND_DIR "/llvupdate", bad[i][0], bad[i][1], bad[i][2], NULL}, 60);
		cr_expect_eq(r.exit_code, 2, "%zu: %d", i, r.exit_code);
		cr_expect(strstr(r.err, "--metrics goes with -P"), "%s", r.err);
		result__free(&r);
	}
}

/* ---- words of others ---- */

static void map_under_odd_name(const char *path)
{
	prctl(PR_SET_NAME, "a\n\033]0;b\"\\\r");
	map_code(path);
}

/* A name can end no line, and look like no other line. */
Test(restart, hostile_names)
{
	const char *path = path_of("%s/lib\n  nginx.service: x pid 1: \033[2J\"} 1\nx{a=\"\\.so.1", temp_dir());
	file__copy("/bin/sleep", path);
	pid_t pid = forked__start(map_under_odd_name, path);
	replace(path, "/bin/cat");

	char *clean = strdup(path);
	for (char *c = clean; *c; c++)
		*c = *c == ' ' ? '_' : (unsigned char)*c < ' ' ? '?' : *c;
	struct result r = preview(NULL);
	const char *line = strstr(r.out, path_of("a??]0;b\"\\? pid %d: ", pid));
	cr_assert_not_null(line, "%s", r.out);
	cr_expect(strstr(line, path_of("pid %d: %s (replaced: it is not a library that can be updated)\n", pid, clean)),
		  "%s", line);
	cr_expect_null(strstr(r.out, "\n  nginx.service: x"), "%s", r.out);
	cr_expect_null(strchr(r.out, '\033'));
	result__free(&r);

	struct json_object *o = preview_json(), *p = process_of(o, pid);
	cr_expect_str_eq(text(p, "name"), "a\n\033]0;b\"\\\r");
	bool found = false;
	for (size_t i = 0; i < json_object_array_length(get(p, "restart")); i++)
		found = found || !strcmp(text(json_object_array_get_idx(get(p, "restart"), i), "path"), path);
	cr_expect(found, "%s", json_object_to_json_string(p));
	json_object_put(o);

	r = preview("--metrics");
	parse_metrics(r.out);
	cr_expect(strstr(r.out, "1: ?[2J\\\"} 1?x{a=\\\"\\\\.so.1\"} 1\n"), "%s", r.out);
	result__free(&r);
	forked__end(pid);
	free(clean);
}
