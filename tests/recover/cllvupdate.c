/* cllvupdate: what it says and returns, when it refuses, and that it needs neither the journal nor an intact one. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bed.h"

static void clean_before(void)
{
	struct result r = command__run((const char *const[]){COMMAND_DIR "/cllvupdate", "-u", NULL}, 60);
	result__free(&r);
}

TestSuite(cllvupdate, .init = clean_before, .fini = support__teardown, .timeout = 120);

static struct result cllvupdate(const char *argument, const char *more)
{
	return command__run((const char *const[]){COMMAND_DIR "/cllvupdate", argument, more, NULL}, 60);
}

/* ---- the command ---- */

Test(cllvupdate, nothing_to_do)
{
	struct result r = cllvupdate("-u", NULL);
	cr_assert_eq(r.exit_code, 0);
	cr_assert_str_eq(r.out, "No clean up is required\n");
	cr_assert_str_eq(r.err, "");
	result__free(&r);
}

Test(cllvupdate, arguments)
{
	static const struct {
		const char *argument, *more;
		int exit_code;
		const char *out, *err;
	} cases[] = {
	    {"--help", NULL, 0, "usage: cllvupdate -u", "^$"},
	    {"--version", NULL, 0, "^cllvupdate [0-9.]+", "^$"},
	    {NULL, NULL, 2, "^$", "usage: cllvupdate -u"},
	    {"-x", NULL, 2, "^$", "usage:"},
	    {"-u", "1234", 2, "^$", "usage:"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct result r = cllvupdate(cases[i].argument, cases[i].more);
		cr_assert_eq(r.exit_code, cases[i].exit_code, "case %zu: exit code %d", i, r.exit_code);
		cr_assert(text__has(r.out, cases[i].out), "case %zu: %s", i, r.out);
		cr_assert(text__has(r.err, cases[i].err), "case %zu: %s", i, r.err);
		result__free(&r);
	}
}

/* ---- a program that llvupdate left half-way ---- */

/* The place with these words that an update passes; lives until the teardown. */
static const char *find_place(struct bed *b, const char *words)
{
	const char *file = path_of("%s/points", b->dir);
	bed__start(b);
	bed__install(b, 2);
	struct result r = bed__update(b, (const char *const[]){path_of("LLU_FAULT_LIST=%s", file), NULL});
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	bed__stop(b);
	struct places p = places__read(file);
	const char *place = places__find(&p, words);
	cr_assert(place, "no place '%s'", words);
	place = path_of("%s", place);
	places__free(&p);
	return place;
}

/* Pages are mapped, and the tool is dead. */
static struct bed leave_half_way(void)
{
	struct bed b = bed__make();
	const char *place = find_place(&b, "write after: process__write<map_shadows");
	bed__start(&b);
	bed__install(&b, 2);
	struct result r = bed__update(&b, (const char *const[]){path_of("LLU_FAULT=%s", place), NULL});
	cr_assert_eq(r.exit_code, -SIGKILL, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	bed__is(&b, 1, "killed");
	return b;
}

Test(cllvupdate, says_what_it_did)
{
	struct bed b = leave_half_way();
	struct result r = cllvupdate("-u", NULL);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, path_of("(^|\n)%d witness_driver: [^ ]*/liblower.so.1: the update was taken back\n",
					   target__pid(b.target))),
		  "%s", r.out);
	result__free(&r);
	cr_assert(!bed__cleaned_up(&b, "cleaned up"));
	bed__is(&b, 1, "cleaned up");
	bed__updated(&b, 2, "cleaned up");
}

/* By libllu, in a program that waits for whatever there is when it hears of children. */
Test(cllvupdate, by_the_library)
{
	struct bed b = leave_half_way();
	struct result r = command__run((const char *const[]){BUILD_DIR "/tests/api/api_host", "recover", NULL}, 60);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, path_of("(^|\n)%d witness_driver: [^ ]*/liblower.so.1: the update was taken back\n",
					   target__pid(b.target))),
		  "%s", r.out);
	cr_assert(text__has(r.out, "\nhandlers stayed here, children gone\n"), "%s", r.out);
	result__free(&r);
	cr_assert(!bed__cleaned_up(&b, "cleaned up"));
	bed__is(&b, 1, "cleaned up");
}

Test(cllvupdate, does_not_need_the_journal)
{
	struct bed b = leave_half_way();
	const char *journal = path_of("%s/%d.journal", run_folder(), target__pid(b.target));
	cr_assert_eq(unlink(journal), 0, "there is no %s", journal);
	struct result r = cllvupdate("-u", NULL);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "liblower.so.1: the update was taken back\n"), "%s", r.out);
	result__free(&r);
	bed__is(&b, 1, "cleaned up");
	bed__updated(&b, 2, "cleaned up");
}

/* A journal that is damaged in any way is none. */
Test(cllvupdate, does_not_trust_the_journal)
{
	static const char *const texts[] = {
	    "",
	    "llu-journal 1\n",
	    "llu-journal 2\ntool 1 1 1\n",
	    "llu-journal 1\ntool 1 1 1\ntarget 99999999999999999999 1 x\nstep prepare\n",
	    "llu-journal 1\ntool 1 1 1\ntarget 1 1 x\nstep exchange\npages 4096\n",
	    "llu-journal 1\ntool 1 1 1\ntarget 1 1 %zz\nstep prepare\n",
	    "llu-journal 1\ntool 1 1 1\ntarget 1 1 x\nstep prepare\nmove 0x0 0x0 0x1000 1\n",
	    "llu-journal 1\ntool 1 1 1\ntarget 1 1 x\nstep prepare\nlibrary 0 0 0 0 0 0xfffffffffffff000 0x2000 /x\n",
	    "\x7f\x45\x4c\x46 no text at all",
	};
	struct bed b = leave_half_way();
	const char *journal = path_of("%s/%d.journal", run_folder(), target__pid(b.target));
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		file__write(journal, texts[i], strlen(texts[i]));
		chmod(journal, 0600);
		struct result r = cllvupdate("-u", NULL);
		cr_assert_eq(r.exit_code, 0, "text %zu: exit code %d\n%s%s", i, r.exit_code, r.out, r.err);
		cr_assert(text__has(r.out, i ? "a journal that cannot be read was removed" : "was taken back"),
			  "text %zu: %s", i, r.out);
		cr_assert(access(journal, F_OK) < 0, "text %zu: the journal is still there", i);
		result__free(&r);
		bed__is(&b, 1, texts[i]);
	}
	bed__updated(&b, 2, "cleaned up");
}

Test(cllvupdate, the_process_is_gone)
{
	struct bed b = leave_half_way();
	pid_t pid = target__pid(b.target);
	bed__stop(&b);
	struct result r = cllvupdate("-u", NULL);
	cr_assert_eq(r.exit_code, 0);
	cr_assert(text__has(r.out, path_of("%d witness_driver: gone: nothing to do\n", pid)), "%s", r.out);
	result__free(&r);
	r = cllvupdate("-u", NULL);
	cr_assert_str_eq(r.out, "No clean up is required\n");
	result__free(&r);
}

/* ---- room beside a plain library ---- */

static bool is_mapped(struct bed *b, const char *start)
{
	const char *maps = path_of("/proc/%d/maps", target__pid(b->target));
	struct result r =
	    command__run((const char *const[]){"grep", "-c", path_of("^%s-", start + strlen("0x")), maps, NULL}, 10);
	bool mapped = r.exit_code == 0;
	result__free(&r);
	return mapped;
}

/* A program that was started in the process meanwhile (execve(2)) keeps PID and start time. What lies in its memory
 * where the annex was to be is its own: it does not have the library there. */
Test(cllvupdate, the_room_is_another_programs)
{
	struct bed b = bed__make_unprepared();
	const char *place = find_place(&b, "write after: process__write<map_place<annex__make");
	char text[8192], start[32], end[32], bias[32];
	bed__start(&b);
	bed__install(&b, 2);
	struct result r = bed__update(&b, (const char *const[]){path_of("LLU_FAULT=%s", place), NULL});
	cr_assert_eq(r.exit_code, -SIGKILL, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	const char *journal = path_of("%s/%d.journal", run_folder(), target__pid(b.target));
	FILE *f = fopen(journal, "re");
	cr_assert(f, "no %s", journal);
	size_t n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	char *line = strstr(text, "\nannex ");
	cr_assert(line && sscanf(line, "\nannex %31s %31s %31s", start, end, bias) == 3, "%s", text);
	cr_assert(is_mapped(&b, start), "nothing is mapped at %s", start);
	char *digit = strstr(line, bias) + strlen(bias) - strlen("0000") - 1; /* of pages */
	const char was = *digit;
	*digit = was == '1' ? '2' : '1';
	file__write(journal, text, n);
	r = cllvupdate("-u", NULL);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	cr_assert(is_mapped(&b, start), "memory of another program was unmapped");
	*digit = was;
	file__write(journal, text, n);
	chmod(journal, 0600);
	r = cllvupdate("-u", NULL);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	cr_assert(!is_mapped(&b, start), "the room is still there");
	bed__is(&b, 1, "cleaned up");
	bed__updated(&b, 2, "cleaned up");
}

/* The process of the journal is another one now, with the same PID. */
Test(cllvupdate, a_pid_is_used_again)
{
	struct bed b = leave_half_way();
	pid_t pid = target__pid(b.target);
	const char *journal = path_of("%s/%d.journal", run_folder(), pid);
	char text[8192];
	FILE *f = fopen(journal, "re");
	cr_assert(f, "no %s", journal);
	size_t n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	/* the start time in "target PID START NAME" */
	char *start = strstr(text, path_of("\ntarget %d ", pid));
	cr_assert(start);
	start += strlen(path_of("\ntarget %d ", pid));
	*start = *start == '9' ? '8' : (char)(*start + 1);
	file__write(journal, text, n);
	struct result r = cllvupdate("-u", NULL);
	cr_assert_eq(r.exit_code, 0);
	cr_assert(text__has(r.out, "gone: nothing to do"), "%s", r.out);
	cr_assert(text__has(r.out, "liblower.so.1: the update was taken back"), "%s", r.out);
	result__free(&r);
	bed__updated(&b, 2, "cleaned up");
}

/* ---- while an operation is under way ---- */

/* llvupdate stands still in the middle of its work. */
static pid_t stop_half_way(struct bed *b)
{
	int status;
	const char *place = find_place(b, "write after: process__write<map_shadows");
	bed__start(b);
	bed__install(b, 2);
	pid_t tool = bed__start_update(b, "LLU_FAULT_STOP", place);
	cr_assert_eq(waitpid(tool, &status, WUNTRACED), tool);
	cr_assert(WIFSTOPPED(status), "llvupdate does not come to %s", place);
	return tool;
}

static void go_on(struct bed *b, pid_t tool)
{
	kill(tool, SIGCONT);
	int code = command__wait(tool, 60);
	cr_assert_eq(code, 0, "exit code %d", code);
	bed__is(b, 2, "went on");
	cr_assert(!bed__cleaned_up(b, "went on"));
}

Test(cllvupdate, refuses_while_an_operation_is_under_way)
{
	struct bed b = bed__make();
	pid_t tool = stop_half_way(&b);
	struct result r = cllvupdate("-u", NULL);
	cr_assert_eq(r.exit_code, 5, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.err, "a live update operation is under way"), "%s%s", r.out, r.err);
	cr_assert_str_eq(r.out, "");
	result__free(&r);
	go_on(&b, tool);
}

Test(cllvupdate, by_the_library_it_refuses_likewise)
{
	struct bed b = bed__make();
	pid_t tool = stop_half_way(&b);
	struct result r = command__run((const char *const[]){BUILD_DIR "/tests/api/api_host", "recover", NULL}, 60);
	cr_assert_eq(r.exit_code, 1, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, "\nerror 5: .*a live update operation is under way"), "%s", r.out);
	result__free(&r);
	go_on(&b, tool);
}

/* The same where nothing tells the two tools of one another but the process itself: another /run, another /proc. */
static struct result elsewhere(const char *command, const char *arguments)
{
	return command__run((const char *const[]){"unshare", "-m", "sh", "-c",
						  path_of("mount -t tmpfs -o mode=755 none /run && "
							  "mount -t proc none /proc && exec " COMMAND_DIR "/%s %s",
							  command, arguments),
						  NULL},
			    60);
}

Test(cllvupdate, sees_an_operation_by_the_process_alone)
{
	if (geteuid() != 0)
		cr_skip_test("only root can mount");
	struct bed b = bed__make();
	pid_t tool = stop_half_way(&b);
	struct result r = elsewhere("cllvupdate", "-u");
	cr_assert_eq(r.exit_code, 5, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, path_of("another llvupdate \\(process %d\\) is at work", tool)), "%s%s", r.out,
		  r.err);
	result__free(&r);
	r = elsewhere("llvupdate", path_of("-p %d -l /dev/null -n 1", target__pid(b.target)));
	cr_assert_eq(r.exit_code, 5, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, path_of("another llvupdate \\(process %d\\) is at work", tool)), "%s%s", r.out,
		  r.err);
	result__free(&r);
	go_on(&b, tool);
}

/* Two users' tools have different folders of locks, and meet at the process. */
Test(cllvupdate, one_operation_whatever_the_folder)
{
	if (geteuid() != 0)
		cr_skip_test("only root can mount");
	struct bed b = bed__make();
	pid_t tool = stop_half_way(&b);
	struct result r =
	    command__run((const char *const[]){"unshare", "-m", "sh", "-c",
					       path_of("mount -t tmpfs -o mode=755 none /run && exec " COMMAND_DIR
						       "/llvupdate -p %d -l /dev/null -n 1",
						       target__pid(b.target)),
					       NULL},
			 60);
	cr_assert_eq(r.exit_code, 5, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, path_of("another operation on process %d is under way", target__pid(b.target))),
		  "%s", r.out);
	result__free(&r);
	go_on(&b, tool);
}

/* ---- the journal cannot be written ---- */

Test(cllvupdate, no_room_for_a_journal)
{
	if (geteuid() != 0)
		cr_skip_test("only root can mount");
	struct bed b = bed__make();
	bed__start(&b);
	bed__install(&b, 2);
	/* but for the heaps of its threads, which begin when malloc is first called there */
	const char *maps = path_of("/proc/%d/maps", target__pid(b.target));
	const char *const list[] = {"grep", "-E", "/|^[^ ]+ ..x", maps, NULL};
	struct result before = command__run(list, 10);
	cr_assert(text__has(before.out, "libstate.so.1"), "%s", before.out);
	struct result r =
	    command__run((const char *const[]){"unshare", "-m", "sh", "-c",
					       path_of("mount -t tmpfs -o mode=700,size=4k none /run/llu && "
						       "head -c 4096 /dev/zero >/run/llu/full && exec " COMMAND_DIR
						       "/llvupdate -p %d -l /dev/null -n 1",
						       target__pid(b.target)),
					       NULL},
			 60);
	cr_assert_eq(r.exit_code, 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	char *state = report_state(r.out, target__pid(b.target));
	cr_assert_str_eq(state, "NOT UPDATED", "%s", r.out);
	free(state);
	cr_assert(text__has(r.out, "the journal cannot be written, so the process is left alone: No space left"), "%s",
		  r.out);
	result__free(&r);
	struct result after = command__run(list, 10);
	cr_assert_str_eq(before.out, after.out, "its mappings have changed:\n%s\n%s", before.out, after.out);
	result__free(&before);
	result__free(&after);
	cr_assert(!bed__cleaned_up(&b, "no journal"));
	bed__is(&b, 1, "no journal");
	bed__updated(&b, 2, "no journal");
}
