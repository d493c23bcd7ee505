/* The hand does its work and leaves nothing behind. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "scene.h"
#include "support/support.h"

TestSuite(hand, .fini = support__teardown, .timeout = 100);

static int64_t call(struct hand *h, int64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	int64_t result = 0;
	OK(hand__call(h, nr, (const uint64_t[6]){a, b, c, d, e, f}, &result));
	return result;
}

/* Puts a file of four pages with a text in it under a temporary name. */
static const char *a_file(void)
{
	const char *path = path_of("%s/image", temp_dir());
	static char page[16384] = "mapped by the hand";
	file__write(path, page, sizeof(page));
	return path;
}

/* Opens the file and maps it, call by call; returns where. */
static taddr_t map_file(const struct scene *s, struct hand *h, const char *path)
{
	OK(process__write(s->p, hand__data(h), path, strlen(path) + 1));
	int64_t fd = call(h, SYS_openat, (uint64_t)AT_FDCWD, hand__data(h).v, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	cr_assert_geq(fd, 0, "open: %s", strerror((int)-fd));
	int64_t at = call(h, SYS_mmap, 0, 16384, PROT_READ | PROT_EXEC, MAP_PRIVATE, (uint64_t)fd, 0);
	cr_assert(at > 0, "mmap: %s", strerror((int)-at));
	return taddr((uint64_t)at);
}

static void work(struct scene *s, const char *path)
{
	struct hand *h = NULL;
	char text[19] = "";
	OK(hand__raise(s->p, &s->place, 5000, &h));
	taddr_t at = map_file(s, h, path);
	OK(process__read(s->p, at, text, sizeof(text)));
	cr_assert_str_eq(text, "mapped by the hand");
	cr_assert_eq(call(h, SYS_munmap, at.v, 16384, 0, 0, 0, 0), 0);
	hand__dismiss(h);
}

/* Threads that hold patterns in all registers and check them, that allocate, that come and go. */
Test(hand, leaves_a_busy_program_as_it_was)
{
	struct scene s = scene__start("busy", "spawn", NULL);
	const char *path = a_file();
	char before[32];
	target__say(s.target, "check");
	snprintf(before, sizeof(before), "%s", target__hear(s.target));
	cr_assert(strncmp(before, "ok", 2) == 0, "%s", before);
	for (int i = 0; i < 50; i++) {
		work(&s, path);
		target__ask(s.target, "check", before); /* the same number of open files, too */
	}
	struct map m;
	cr_assert_eq(maps__find(process__pid(s.p), path, &m, 1), 0);
	scene__close(&s);
	free(target__finish(s.target));
}

/* Not only when it is asked politely: the program's own fd table is never used, so a number that the
 * hand opened is not open in the program at any time. */
Test(hand, opens_files_in_a_table_of_its_own)
{
	struct scene s = scene__start("busy", NULL);
	struct hand *h = NULL;
	OK(hand__raise(s.p, &s.place, 5000, &h));
	const char *path = a_file();
	(void)map_file(&s, h, path);
	const char *fds = path_of("/proc/%d/fd", process__pid(s.p));
	for (int fd = 0; fd < 64; fd++) {
		char to[512];
		ssize_t n = readlink(path_of("%s/%d", fds, fd), to, sizeof(to) - 1);
		to[n > 0 ? n : 0] = '\0';
		cr_assert_str_neq(to, path);
	}
	size_t with_hand = scene__threads(&s);
	hand__dismiss(h);
	scene__wait_threads(&s, with_hand - 1);
	struct map m;
	cr_assert_eq(maps__find(process__pid(s.p), path, &m, 1), 1, "the mapping stays");
	scene__close(&s);
}

static void run_a_batch(bool withheld)
{
	struct scene s = scene__start("busy", NULL);
	struct hand *h = NULL;
	OK(hand__raise(s.p, &s.place, 5000, &h));
	int64_t at =
	    call(h, SYS_mmap, 0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0);
	cr_assert(at > 0);
	uint64_t a = (uint64_t)at;
	struct arch_batch_entry list[] = {
	    {SYS_mprotect, {a, 4096, PROT_READ}, 7},
	    {SYS_munmap, {a + 4096, 4096}, 7},
	    {SYS_munmap, {a + 1, 4096}, 7}, /* EINVAL */
	    {SYS_munmap, {a, 4096}, 7},
	};
	size_t done = 0;
	OK(hand__load_batch(h, list, 4));
	if (withheld)
		OK(hand__withhold_batch(h));
	OK(hand__run_batch(h, list, 4, &done));
	hand__dismiss(h);
	cr_assert_eq(done, 2);
	cr_assert_eq(list[0].result, 0);
	cr_assert_eq(list[1].result, 0);
	cr_assert_eq(list[2].result, -22);
	cr_assert_eq(list[3].result, 0);
	struct mappings m;
	OK(process__maps(s.p, &m));
	cr_assert_eq(mappings__at(&m, taddr(a))->prot, PROT_READ);
	cr_assert_null(mappings__at(&m, taddr(a + 4096)));
	cr_assert(mappings__at(&m, taddr(a + 8192)));
	mappings__free(&m);
	target__say(s.target, "check");
	cr_assert(strncmp(target__hear(s.target), "ok", 2) == 0);
	scene__close(&s);
}

Test(hand, runs_a_batch_to_its_first_failure)
{
	run_a_batch(false);
}

/* The hand runs first, and finds the batch then. */
Test(hand, runs_a_batch_that_was_withheld)
{
	run_a_batch(true);
}

/* The hand exits with the batch; what is asked of it afterwards is an error, not a hang. */
Test(hand, is_gone_after_a_batch)
{
	struct scene s = scene__start("busy", NULL);
	struct hand *h = NULL;
	int64_t result = 0;
	size_t done = 1;
	OK(hand__raise(s.p, &s.place, 5000, &h));
	OK(hand__load_batch(h, NULL, 0));
	OK(hand__run_batch(h, NULL, 0, &done));
	cr_assert_eq(done, 0);
	REFUSED(hand__call(h, SYS_getpid, (const uint64_t[6]){0}, &result), ERR_GONE, "hand");
	hand__dismiss(h);
	scene__close(&s);
}

Test(hand, notices_that_the_program_ended)
{
	struct scene s = scene__start("busy", NULL);
	struct hand *h = NULL;
	int64_t result = 0;
	OK(hand__raise(s.p, &s.place, 5000, &h));
	/* not target__kill(): its end is not announced to its parent before the hand is reaped */
	kill(process__pid(s.p), SIGKILL);
	REFUSED(hand__call(h, SYS_getpid, (const uint64_t[6]){0}, &result), ERR_GONE, "");
	hand__dismiss(h);
	REFUSED(hand__raise(s.p, &s.place, 100, &h), ERR_GONE, "");
	scene__close(&s);
}

/* A range of addresses is free when nobody is in there, or about to make a call about it. */
Test(hand, waits_for_who_is_in_a_range)
{
	struct scene s = scene__start("one_call", "futex", NULL);
	struct thread_view v = scene__wait_asleep(&s, 0, SYS_write);
	const struct trange ranges[] = {
	    {taddr(v.pc.v & ~4095ULL), taddr((v.pc.v & ~4095ULL) + 4096)}, /* its code */
	    {taddr(v.sp.v - 4096), v.sp},                                  /* a stack that is empty */
	    {taddr(v.arg[0]), taddr(v.arg[0] + 4)},                        /* what it calls about */
	};
	cr_assert_eq(v.nr, SYS_futex);
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		struct err *e = hand__await_range(s.p, ranges[i], 20);
		cr_assert(e && err__kind(e) == ERR_RETRY, "range %zu", i);
		err__free(e);
	}
	OK(hand__await_range(s.p, (struct trange){s.place.pads, taddr_add(s.place.pads, 4096)}, 20));
	scene__close(&s);
}
