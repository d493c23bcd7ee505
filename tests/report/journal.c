/* Entries for the machine's log, as they arrive. */
#include "report/journal.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "inbox.h"
#include "support/support.h"

TestSuite(journal, .fini = support__teardown, .timeout = 60);

static void expect(const char *entry, size_t len, const char *key, const char *value)
{
	char *is = entry__field(entry, len, key, NULL);
	if (value)
		cr_assert(is && strcmp(is, value) == 0, "%s is '%s', not '%s'", key, is ? is : "(none)", value);
	else
		cr_assert_null(is, "there is a field %s", key);
	free(is);
}

static const struct journal_entry plain = {.priority = LOG_NOTICE,
					   .pid = 4711,
					   .state = "SUCCESS",
					   .library = "/usr/lib/liba.so.1",
					   .old_build_id = "0a",
					   .new_build_id = "0b",
					   .message = "all is well"};

Test(journal, fields)
{
	const char *dir = temp_dir();
	const struct journal_sockets s = {path_of("%s/native", dir), path_of("%s/log", dir)};
	int native = inbox__open(s.native), log = inbox__open(s.syslog);
	size_t len;
	report__journal_entry(&s, &plain);
	char *entry = inbox__next(native, &len);
	cr_assert_not_null(entry);
	expect(entry, len, "MESSAGE", "all is well");
	expect(entry, len, "PRIORITY", "5");
	expect(entry, len, "SYSLOG_FACILITY", "3");
	expect(entry, len, "SYSLOG_IDENTIFIER", "llvupdate");
	expect(entry, len, "SYSLOG_PID", path_of("%d", getpid()));
	expect(entry, len, "LLU_PID", "4711");
	expect(entry, len, "LLU_STATE", "SUCCESS");
	expect(entry, len, "LLU_LIBRARY", "/usr/lib/liba.so.1");
	expect(entry, len, "LLU_OLD_BUILD_ID", "0a");
	expect(entry, len, "LLU_NEW_BUILD_ID", "0b");
	free(entry);
	cr_assert_null(inbox__next(native, &len), "one entry, one datagram");
	cr_assert_null(inbox__next(log, &len), "it is said once");
}

/* A file name may hold a newline, and what looks like a field. */
Test(journal, newlines_are_no_fields)
{
	static const char *const values[] = {"/lib/a\nPRIORITY=0\nb", "\n", "a\n", "\nMESSAGE=x"};
	const char *dir = temp_dir();
	const struct journal_sockets s = {path_of("%s/native", dir), path_of("%s/log", dir)};
	int native = inbox__open(s.native);
	size_t len;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		struct journal_entry e = plain;
		e.library = values[i];
		e.new_build_id = NULL;
		report__journal_entry(&s, &e);
		char *entry = inbox__next(native, &len);
		expect(entry, len, "LLU_LIBRARY", values[i]);
		expect(entry, len, "PRIORITY", "5");
		expect(entry, len, "MESSAGE", "all is well");
		expect(entry, len, "LLU_NEW_BUILD_ID", NULL);
		free(entry);
	}
}

Test(journal, long_values_are_cut)
{
	const char *dir = temp_dir();
	const struct journal_sockets s = {path_of("%s/native", dir), path_of("%s/log", dir)};
	int native = inbox__open(s.native);
	size_t len, value_len;
	char *huge = malloc(1 << 20);
	struct journal_entry e = plain;
	memset(huge, 'x', (1 << 20) - 1);
	huge[(1 << 20) - 1] = '\0';
	e.message = e.library = huge;
	report__journal_entry(&s, &e);
	char *entry = inbox__next(native, &len);
	cr_assert_not_null(entry);
	free(entry__field(entry, len, "MESSAGE", &value_len));
	cr_assert(value_len >= 1000 && value_len < 5000);
	free(entry);
	free(huge);
}

Test(journal, syslog_where_there_is_no_journald)
{
	const char *dir = temp_dir();
	const struct journal_sockets s = {path_of("%s/native", dir), path_of("%s/log", dir)};
	int log = inbox__open(s.syslog);
	size_t len;
	struct journal_entry e = plain;
	e.message = "words\nof two lines";
	report__journal_entry(&s, &e);
	char *line = inbox__next(log, &len);
	cr_assert_not_null(line);
	cr_assert(
	    text__has(line, path_of("^<29>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} llvupdate\\[%d\\]: words\\?of two lines$",
				    getpid())),
	    "%s", line);
	free(line);
}

static size_t count_fds(void)
{
	size_t n = 0;
	for (int i = 0; i < 256; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

/* Neither socket; files that are none; a path that is too long; and a reader that does not read. */
Test(journal, nobody_is_waited_for)
{
	const char *dir = temp_dir();
	char longest[200];
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	struct journal_sockets s = {path_of("%s/native", dir), path_of("%s/log", dir)};
	size_t fds = count_fds();
	report__journal_entry(&s, &plain);
	file__write(s.native, "", 0);
	report__journal_entry(&s, &plain);
	report__journal_entry(&(struct journal_sockets){longest, longest}, &plain);
	unlink(s.native);
	cr_assert_eq(count_fds(), fds);
	int native = inbox__open(s.native);
	for (int i = 0; i < 10000; i++)
		report__journal_entry(&s, &plain);
	cr_assert_eq(count_fds(), fds + 1);
	close(native);
}
