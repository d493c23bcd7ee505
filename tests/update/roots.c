/* Daemons that change their root directory (chroot(2)) after they have loaded their libraries: what stands at the path
 * in the new root is nothing to them. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"

TestSuite(roots, .fini = support__teardown, .timeout = 200);

/* A folder in the scene's that has `file` (NULL: nothing) at the path of its library. */
static const char *make_jail(const struct scene *s, const char *file)
{
	const char *jail = path_of("%s/jail", s->dir);
	struct result r =
	    command__run((const char *const[]){"mkdir", "-p", path_of("%s%s/lib", jail, s->dir), NULL}, 30);
	cr_assert_eq(r.exit_code, 0, "%s", r.err);
	result__free(&r);
	if (file)
		file__copy(file, path_of("%s%s/lib/%s", jail, s->dir, s->library));
	return jail;
}

static struct scene begin(enum arrival how, const char *file)
{
	if (geteuid() != 0)
		cr_skip_test("not root");
	struct scene s = scene__begin_by("state", "v1", how);
	target__rounds(s.target, 1, 1);
	target__ask(s.target, path_of("chroot %s", make_jail(&s, file)), "chrooted");
	return s;
}

static void expect_only_what_it_loaded(enum arrival how, const char *file)
{
	struct scene s = begin(how, file);
	cr_expect(!scene__preview_lists(&s), "nothing was replaced");
	scene__install(&s, "v2");
	scene__update(&s);
	target__rounds(s.target, 1, 2);
	free(target__finish(s.target));
}

Test(roots, nothing_at_the_path)
{
	expect_only_what_it_loaded(BY_RENAME, NULL);
	expect_only_what_it_loaded(BY_SYMLINK, NULL);
}

Test(roots, another_file_at_the_path)
{
	expect_only_what_it_loaded(BY_RENAME, fixture_library("v3", "libstate.so.1"));
	expect_only_what_it_loaded(BY_SYMLINK, fixture_library("v3", "libstate.so.1"));
}

/* The root is a folder above the library: its name would begin there twice. */
Test(roots, the_library_is_below_the_new_root)
{
	if (geteuid() != 0)
		cr_skip_test("not root");
	struct scene s = scene__begin("state", "v1");
	struct result r =
	    command__run((const char *const[]){"mkdir", "-p", path_of("%s%s/lib", s.dir, s.dir), NULL}, 30);
	cr_assert_eq(r.exit_code, 0, "%s", r.err);
	result__free(&r);
	file__copy(fixture_library("v3", s.library), path_of("%s%s/lib/%s", s.dir, s.dir, s.library));
	target__ask(s.target, path_of("chroot %s", s.dir), "chrooted");
	cr_expect(!scene__preview_lists(&s), "nothing was replaced");
	scene__install(&s, "v2");
	scene__update(&s);
	target__rounds(s.target, 1, 2);
	free(target__finish(s.target));
}
