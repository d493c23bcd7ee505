/* libc itself, of a process that loaded it plain, and of one that loaded it split: two real builds of Debian's libc6
 * with their debug information, in a mount namespace where the one takes the place of the other. tools/fetch-pair gets
 * them; where it cannot, the tests are skipped, and say so. */
#include <criterion/criterion.h>
#include <ftw.h>
#include <glob.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"
#include "support/support.h"
#include "support/target.h"

TestSuite(glibc, .fini = support__teardown, .timeout = 240);

#define OLD                "2.36-9+deb12u7"
#define NEW                "2.36-9+deb12u14"
#define LIBRARY            "/usr/lib/x86_64-linux-gnu"
#define LIBRARY_IN_PACKAGE "/lib/x86_64-linux-gnu"
#define DEBUG              "/usr/lib/debug"

enum kind { PLAIN, SPLIT };

struct builds {
	char libc[2][512], debug[2][512]; /* the trees of the packages, old and new */
	const char *split[2];             /* libc.so.6 of both, split; NULL: they are used as they are */
};

static void fetch(const char *package, const char *file, char tree[2][512])
{
	struct result r =
	    command__run((const char *const[]){SOURCE_DIR "/tools/fetch-pair", package, file, OLD, NEW, NULL}, 120);
	if (r.exit_code == 1)
		cr_skip_test("%s", r.err);
	cr_assert_eq(r.exit_code, 0, "fetch-pair %s: exit code %d\n%s", package, r.exit_code, r.err);
	cr_assert_eq(sscanf(r.out, "old %511s\nnew %511s\n", tree[0], tree[1]), 2, "%s", r.out);
	for (int i = 0; i < 2; i++)
		*(strstr(tree[i], i ? NEW : OLD) + strlen(i ? NEW : OLD)) = '\0';
	result__free(&r);
}

/* All of the package's libraries take the place of those that are installed. */
static void install(const struct builds *b, int which, const char *only)
{
	glob_t found;
	cr_assert_eq(glob(path_of("%s" LIBRARY_IN_PACKAGE "/*.so*", b->libc[which]), 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *there = path_of("%s%s", LIBRARY, strrchr(found.gl_pathv[i], '/'));
		bool split = b->split[which] && strcmp(strrchr(there, '/'), "/libc.so.6") == 0;
		if (access(there, F_OK) == 0 && (!only || strstr(there, only)))
			cr_assert_eq(mount(split ? b->split[which] : found.gl_pathv[i], there, NULL, MS_BIND, NULL), 0);
	}
	globfree(&found);
}

static int link_debug_file(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st, (void)at;
	const char *dot = strstr(path, "/.build-id/"), *slash = strrchr(path, '/');
	if (type != FTW_F || !dot)
		return 0;
	const char *folder = path_of(DEBUG "%.*s", (int)(slash - dot), dot);
	(void)mkdir(folder, 0755);
	return symlink(path, path_of("%s%s", folder, slash)) != 0;
}

static const char *split_one(const char *in, const char *name)
{
	const char *out = path_of("%s/%s", temp_dir(), name);
	struct result r = command__run((const char *const[]){COMMAND_DIR "/llusplit", in, "-o", out, NULL}, 60);
	cr_assert_eq(r.exit_code, 0, "%s%s", r.out, r.err);
	result__free(&r);
	return out;
}

static void split(struct builds *b)
{
	for (int i = 0; i < 2; i++)
		b->split[i] =
		    split_one(path_of("%s" LIBRARY_IN_PACKAGE "/libc.so.6", b->libc[i]), i ? "new.so" : "old.so");
}

/* A namespace of our own, with the old build, and with the debug information of both if it is wanted. */
static struct builds begin(enum kind kind, bool debug)
{
	struct builds b = {0};
	if (geteuid() != 0)
		cr_skip_test("only root can mount");
	fetch("libc6", "libc.so.6", b.libc);
	fetch("libc6-dbg", "copyright", b.debug);
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	cr_assert(access(DEBUG, F_OK) == 0 || mkdir(DEBUG, 0755) == 0);
	cr_assert_eq(mount("none", DEBUG, "tmpfs", 0, "mode=0755"), 0);
	cr_assert_eq(mkdir(DEBUG "/.build-id", 0755), 0);
	for (int i = 0; i < 2 && debug; i++)
		cr_assert_eq(nftw(b.debug[i], link_debug_file, 16, FTW_PHYS), 0);
	if (kind == SPLIT)
		split(&b);
	install(&b, 0, NULL);
	return b;
}

static struct target *start_with(const char *const env[])
{
	struct target *t = target__start((const char *const[]){FIXTURE_DIR "/glibc_driver", NULL}, env);
	target__expect(t, "ready");
	target__round(t);
	return t;
}

static struct target *start(void)
{
	return start_with(NULL);
}

static struct result llvupdate(const struct target *t, const char *tries, const char *seconds)
{
	return command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-p", path_of("%d", target__pid(t)),
						  "--delay", "0", "-n", tries, "-t", seconds, NULL},
			    120);
}

static void update(struct target *t, const char *says)
{
	struct result r = llvupdate(t, "3", "20");
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_expect(text__has(r.out, "libc.so.6 runs build "), "%s", r.out);
	cr_expect(!says || text__has(r.out, says), "no '%s' in %s", says, r.out);
	result__free(&r);
}

static void refuse(struct target *t, const char *why)
{
	struct result r = llvupdate(t, "1", "2");
	cr_assert_eq(r.exit_code, 3, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_expect(text__has(r.out, why), "no '%s' in %s", why, r.out);
	result__free(&r);
}

static void finish(struct target *t)
{
	char *rest = target__finish(t);
	cr_expect_str_eq(rest, "exited\n"); /* what atexit(3) was told */
	free(rest);
}

/* Each facility is in the middle of its work when the code is exchanged. */
static void exchange_at_work(enum kind kind, const char *says)
{
	struct builds b = begin(kind, true);
	struct target *t = start();
	target__ask(t, "begin", "begun");
	for (int next = 1; next >= 0; next--) {
		install(&b, next, NULL);
		update(t, says);
		target__round(t);
	}
	target__ask(t, "end", "ended");
	target__round(t);
	finish(t);
}

Test(glibc, everything_at_work)
{
	exchange_at_work(PLAIN, "unprepared: [0-9]+ functions moved");
}

Test(glibc, everything_at_work_split)
{
	exchange_at_work(SPLIT, "the old code is gone");
}

/* An allocator that was preloaded, which libc itself calls, and another function that takes the place of libc's. */
static void exchange_below_others(enum kind kind)
{
	struct builds b = begin(kind, true);
	struct target *t = start_with(
	    (const char *const[]){path_of("LD_PRELOAD=%s", fixture_library("interpose", "libinterpose.so.1")), NULL});
	for (int next = 1; next >= 0; next--) {
		install(&b, next, NULL);
		update(t, NULL);
		target__round(t);
	}
	finish(t);
}

Test(glibc, interposed_functions)
{
	exchange_below_others(PLAIN);
}

Test(glibc, interposed_functions_split)
{
	exchange_below_others(SPLIT);
}

Test(glibc, the_loader_waits_for_a_restart)
{
	struct builds b = begin(PLAIN, true);
	struct target *t = start();
	install(&b, 1, NULL);
	update(t, "[0-9]+ functions of the dynamic loader changed too: that part waits for a restart");
	finish(t);
}

/* One that is in what changes is in the way, and named; then it is not. */
static void exchange_around(enum kind kind)
{
	struct builds b = begin(kind, true);
	struct target *t = start();
	target__ask(t, "hold", "held");
	install(&b, 1, NULL);
	refuse(t, "thread [0-9]+: it (sleeps in a call that a stop would disturb|is inside the code|will return into)");
	target__ask(t, "release", "released");
	update(t, NULL);
	target__round(t);
	finish(t);
}

Test(glibc, a_thread_in_what_changes)
{
	exchange_around(PLAIN);
}

Test(glibc, a_thread_in_what_changes_split)
{
	exchange_around(SPLIT);
}

/* ---- on a split libc ---- */

static char *run_programs(size_t *n)
{
	enum { MINUTES = 3 };
	struct result r = command__run((const char *const[]){SOURCE_DIR "/fixtures/programs.sh", NULL}, MINUTES * 60);
	char *out = strdup(r.out);
	cr_assert_eq(r.exit_code, 0, "%s", r.err);
	*n = 0;
	for (const char *line = out; (line = strstr(line, ": 0, ")); line++)
		++*n;
	result__free(&r);
	return out;
}

/* Programs of the distribution say and do the same on the C library as it is and on the same, split. */
Test(glibc, programs_run_unchanged)
{
	enum { AT_LEAST = 200 };
	size_t n_plain, n_split;
	if (geteuid() != 0)
		cr_skip_test("only root can mount");
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	char *plain = run_programs(&n_plain);
	const char *split = split_one(LIBRARY "/libc.so.6", "libc.so");
	cr_assert_eq(mount(split, LIBRARY "/libc.so.6", NULL, MS_BIND, NULL), 0);
	char *on_split = run_programs(&n_split);
	cr_expect_geq(n_plain, AT_LEAST, "only %zu programs told their version", n_plain);
	cr_expect_str_eq(on_split, plain);
	free(plain);
	free(on_split);
}

/* ---- what is refused ---- */

/* Without debug information nobody can tell what one of the functions means. */
Test(glibc, without_debug_information)
{
	struct builds b = begin(PLAIN, false);
	struct target *t = start();
	install(&b, 1, NULL);
	refuse(t, "libc.so.6 is not updated: ");
	target__round(t);
	finish(t);
}

/* The package manager is between two files. */
Test(glibc, half_installed)
{
	struct builds b = begin(PLAIN, true);
	struct target *t = start();
	install(&b, 1, "/libc.so.6");
	refuse(t, "libc.so.6 and the dynamic loader on disk are not of one build");
	install(&b, 1, NULL);
	update(t, NULL);
	target__round(t);
	finish(t);
}

/* A part that cannot be updated stays, and the others do without it. */
Test(glibc, a_part_stays)
{
	struct builds b = begin(PLAIN, true);
	struct target *t =
	    target__start((const char *const[]){"/usr/bin/python3", SOURCE_DIR "/fixtures/lzma_worker.py", NULL}, NULL);
	target__expect(t, "ready");
	target__round(t);
	install(&b, 1, NULL);
	struct result r = llvupdate(t, "3", "20");
	cr_expect(text__has(r.out, "libm.so.6 is not updated: .* is an IFUNC in one build only"), "%s", r.out);
	cr_expect(text__has(r.out, "libc.so.6 runs build "), "%s", r.out);
	cr_expect_eq(r.exit_code, 3);
	result__free(&r);
	target__round(t);
	free(target__finish(t));
}
