/* The administrator's word on objects in the heap: what it lets pass, and what it does not. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"

TestSuite(overrule, .fini = support__teardown);

#define STREAM "libstream.so.1"

static struct result check(const char *old, const char *new, const char *file, const char *extra)
{
	const char *argv[] = {COMMAND_DIR "/llusplit", "--check", old, new, "--overrule", file, extra, NULL};

	return command__run(argv, 60);
}

/* Exit code and a word in the output; both at once, so that a failure shows all. */
static void expect(struct result r, int exit_code, const char *pattern)
{
	cr_assert(r.exit_code == exit_code && text__has(r.out, pattern), "exit code %d, not %d with '%s':\n%s%s",
		  r.exit_code, exit_code, pattern, r.out, r.err);
	result__free(&r);
}

/* The build-id of a library, as --check prints it. */
static const char *build_id(const char *library)
{
	struct result r = check(library, library, "/nothing", NULL);
	const char *at = strstr(r.out, "(build-id "), *id;

	cr_assert(at != NULL, "%s%s", r.out, r.err);
	id = path_of("%.*s", (int)strcspn(at + 10, ")"), at + 10);
	result__free(&r);
	return id;
}

struct pair {
	const char *old, *new, *old_id, *new_id;
};

static struct pair pair_of(const char *old, const char *new)
{
	struct pair p = {fixture_library(old, STREAM), fixture_library(new, STREAM), NULL, NULL};

	p.old_id = build_id(p.old);
	p.new_id = build_id(p.new);
	return p;
}

/* A file in a directory of its own, which only its owner can write to. */
static const char *overrule_file(const char *text)
{
	const char *path = path_of("%s/overrule", temp_dir());

	file__write(path, text, strlen(text));
	return path;
}

static const char *overruling(const struct pair *p)
{
	return overrule_file(
	    path_of("# tried by hand\n\n%s %s J. Doe: no stream lives through it\n", p->old_id, p->new_id));
}

Test(overrule, lets_the_pair_pass)
{
	static const char *const builds[][2] = {{"v1", "heap-grown"}, {"v1-debug", "heap-grown-debug"}};

	for (size_t i = 0; i < 2; i++) {
		struct pair p = pair_of(builds[i][0], builds[i][1]);
		const char *file = overruling(&p);
		expect(check(p.old, p.new, overrule_file("# none\n"), NULL), 3,
		       "\nrefused \\(layout-changed\\): .*REFUSED");
		expect(check(p.old, p.new, file, NULL), 0,
		       "layout of objects in the heap: overruled by the administrator");
		expect(check(p.old, p.new, file, NULL), 0,
		       path_of("note: overruled by %s line 3: J. Doe: no stream lives through it\n", file));
		expect(check(p.old, p.new, file, NULL), 0, "note: overruled \\(layout-changed\\): .*FIT");
		expect(check(p.old, p.new, file, "--json"), 0,
		       path_of("\"object_layout\":\"overruled by the administrator\".*"
			       "\"overrule\":\"overruled by %s line 3: J. Doe.*\"refusals\":\\[ *\n? *\\]",
			       file));
	}
}

Test(overrule, has_forms)
{
	struct pair p = pair_of("v1", "heap-grown");
	char upper[128];

	snprintf(upper, sizeof(upper), "%s", p.old_id);
	for (char *c = upper; *c; c++)
		*c = *c >= 'a' && *c <= 'f' ? (char)(*c - 32) : *c;
	expect(check(p.old, p.new, overrule_file(path_of("\t %s \t%s\twhy", upper, p.new_id)), NULL), 0, "FIT");
	expect(check(p.old, p.new, overrule_file(path_of("%s %s # is part of it", p.old_id, p.new_id)), NULL), 0,
	       "line 1: # is part of it\n");
}

Test(overrule, is_for_that_pair_alone)
{
	struct pair p = pair_of("v1", "heap-grown"), back = pair_of("heap-grown", "v1"),
		    other = pair_of("v1", "heap-other");
	const char *file = overruling(&p);

	expect(check(back.old, back.new, file, NULL), 3, "refused \\(layout-");
	expect(check(other.old, other.new, file, NULL), 3, "refused \\(layout-");
	/* a pair that needs none is what it was */
	expect(check(p.old, p.old, overruling(&(struct pair){p.old, p.old, p.old_id, p.old_id}), NULL), 0,
	       "layout of objects in the heap: no sign of change");
}

Test(overrule, is_no_proof)
{
	struct pair p = pair_of("v1-debug", "heap-grown-debug");

	expect(check(p.old, p.new, overruling(&p), "--require-proof"), 3, "refused \\(layout-not-proved\\)");
}

/* Such as the library's own data; also when debug information alone says that it differs. */
Test(overrule, leaves_other_reasons)
{
	static const struct {
		const char *old, *new, *refused;
	} cases[] = {{"v1", "heap-state", "\\(state-object\\)"},
		     {"v1-kinds", "heap-kinds", "\\(state-layout\\): [^\n]*\\<last\\>"}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pair p = pair_of(cases[i].old, cases[i].new);
		const char *file = overruling(&p);
		expect(check(p.old, p.new, file, NULL), 3,
		       path_of("note: overruled \\(layout-changed\\).*refused %s.*REFUSED", cases[i].refused));
		struct result r = check(p.old, p.new, file, NULL);
		cr_assert(!text__has(r.out, "refused \\(layout-"), "%s", r.out);
		result__free(&r);
	}
}

/* One line that is not understood, and no line counts; it is named. */
Test(overrule, wants_every_line_right)
{
	struct pair p = pair_of("v1", "heap-grown");
	const struct {
		const char *line, *why;
	} cases[] = {
	    {path_of("%s", p.old_id), "a build-id is missing"},
	    {path_of("%s %s", p.old_id, p.new_id), "the reason .* is missing"},
	    {path_of("%s %s   ", p.old_id, p.new_id), "the reason .* is missing"},
	    {path_of("%.12s %s why", p.old_id, p.new_id), "not complete"},
	    {path_of("%.39s %s why", p.old_id, p.new_id), "not complete"},
	    {path_of("%s* %s why", p.old_id, p.new_id), "not in hex"},
	    {path_of("* * why"), "not in hex"},
	    {path_of("%s%s %s why", p.old_id, p.old_id, p.new_id), "too long"},
	    {path_of("%s %s why\r", p.old_id, p.new_id), "control character"},
	    {path_of("%s %s \033[2J", p.old_id, p.new_id), "control character"},
	    {"force", "not in hex"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *good = path_of("%s %s good", p.old_id, p.new_id);
		expect(check(p.old, p.new, overrule_file(path_of("%s\n%s\n%s\n", good, cases[i].line, good)), NULL), 3,
		       path_of("overrule file is not used: /.*/overrule: line 2: .*%s.*\nrefused \\(layout-changed\\)",
			       cases[i].why));
	}
	/* the beginning of a build-id may be one of a shorter kind; it is not the one that is meant */
	expect(check(p.old, p.new, overrule_file(path_of("%.32s %s why", p.old_id, p.new_id)), NULL), 3,
	       "line 1 does not count: its build-ids are not complete");
}

static void not_used(const struct pair *p, const char *file, const char *why)
{
	expect(check(p->old, p->new, file, NULL), 3,
	       path_of("note: the overrule file is not used: .*%s.*refused \\(layout-changed\\)", why));
}

Test(overrule, is_not_used_when_others_could_have_written_it)
{
	struct pair p = pair_of("v1", "heap-grown");
	const char *file = overruling(&p), *dir = path_of("%.*s", (int)(strrchr(file, '/') - file), file);

	chmod(file, 0664);
	not_used(&p, file, "others may write to it");
	chmod(file, 0646);
	not_used(&p, file, "others may write to it");
	chmod(file, 0644);
	chmod(dir, 01777);
	not_used(&p, file, "others may write to it");
	chmod(dir, 0755);
	const char *link = path_of("%s/link", dir), *below = path_of("%s/below", dir);
	cr_assert(symlink(file, link) == 0 && symlink(dir, below) == 0);
	not_used(&p, link, "symbolic link");
	not_used(&p, path_of("%s/overrule", below), "symbolic link");
	cr_assert(mkdir(path_of("%s/folder", dir), 0755) == 0 && mkfifo(path_of("%s/fifo", dir), 0600) == 0);
	not_used(&p, path_of("%s/folder", dir), "not a regular file");
	not_used(&p, path_of("%s/fifo", dir), "not a regular file");
	not_used(&p, path_of("%s/missing", dir), "No such file");
	expect(check(p.old, p.new, path_of("%s//../%s/overrule", dir, strrchr(dir, '/') + 1), NULL), 0, "FIT");
	if (geteuid() == 0) {
		cr_assert(chown(file, 65534, 0) == 0);
		not_used(&p, file, "belongs to user 65534");
		cr_assert(chown(file, 0, 0) == 0 && chown(dir, 65534, 0) == 0);
		not_used(&p, file, "belongs to user 65534");
	}
	file__truncate(file, (1 << 20) + 1);
	if (geteuid() == 0)
		cr_assert(chown(dir, 0, 0) == 0);
	not_used(&p, file, "larger than");
	file__truncate(file, 1 << 20);
	not_used(&p, file, "not a text file");
}

/* The same for somebody who is not root: root's file counts, and his own, but no third user's. */
Test(overrule, of_an_ordinary_user)
{
	enum { SOMEBODY = 65534, SOMEBODY_ELSE = 65533 };
	static const struct {
		uid_t owner;
		int exit_code;
	} cases[] = {{0, 0}, {SOMEBODY, 0}, {SOMEBODY_ELSE, 3}};

	if (geteuid() != 0)
		cr_skip_test("only root can become another user");
	struct pair p = pair_of("v1", "heap-grown");
	const char *dir = temp_dir(), *command = path_of("%s/llusplit", dir), *old = path_of("%s/old", dir),
		   *new = path_of("%s/new", dir), *file = overruling(&p);
	file__copy(COMMAND_DIR "/llusplit", command); /* the build directory may be closed to others */
	file__copy(COMMAND_DIR "/libllu.so.0", path_of("%s/libllu.so.0", dir));
	file__copy(p.old, old);
	file__copy(p.new, new);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert(chown(file, cases[i].owner, 0) == 0);
		const char *argv[] = {"setpriv",        "--reuid", "65534",   "--regid", "65534",
				      "--clear-groups", command,   "--check", old,       new,
				      "--overrule",     file,      NULL};
		expect(command__run(argv, 60), cases[i].exit_code,
		       cases[i].exit_code ? "belongs to user 65533" : "overruled by");
	}
}

/* Nothing of the file is said where it has nothing to say. */
Test(overrule, is_silent_where_it_is_not_needed)
{
	const char *old = fixture_library("v1", "libstate.so.1"), *new = fixture_library("v2", "libstate.so.1");
	struct result r = check(old, new, overrule_file("nonsense\n"), NULL);

	cr_assert(r.exit_code == 0 && !strstr(r.out, "overrule"), "exit code %d\n%s", r.exit_code, r.out);
	result__free(&r);
}

Test(overrule, in_a_process)
{
	struct pair p = pair_of("v1", "heap-grown");
	struct scene s = scene__prepare(STREAM, p.old, BY_RENAME);
	const char *env[] = {path_of("LD_PRELOAD=%s/lib/" STREAM, s.dir), NULL}, *file = overruling(&p);
	const char *bad = overrule_file("nonsense\n");

	s.target = target__start((const char *const[]){"/bin/cat", NULL}, env);
	target__ask(s.target, "hello", "hello");
	scene__install(&s, "heap-grown");
	expect(scene__llvupdate(&s, (const char *const[]){"--overrule", overrule_file(""), NULL}), 3, "NOT UPDATED");
	expect(scene__llvupdate(&s, (const char *const[]){"--overrule", bad, NULL}), 3,
	       path_of("\n  the overrule file is not used: %s: line 1: .*NOT UPDATED", bad));
	expect(command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-P", "--overrule", file, NULL}, 60), 0,
	       path_of("\n  overruled by %s line 3: J. Doe", file));
	/* the plan is the refused one that was kept: the file is applied to what comes from the cache */
	expect(
	    command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-P", "--json", "--overrule", file, NULL}, 60),
	    0, "\"plan_cached\":true,.*\"object_layout\":\"overruled by the administrator\"");
	expect(scene__llvupdate(&s, (const char *const[]){"--overrule", file, "--require-proof", NULL}), 3,
	       "not proved by debug information");
	expect(scene__llvupdate(&s, (const char *const[]){"--overrule", file, NULL}), 0,
	       path_of("\n  overruled by %s line 3: .*\n  overruled \\(layout-changed\\).* SUCCESS\n", file));
	target__ask(s.target, "hello", "hello");
	free(target__finish(s.target));
}
