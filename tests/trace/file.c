/* The file of a trace: format, bounds, sharing, and whom it is not taken from. */
#include "trace/trace.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lines.h"
#include "support/support.h"

TestSuite(trace_file, .fini = support__teardown);

static const char ended[] = "the trace ends here: it is as large as it may become";

static const char *new_path(void)
{
	return path_of("%s/trcfileLLU", temp_dir());
}

static void add(struct trace *t, const char *name, const char *text)
{
	struct trace_event e = {.pid = getpid(), .name = name, .start = trace__now(), .args = {{"text", text, 0}}};
	trace__add(t, &e);
}

Test(trace_file, is_a_trace_event_array)
{
	const char *path = new_path();
	struct trace *t = trace__open(path, TRACE_MAX);
	struct stat st;
	uint64_t since = trace__now();
	struct trace_event e = {.pid = getpid(),
				.tid = getpid(),
				.name = "step",
				.start = since,
				.end = since + 1234567,
				.args = {{"number", NULL, -14}, {"text", "words", 0}}};
	cr_assert_not_null(t);
	trace__add(t, &e);
	struct err *wrong = err__new(ERR_BUSY, 0, "/usr/lib/secret-folder/libx.so.1", NULL, "no");
	trace__step(t, getpid(), "fails", since, wrong, (struct trace_arg){0});
	err__free(wrong);
	trace__close(t);

	struct lines l = lines__read(path);
	struct json_object *o = lines__find(&l, "step", getpid());
	cr_assert_not_null(o);
	cr_assert(event__number(o, "dur") > 1234.566 && event__number(o, "dur") < 1234.568);
	cr_assert(event__number(o, "ts") > (double)since / 1000 - 0.01 &&
		  event__number(o, "ts") < (double)since / 1000 + 0.01);
	cr_assert_str_eq(event__arg(o, "number"), "-14");
	cr_assert_str_eq(event__arg(o, "text"), "words");
	o = lines__find(&l, "fails", 0);
	cr_assert_str_eq(event__arg(o, "failed"), "busy");
	cr_assert_str_eq(event__arg(o, "why"), "libx.so.1: no");
	o = lines__find(&l, "process_name", 0);
	cr_assert_str_eq(event__arg(o, "name"), "test_trace_file");
	cr_assert_not_null(lines__find(&l, "thread_name", getpid()));
	cr_assert_eq(lines__count(&l, "thread_name"), 1);
	cr_assert(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
	lines__free(&l);
}

Test(trace_file, texts_of_others)
{
	static const struct {
		const char *text, *is;
	} cases[] = {
	    {"plain", "plain"},
	    {"", ""},
	    {"a \"quoted\\word\"\tand more", "a \"quoted\\word\"\tand more"},
	    {"line\nline\x1b[31m \xff\xfe", "line?line?[31m ??"},
	    {"\xc3\xa4\xe2\x82\xac", "\xc3\xa4\xe2\x82\xac"},
	    {"/home/user/lib/liba.so.1: not '/tmp/x/y'", "liba.so.1: not 'y'"},
	    {"poll(2)/ppoll(2), /, /etc/", "poll(2)/ppoll(2), /, /etc/"},
	};
	const char *path = new_path();
	struct trace *t = trace__open(path, TRACE_MAX);
	char huge[5000];
	memset(huge, '"', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		add(t, path_of("case %zu", i), cases[i].text);
	struct trace_event e = {
	    .pid = getpid(), .name = "huge", .args = {{"a", huge, 0}, {"b", huge, 0}, {"c", "c", 0}, {"d", NULL, 4}}};
	trace__add(t, &e);
	trace__close(t);
	struct lines l = lines__read(path);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_assert_str_eq(event__arg(lines__find(&l, path_of("case %zu", i), 0), "text"), cases[i].is);
	struct json_object *o = lines__find(&l, "huge", 0);
	cr_assert(strlen(event__arg(o, "a")) > 100 && strlen(event__arg(o, "a")) < TRACE_TEXT_MAX);
	cr_assert_str_eq(event__arg(o, "b"), "");
	cr_assert_str_eq(event__arg(o, "c"), "");
	cr_assert_str_eq(event__arg(o, "d"), "4");
	lines__free(&l);
}

Test(trace_file, held_events_are_written_later)
{
	const char *path = new_path();
	struct trace *t = trace__open(path, TRACE_MAX);
	char text[] = "before";
	size_t size = file__size(path);
	trace__hold(t);
	trace__hold(t);
	add(t, "held", text);
	strcpy(text, "behind");
	trace__let_go(t);
	cr_assert_eq(file__size(path), size);
	for (int i = 0; i < 100000; i++)
		add(t, "many", NULL);
	cr_assert_eq(file__size(path), size);
	trace__let_go(t);
	add(t, "after", NULL);
	trace__close(t);
	struct lines l = lines__read(path);
	cr_assert_str_eq(event__arg(lines__find(&l, "held", 0), "text"), "before");
	size_t many = lines__count(&l, "many");
	struct json_object *o = lines__find(&l, "events are missing here: too many while threads stood still", 0);
	cr_assert(many > 500 && many + strtoul(event__arg(o, "events"), NULL, 10) == 100000, "%zu", many);
	cr_assert_not_null(lines__find(&l, "after", 0));
	lines__free(&l);
}

/* Several processes write to one file; no line is torn, and one of them says that it is full. */
Test(trace_file, is_shared_and_bounded)
{
	enum { WORKERS = 8, EVENTS = 2000, BYTES = 300000 };
	const char *path = new_path();
	struct trace *t = trace__open(path, BYTES);
	for (int i = 0; i < WORKERS; i++)
		if (fork() == 0) {
			for (int k = 0; k < EVENTS; k++)
				add(t, "event", "some words");
			_exit(0);
		}
	while (wait(NULL) > 0)
		;
	trace__close(t);
	struct lines l = lines__read(path);
	cr_assert(file__size(path) <= BYTES && file__size(path) > BYTES - 1000, "%zu", file__size(path));
	cr_assert_eq(lines__count(&l, ended), 1);
	/* each of the others may have been about to write one more */
	bool last = false;
	for (size_t i = l.n - WORKERS; i < l.n; i++)
		last = last || lines__find(&(struct lines){&l.items[i], 1}, ended, 0);
	cr_assert(last);
	lines__free(&l);
}

Test(trace_file, all_events_of_several_processes_are_there)
{
	enum { WORKERS = 4, EVENTS = 500 };
	const char *path = new_path();
	struct trace *t = trace__open(path, TRACE_MAX);
	for (int i = 0; i < WORKERS; i++)
		if (fork() == 0) {
			for (int k = 0; k < EVENTS; k++)
				add(t, "event", "some words");
			_exit(0);
		}
	while (wait(NULL) > 0)
		;
	trace__close(t);
	struct lines l = lines__read(path);
	cr_assert_eq(lines__count(&l, "event"), WORKERS * EVENTS);
	cr_assert_eq(lines__count(&l, ended), 0);
	lines__free(&l);
}

/* A limit of the user's would end the tool with a signal. */
Test(trace_file, keeps_below_the_limit_of_file_sizes)
{
	const char *path = new_path();
	const struct rlimit limit = {20000, 20000};
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	struct trace *t = trace__open(path, TRACE_MAX);
	for (int i = 0; i < 1000; i++)
		add(t, "event", NULL);
	trace__close(t);
	struct lines l = lines__read(path);
	cr_assert(file__size(path) <= 20000);
	cr_assert_eq(lines__count(&l, ended), 1);
	lines__free(&l);
}

Test(trace_file, none_is_no_error)
{
	struct trace *t = trace__open("/dev/full", TRACE_MAX);
	cr_assert_null(t); /* no regular file */
	trace__add(t, NULL);
	trace__hold(t);
	trace__let_go(t);
	trace__step(t, 1, "x", 0, NULL, (struct trace_arg){0});
	trace__close(t);
}

/* What could not be written whole is the end, also when there is room again. */
Test(trace_file, a_full_disk_stops_it)
{
	if (geteuid() != 0)
		cr_skip_test("only root can make a mount namespace");
	const char *dir = temp_dir(), *path = path_of("%s/trace", dir);
	cr_assert(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		  mount("none", dir, "tmpfs", 0, "size=16k") == 0);
	struct trace *t = trace__open(path, TRACE_MAX);
	for (int i = 0; i < 1000; i++)
		add(t, "event", NULL);
	size_t size = file__size(path);
	cr_assert(size > 0 && size <= 16384, "%zu", size);
	cr_assert_eq(mount("none", dir, NULL, MS_REMOUNT, "size=1m"), 0);
	for (int i = 0; i < 10; i++)
		add(t, "late", NULL);
	cr_assert_eq(file__size(path), size);
	trace__close(t);
	umount2(dir, MNT_DETACH);
}

Test(trace_file, the_former_one_is_kept)
{
	const char *path = new_path(), *old = path_of("%s.old", path);
	for (int i = 0; i < 3; i++) {
		struct trace *t = trace__open(path, TRACE_MAX);
		add(t, path_of("run %d", i), NULL);
		trace__close(t);
	}
	struct lines now = lines__read(path), before = lines__read(old);
	cr_assert(lines__find(&now, "run 2", 0) && !lines__find(&now, "run 1", 0));
	cr_assert(lines__find(&before, "run 1", 0) && !lines__find(&before, "run 0", 0));
	lines__free(&now);
	lines__free(&before);
}

Test(trace_file, is_not_written_through_links_or_over_others)
{
	const char *path = new_path(), *elsewhere = path_of("%s/elsewhere", temp_dir());
	file__write(elsewhere, "x", 1);
	cr_assert_eq(symlink(elsewhere, path), 0);
	cr_assert_null(trace__open(path, TRACE_MAX));
	cr_assert_eq(errno, EEXIST);
	cr_assert_eq(file__size(elsewhere), 1);
	cr_assert(unlink(path) == 0 && mkdir(path, 0700) == 0);
	cr_assert_null(trace__open(path, TRACE_MAX));
	cr_assert_null(trace__open(path_of("%s/none/file", temp_dir()), TRACE_MAX));
	cr_assert_eq(errno, ENOENT);
	/* what was .old goes away as a name, whatever it is a link to */
	cr_assert(rmdir(path) == 0 && symlink(elsewhere, path_of("%s.old", path)) == 0);
	trace__close(trace__open(path, TRACE_MAX));
	trace__close(trace__open(path, TRACE_MAX));
	cr_assert_eq(file__size(elsewhere), 1);
}
