/* Debian's needrestart names a process that runs code of a replaced file, and does not any more after an update. The
 * library lies under /var/lib, since needrestart overlooks /tmp and /run. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "retire.h"

#define NEEDRESTART "/usr/sbin/needrestart"

static char folder[64];

static void end(void)
{
	support__teardown();
	if (!*folder)
		return;
	struct result r = command__run((const char *const[]){"rm", "-rf", folder, NULL}, 30);
	result__free(&r);
	*folder = '\0';
}

TestSuite(needrestart, .fini = end);

/* Nothing is restarted: list only. It says more on standard error. */
static bool lists(const struct scene *s)
{
	struct result r = command__run((const char *const[]){NEEDRESTART, "-b", "-v", "-r", "l", "-l", NULL}, 120);
	char *about = strdup(path_of("#%d uses deleted %s/lib/%s", target__pid(s->target), s->dir, s->library));
	bool any = text__has(r.err, path_of("#%d (uses|is|part)", target__pid(s->target)));

	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	if (any)
		cr_assert(strstr(r.err, about), "it is named for something else:\n%s", r.err);
	free(about);
	result__free(&r);
	return any;
}

static void named_before_and_not_after(const char *const argv[])
{
	struct scene s = {.library = "libpark.so.1"};

	if (access(NEEDRESTART, X_OK) != 0)
		cr_skip_test("needrestart is not installed");
	if (geteuid() != 0)
		cr_skip_test("it looks at processes of others as root only");
	strcpy(folder, "/var/lib/llu-test-XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	s.dir = folder;
	scene__install(&s, "v1");
	scene__start(&s, argv);
	cr_assert(!lists(&s), "named before anything was replaced");
	scene__install(&s, "v2");
	cr_assert(lists(&s), "not named after the file was replaced");
	update_gone(&s, 2);
	cr_assert(!lists(&s), "still named");
	update_gone(&s, 3);
	cr_assert(!lists(&s), "named again");
	target__rounds(s.target, 2, 3);
	free(target__finish(s.target));
}

Test(needrestart, no_longer_lists_the_process)
{
	named_before_and_not_after((const char *const[]){FIXTURE_DIR "/park_driver", NULL});
}

/* The same program in a mount namespace of its own. */
Test(needrestart, no_longer_lists_it_in_another_mount_namespace)
{
	named_before_and_not_after((const char *const[]){"/usr/bin/unshare", "-m", FIXTURE_DIR "/park_driver", NULL});
}
