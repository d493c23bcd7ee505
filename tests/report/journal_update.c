/* That llvupdate tells the machine's log what became of each library. The sockets are the test's own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inbox.h"
#include "scene.h"

TestSuite(journal_update, .fini = support__teardown);

static void own_run(void)
{
	if (geteuid() != 0)
		cr_skip_test("only root can make a mount namespace");
	cr_assert(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		      mount("none", "/run", "tmpfs", 0, "mode=0755") == 0 && mkdir("/run/systemd", 0755) == 0 &&
		      mkdir("/run/systemd/journal", 0755) == 0,
		  "%s", strerror(errno));
}

static void expect(const char *entry, size_t len, const char *key, const char *pattern)
{
	char *is = entry__field(entry, len, key, NULL);
	cr_assert(is && text__has(is, pattern), "%s is '%s', not '%s'", key, is ? is : "(none)", pattern);
	free(is);
}

Test(journal_update, outcomes)
{
	own_run();
	int inbox = inbox__open("/run/systemd/journal/socket");
	struct scene s = scene__begin("state", "v1");
	size_t len;
	scene__install_raw(&s, fixture_library("bad-data", s.library));
	scene__refuse(&s, "\\.data has another");
	char *entry = inbox__next(inbox, &len);
	cr_assert_not_null(entry);
	expect(entry, len, "LLU_STATE", "^NOT UPDATED$");
	expect(entry, len, "PRIORITY", "^4$");
	expect(entry, len, "MESSAGE", path_of("^NOT UPDATED: process \\S+ pid %d: \\S+: ", target__pid(s.target)));
	free(entry);
	scene__install(&s, "v2");
	scene__update(&s); /* with previews, which have no outcome */
	entry = inbox__next(inbox, &len);
	cr_assert_not_null(entry);
	expect(entry, len, "LLU_STATE", "^SUCCESS$");
	expect(entry, len, "PRIORITY", "^5$");
	expect(entry, len, "LLU_PID", path_of("^%d$", target__pid(s.target)));
	expect(entry, len, "LLU_LIBRARY", "/libstate\\.so\\.1$");
	expect(entry, len, "LLU_OLD_BUILD_ID", "^[0-9a-f]{40}$");
	expect(entry, len, "LLU_NEW_BUILD_ID", "^[0-9a-f]{40}$");
	expect(entry, len, "MESSAGE", "runs build [0-9a-f]{40} \\(was [0-9a-f]{40}\\)$");
	free(entry);
	cr_assert_null(inbox__next(inbox, &len));
	free(target__finish(s.target));
}
