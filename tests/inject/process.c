/* A process seen from outside: what is there, and what is refused. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "scene.h"
#include "support/support.h"

TestSuite(process, .fini = support__teardown, .timeout = 60);

static struct scene odd(const char *what, const char *arg)
{
	struct scene s = scene__start("odd", what, arg, NULL);
	target__expect(s.target, "ready");
	return s;
}

/* --- refused --- */

Test(process, that_does_not_exist)
{
	struct process *p = NULL;
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	REFUSED(process__open(pid, &p), ERR_GONE, "no such process");
	REFUSED(process__open(0, &p), ERR_USAGE, "");
	REFUSED(process__open(-5, &p), ERR_USAGE, "");
}

Test(process, that_is_a_zombie)
{
	struct process *p = NULL;
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	siginfo_t info;
	waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
	REFUSED(process__open(pid, &p), ERR_GONE, "ended");
	waitpid(pid, NULL, 0);
}

Test(process, that_is_the_tool_itself)
{
	struct process *p = NULL;
	REFUSED(process__open(getpid(), &p), ERR_REFUSED, "this tool itself");
}

Test(process, that_is_a_kernel_thread)
{
	char name[16] = "";
	FILE *f = fopen("/proc/2/comm", "re");
	if (!f || !fgets(name, sizeof(name), f) || strcmp(name, "kthreadd\n") != 0)
		cr_skip_test("kernel threads are not to be seen here (a container)");
	fclose(f);
	struct process *p = NULL;
	REFUSED(process__open(2, &p), ERR_REFUSED, "kernel thread");
}

Test(process, of_32_bits)
{
	const char *argv[] = {path_of("%s/program32", FIXTURE_DIR), NULL};
	struct target *t = target__start(argv, NULL);
	struct process *p = NULL;
	target__expect(t, "ready");
	REFUSED(process__open(target__pid(t), &p), ERR_REFUSED, "32-bit");
}

Test(process, of_another_user)
{
	struct scene s = odd("plain", NULL);
	pid_t pid = fork();
	if (pid == 0) {
		struct process *p = NULL;
		if (setgid(65534) || setuid(65534))
			_exit(99);
		struct err *e = process__open(process__pid(s.p), &p);
		_exit(e ? 10 + (int)err__kind(e) : 0);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	cr_assert(WIFEXITED(status));
	cr_assert_eq(WEXITSTATUS(status), 10 + ERR_PERMISSION);
	scene__close(&s);
}

Test(process, that_ends_meanwhile)
{
	struct scene s = odd("plain", NULL);
	struct mappings m;
	char byte;
	OK(process__alive(s.p));
	target__kill(s.target);
	REFUSED(process__alive(s.p), ERR_GONE, "ended");
	REFUSED(process__maps(s.p, &m), ERR_GONE, "ended");
	REFUSED(process__read(s.p, s.place.scratch, &byte, 1), ERR_GONE, "ended");
	REFUSED(process__write(s.p, s.place.scratch, &byte, 1), ERR_GONE, "ended");
	struct thread_view v;
	OK(process__look(s.p, process__pid(s.p), &v));
	cr_assert_eq(v.state, THREAD_DEAD);
	scene__close(&s);
}

/* --- other processes in the same memory --- */

Test(process, whose_memory_is_its_own)
{
	struct scene s = odd("plain", NULL);
	OK(process__shares_memory(s.p, true));
	OK(process__shares_memory(s.p, false));
	scene__close(&s);
}

Test(process, whose_memory_is_shared)
{
	struct scene s = odd("shares", NULL);
	REFUSED(process__shares_memory(s.p, true), ERR_REFUSED, "share its memory");
	REFUSED(process__shares_memory(s.p, false), ERR_REFUSED, "share its memory");
	scene__close(&s);
}

Test(process, whose_memory_is_shared_by_a_process_whose_first_thread_has_ended)
{
	struct scene s = odd("shares_with_a_thread", NULL);
	REFUSED(process__shares_memory(s.p, true), ERR_REFUSED, "share its memory");
	REFUSED(process__shares_memory(s.p, false), ERR_REFUSED, "share its memory");
	scene__close(&s);
}

/* It ends when the process was opened. */
static struct scene whose_first_thread_ends(const char *what)
{
	struct scene s = odd(what, NULL);
	struct thread_view v = {0};
	target__say(s.target, "");
	target__expect(s.target, "ready");
	for (int64_t last = support__now_ms() + 20000; v.state != THREAD_DEAD;) {
		OK(process__look(s.p, process__pid(s.p), &v));
		cr_assert(support__now_ms() < last, "its first thread does not end");
	}
	return s;
}

/* A thread that has ended has no memory, as kernel threads have none. */
Test(process, whose_first_thread_has_ended)
{
	struct scene s = whose_first_thread_ends("dead_leader_later");
	OK(process__shares_memory(s.p, true));
	OK(process__shares_memory(s.p, false));
	scene__close(&s);
}

Test(process, whose_first_thread_has_ended_and_whose_memory_is_shared)
{
	struct scene s = whose_first_thread_ends("dead_leader_shares");
	REFUSED(process__shares_memory(s.p, true), ERR_REFUSED, "share its memory");
	REFUSED(process__shares_memory(s.p, false), ERR_REFUSED, "share its memory");
	scene__close(&s);
}

Test(process, that_waits_for_a_vfork_child)
{
	struct scene s = odd("vfork", NULL);
	REFUSED(process__shares_memory(s.p, true), ERR_RETRY, "vfork");
	target__say(s.target, "");
	scene__wait_asleep(&s, 0, -1);
	OK(process__shares_memory(s.p, true));
	scene__close(&s);
}

/* --- memory and mappings --- */

Test(process, memory_is_read_and_written)
{
	struct scene s = odd("plain", NULL);
	static char out[20000];
	static char in[20000];
	memset(out, 'x', sizeof(out));
	OK(process__write(s.p, taddr_add(s.place.scratch, 100), out, sizeof(out)));
	OK(process__read(s.p, taddr_add(s.place.scratch, 100), in, sizeof(in)));
	cr_assert_arr_eq(in, out, sizeof(in));
	REFUSED(process__read(s.p, taddr(4096), in, 8), ERR_UNREADABLE, "0x1000");
	/* the first unreadable byte is named, not the first asked for */
	char words[32];
	snprintf(words, sizeof(words), "0x%" PRIx64, s.place.pads.v + 4096);
	struct mappings m;
	OK(process__maps(s.p, &m));
	if (!mappings__at(&m, taddr_add(s.place.pads, 4096)))
		REFUSED(process__read(s.p, s.place.pads, in, 8192), ERR_UNREADABLE, words);
	mappings__free(&m);
	scene__close(&s);
}

Test(process, mappings_are_what_the_kernel_says)
{
	struct scene s = odd("plain", NULL);
	struct mappings m;
	OK(process__maps(s.p, &m));
	const struct mapping *pads = mappings__at(&m, s.place.pads);
	const struct mapping *scratch = mappings__at(&m, taddr_add(s.place.scratch, 5000));
	cr_assert(pads && scratch);
	cr_assert_eq(pads->prot, PROT_READ | PROT_EXEC);
	cr_assert_eq(scratch->prot, PROT_READ | PROT_WRITE);
	cr_assert_eq(scratch->inode, 0);
	cr_assert_str_eq(scratch->path, "");
	cr_assert_null(mappings__at(&m, taddr(0)));
	cr_assert_null(mappings__at(&m, taddr(UINT64_MAX)));
	for (size_t i = 0; i < m.n; i++) {
		cr_assert_eq(mappings__at(&m, m.items[i].range.start), &m.items[i]);
		cr_assert_neq(mappings__at(&m, m.items[i].range.end), &m.items[i]);
	}
	mappings__free(&m);
	scene__close(&s);
}

/* A file that is gone, with a name meant to mislead. */
Test(process, deleted_files_are_opened)
{
	const char *path = path_of("%s/a\nname (deleted)", temp_dir());
	static char text[4096] = "still here";
	file__write(path, text, sizeof(text));
	struct scene s = odd("maps", path);
	struct mappings m;
	bool found = false;
	OK(process__maps(s.p, &m));
	for (size_t i = 0; i < m.n; i++) {
		if (strcmp(m.items[i].path, path) != 0)
			continue;
		int fd = -1;
		char in[16] = "";
		found = true;
		cr_assert(m.items[i].deleted);
		OK(process__open_mapped(s.p, &m.items[i], &fd));
		cr_assert_eq(pread(fd, in, 10, 0), 10);
		cr_assert_str_eq(in, "still here");
		close(fd);
	}
	cr_assert(found);
	mappings__free(&m);
	scene__close(&s);
}

Test(process, has_the_identity_that_proc_states)
{
	struct scene s = odd("plain", NULL);
	struct process *again = NULL;
	OK(process__open(process__pid(s.p), &again));
	cr_assert_eq(process__start_time(s.p), process__start_time(again));
	cr_assert_gt(process__start_time(s.p), 0);
	cr_assert_str_eq(process__name(s.p), "odd");
	struct stat st;
	cr_assert_eq(fstatat(process__dirfd(s.p), "maps", &st, 0), 0);
	process__close(again);
	scene__close(&s);
}
