/* /etc/liveupdate/lvupdate.data: what is taken, and each thing that is not, named with its line. */
#include "config/lvupdate_data.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "support/support.h"

TestSuite(lvupdate_data, .fini = support__teardown);

#define STANZA "llvupdate:\n"

static const char *file_of(const void *text, size_t len)
{
	const char *path = path_of("%s/lvupdate.data", temp_dir());

	file__write(path, text, len);
	return path;
}

static void expect(const char *text, bool llu, unsigned retries, unsigned timeout_s)
{
	struct lvupdate_data d;
	ERR_CLEANUP struct err *e = lvupdate_data__read(file_of(text, strlen(text)), &d);

	cr_assert_null(e, "%s\n%s", text, err__text(e));
	cr_assert(d.llu == llu && d.retries == retries && d.timeout_s == timeout_s, "%s\n%d %u %u", text, d.llu,
		  d.retries, d.timeout_s);
}

/* Wrong for a reason that says `what`; what it says is one line that a terminal may see, of a bounded length. */
static void expect_wrong_bytes(const void *text, size_t len, const char *what)
{
	struct lvupdate_data d;
	ERR_CLEANUP struct err *e = lvupdate_data__read(file_of(text, len), &d);

	cr_assert_not_null(e, "taken: %.200s", (const char *)text);
	cr_assert_eq(err__kind(e), ERR_USAGE, "%s", err__text(e));
	cr_assert(text__has(err__text(e), path_of("/lvupdate\\.data: %s", what)), "%s\nnot: %s", err__text(e), what);
	cr_assert_lt(strlen(err__text(e)), 300);
	for (const char *c = err__text(e); *c; c++)
		cr_assert((unsigned char)*c >= ' ', "%s", err__text(e));
}

static void expect_wrong(const char *text, const char *what)
{
	expect_wrong_bytes(text, strlen(text), what);
}

static void expect_refused(const char *path, const char *why)
{
	struct lvupdate_data d;
	ERR_CLEANUP struct err *e = lvupdate_data__read(path, &d);

	cr_assert_not_null(e, "taken, though: %s", why);
	cr_assert(text__has(err__text(e), why), "%s\nnot: %s", err__text(e), why);
}

Test(lvupdate_data, good)
{
	expect(STANZA "\tllu = yes\n\tretries = 1\n\ttimeout = 10\n", true, 1, 10);
	expect(STANZA "\tllu = no\n\tretries = 10\n\ttimeout = 300\n", false, 10, 300);
	/* what is not said */
	expect("", false, 3, 30);
	expect("\n \n\t\n", false, 3, 30);
	expect("* nothing\n# but words\n", false, 3, 30);
	expect(STANZA, false, 3, 30);
	expect(STANZA "\tretries = 1\n", false, 1, 30);
	expect(STANZA "\tllu = yes\n", true, 3, 30);
	/* forms */
	expect(STANZA "    llu=yes", true, 3, 30);
	expect("llvupdate: \t\n \t timeout \t=\t 007  \n\n* end = of it", false, 3, 7);
	expect(STANZA "\tretries = 2\n\t* between\n  # them\n\tllu = yes\n", true, 2, 30);
	expect("* \303\244ndern \377\n" STANZA "\tllu = yes\n", true, 3, 30);
}

Test(lvupdate_data, missing)
{
	struct lvupdate_data d = {.llu = true};
	ERR_CLEANUP struct err *e = lvupdate_data__read(path_of("%s/none", temp_dir()), &d);

	cr_assert(!e && !d.llu && d.retries == 3 && d.timeout_s == 30);
	e = lvupdate_data__read(path_of("%s/no/folder", temp_dir()), &d);
	cr_assert(!e && !d.llu);
}

Test(lvupdate_data, each_error_is_named_with_its_line)
{
	static const struct {
		const char *text, *what;
	} cases[] = {
	    {"general:\n", "line 1: unknown stanza \"general\"$"},
	    {"\n* x\nllvupdate2:\n", "line 3: unknown stanza \"llvupdate2\"$"},
	    {"llvupdate :\n", "line 1: unknown stanza \"llvupdate \"$"},
	    {":\n", "line 1: unknown stanza \"\"$"},
	    {STANZA STANZA, "line 2: the stanza llvupdate was there already in line 1$"},
	    {"llvupdate\n", "line 1: \"llvupdate\" is no stanza"},
	    {STANZA "llu = yes\n", "line 2: \"llu = yes\" is no stanza .*; attributes are indented$"},
	    {"\tllu = yes\n" STANZA, "line 1: the attribute \"llu\" is in no stanza$"},
	    {STANZA "\tllvupdate:\n", "line 2: \"llvupdate:\" is no attribute"},
	    {STANZA "\tllu yes\n", "line 2: \"llu yes\" is no attribute"},
	    {STANZA "\tllu\n", "line 2: \"llu\" is no attribute"},
	    {STANZA "\tllu = yes\n\tretry = 1\n", "line 3: unknown attribute \"retry\"$"},
	    {STANZA "\tLLU = yes\n", "line 2: unknown attribute \"LLU\"$"},
	    {STANZA "\t= yes\n", "line 2: unknown attribute \"\"$"},
	    {STANZA "\tllu = no\n\n\tllu = yes\n", "line 4: llu was said already in line 2$"},
	    {STANZA "\tllu = true\n", "line 2: llu is yes or no, not \"true\"$"},
	    {STANZA "\tllu = Yes\n", "line 2: llu is yes or no, not \"Yes\"$"},
	    {STANZA "\tllu =\n", "line 2: llu is yes or no, not \"\"$"},
	    {STANZA "\tllu = yes no\n", "line 2: llu is yes or no, not \"yes no\"$"},
	    {STANZA "\tllu = yes # now\n", "line 2: llu is yes or no, not \"yes # now\"$"},
	    {STANZA "\tllu = = yes\n", "line 2: llu is yes or no, not \"= yes\"$"},
	    {STANZA "\tretries = 0\n", "line 2: retries is a number from 1 to 10, not \"0\"$"},
	    {STANZA "\tretries = 11\n", "line 2: retries is a number from 1 to 10, not \"11\"$"},
	    {STANZA "\tretries = -1\n", "line 2: retries is a number from 1 to 10, not \"-1\"$"},
	    {STANZA "\tretries = +1\n", "line 2: retries is a number"},
	    {STANZA "\tretries = 1.5\n", "line 2: retries is a number"},
	    {STANZA "\tretries = 0x1\n", "line 2: retries is a number"},
	    {STANZA "\tretries =\n", "line 2: retries is a number from 1 to 10, not \"\"$"},
	    {STANZA "\tretries = 4294967297\n", "line 2: retries is a number"},
	    {STANZA "\ttimeout = 0\n", "line 2: timeout is a number from 1 to 300, not \"0\"$"},
	    {STANZA "\ttimeout = 301\n", "line 2: timeout is a number from 1 to 300, not \"301\"$"},
	    {STANZA "\ttimeout = 10 s\n", "line 2: timeout is a number from 1 to 300, not \"10 s\"$"},
	    {STANZA "\ttimeout = 18446744073709551617", "line 2: timeout is a number"},
	    {STANZA "\ttimeout = x", "line 2: timeout is a number from 1 to 300, not \"x\"$"}, /* no final newline */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_wrong(cases[i].text, cases[i].what);
}

Test(lvupdate_data, hostile)
{
	static const char nul[] = STANZA "\tllu = no\0yes\n", nul_in_comment[] = "* a\0\n" STANZA,
			  nul_at_end[] = STANZA "\0";
	enum { LONG = 60000 };
	FREE_CLEANUP char *line = xmalloc(LONG + 64);

	expect_wrong_bytes(nul, sizeof(nul) - 1, "line 2: it has a control character \\(code 0\\)$");
	expect_wrong_bytes(nul_in_comment, sizeof(nul_in_comment) - 1, "line 1: it has a control character");
	expect_wrong_bytes(nul_at_end, sizeof(nul_at_end) - 1, "line 2: it has a control character");
	expect_wrong("llvupdate:\r\n\tllu = yes\r\n", "line 1: it has a control character \\(code 13\\)$");
	expect_wrong(STANZA "\t\033[2J = yes\n", "line 2: it has a control character \\(code 27\\)$");
	expect_wrong(STANZA "\tl\177u = yes\n", "line 2: it has a control character");
	expect_wrong(STANZA "\t\302\233J = \377\n", "line 2: unknown attribute \"\\?\\?J\"$");

	/* lines of any length */
	memset(line, 'x', LONG);
	strcpy(line + LONG, "\n" STANZA "\tllu = maybe");
	expect_wrong(line, "line 1: \"x{40}\" is no stanza");
	line[LONG - 1] = ':';
	expect_wrong(line, "line 1: unknown stanza \"x{40}\"$");
	line[0] = '*';
	expect_wrong(line, "line 3: llu is yes or no, not \"maybe\"$");
	strcpy(line, STANZA "\tllu = ");
	memset(line + strlen(line), ' ', LONG - strlen(line));
	strcpy(line + LONG, "yes");
	expect(line, true, 3, 30);
	memset(line, '\n', LONG);
	strcpy(line + LONG, "?");
	expect_wrong(line, "line 60001: \"\\?\" is no stanza");
}

Test(lvupdate_data, is_not_read_when_others_could_have_written_it)
{
	static const char text[] = STANZA "\tllu = yes\n";
	const char *path = file_of(text, strlen(text)), *dir = path_of("%.*s", (int)(strrchr(path, '/') - path), path);
	const char *link = path_of("%s/link", dir);

	chmod(path, 0664);
	expect_refused(path, "others may write to it \\(mode 0664\\)");
	chmod(path, 0646);
	expect_refused(path, "others may write to it");
	chmod(path, 0644);
	chmod(dir, 01777);
	expect_refused(path, "others may write to it");
	chmod(dir, 0755);
	cr_assert(symlink(path, link) == 0 && mkfifo(path_of("%s/fifo", dir), 0600) == 0);
	expect_refused(link, "symbolic link");
	expect_refused(path_of("%s/fifo", dir), "not a regular file");
	cr_assert_eq(mkdir(path_of("%s/folder", dir), 0755), 0);
	expect_refused(path_of("%s/folder", dir), "not a regular file");
	if (geteuid() == 0) {
		cr_assert(chown(path, 65534, 0) == 0);
		expect_refused(path, "belongs to user 65534");
		cr_assert(chown(path, 0, 0) == 0);
	}
	file__truncate(path, (1 << 16) + 1);
	expect_refused(path, "larger than 65536 bytes");
}
