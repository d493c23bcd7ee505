/* Plans that are made once: when one is taken from the store, and when not. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/plans.h"
#include "remap/plan_cache.h"
#include "support/support.h"

TestSuite(plan_cache, .fini = support__teardown, .timeout = 120);

static const char *fixture(const char *variant, const char *name)
{
	return path_of(FIXTURE_DIR "/lib/%s/lib%s.so.1", variant, name);
}

static struct step a_step(void)
{
	return step__first(fixture("v1", "state"), fixture("v2", "state"));
}

/* Plans with `c`; the plan must be as if it was made. Was it from the cache? */
static bool is_cached_by(struct plan_cache *c, const struct step *s)
{
	struct plan *p, *fresh = step__plan(s);
	bool cached;
	struct err *e = plan_cache__plan(c, s->vapi, s->live, &s->map, s->next, &p, &cached);

	cr_assert(e == NULL, "%s", err__text(e));
	plan__expect_same(fresh, p);
	plan__free(fresh);
	plan__free(p);
	return cached;
}

/* The same in an operation of its own. */
static bool is_cached(const char *folder, const struct step *s)
{
	struct plan_cache *c = plan_cache__open(folder);
	bool cached = is_cached_by(c, s);

	plan_cache__close(c);
	return cached;
}

/* The only file in a folder. */
static const char *file_in(const char *folder)
{
	DIR *d = opendir(folder);
	const char *found = NULL;

	cr_assert(d != NULL, "no %s", folder);
	for (struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		cr_assert(found == NULL, "%s and %s", found, e->d_name);
		found = path_of("%s/%s", folder, e->d_name);
	}
	closedir(d);
	return found;
}

Test(plan_cache, a_plan_is_made_once)
{
	const char *folder = path_of("%s/a/b", temp_dir());
	struct step s = a_step();
	struct stat st;

	cr_assert(!is_cached(folder, &s));
	cr_assert(is_cached(folder, &s));
	cr_assert(stat(file_in(folder), &st) == 0 && (st.st_mode & 07777) == 0600, "mode %o", st.st_mode);
	step__free(&s);
}

Test(plan_cache, also_for_an_updated_process_and_a_refusal)
{
	const char *folder = temp_dir();
	struct step s = a_step(), refused = step__first(fixture("v1", "stream"), fixture("heap-grown", "stream"));
	struct plan *p = step__plan(&s);

	cr_assert(!is_cached(folder, &s));
	step__go_on(&s, p, fixture("v3", "state"), NULL);
	cr_assert(!is_cached(folder, &s));
	cr_assert(is_cached(folder, &s));
	s.map.base += LLU_PAGE; /* another place in the window */
	cr_assert(!is_cached(folder, &s));
	cr_assert(!is_cached(folder, &refused));
	cr_assert(is_cached(folder, &refused));
	plan__free(p);
	step__free(&s);
	step__free(&refused);
}

/* Within one operation it needs no folder. */
Test(plan_cache, works_without_a_folder)
{
	const char *dir = temp_dir(), *file = path_of("%s/file", dir);
	struct step s = a_step();

	file__write(file, "", 0);
	struct plan_cache *c = plan_cache__open(path_of("%s/below", file));
	cr_assert(!is_cached_by(c, &s));
	cr_assert(is_cached_by(c, &s));
	plan_cache__close(c);
	cr_assert(!is_cached(path_of("%s/below", file), &s));
	step__free(&s);
}

Test(plan_cache, damage_is_made_good)
{
	const char *folder = temp_dir();
	struct step s = a_step();

	is_cached(folder, &s);
	const char *file = file_in(folder);
	size_t size = file__size(file);
	for (size_t i = 0; i <= 8; i++) {
		file__patch(file, i * (size - 1) / 8, "?!", i < 8 ? 2 : 1);
		cr_assert(!is_cached(folder, &s), "damaged at %zu", i * (size - 1) / 8);
		cr_assert(is_cached(folder, &s));
		file__truncate(file, i * size / 9);
		cr_assert(!is_cached(folder, &s), "of %zu bytes", i * size / 9);
		cr_assert(is_cached(folder, &s));
	}
	step__free(&s);
}

/* What stands under the name is not what was kept there. */
Test(plan_cache, what_others_could_have_written_is_not_used)
{
	const char *folder = temp_dir(), *kept = path_of("%s/kept", temp_dir());
	struct step s = a_step();

	is_cached(folder, &s);
	const char *file = file_in(folder);
	cr_assert(chmod(file, 0620) == 0);
	cr_assert(!is_cached(folder, &s), "writable to the group");
	cr_assert(chmod(file, 0602) == 0);
	cr_assert(!is_cached(folder, &s), "writable to all");
	if (geteuid() == 0) {
		cr_assert(chown(file, 65534, 0) == 0);
		cr_assert(!is_cached(folder, &s), "of another user");
	}
	cr_assert(is_cached(folder, &s), "replaced");
	cr_assert(rename(file, kept) == 0 && symlink(kept, file) == 0);
	cr_assert(!is_cached(folder, &s), "a symbolic link");
	cr_assert(unlink(file) == 0 && mkfifo(file, 0600) == 0);
	cr_assert(!is_cached(folder, &s), "a FIFO");
	cr_assert(unlink(file) == 0 && mkdir(file, 0700) == 0);
	cr_assert(!is_cached(folder, &s), "a folder");
	cr_assert(!is_cached(folder, &s), "a folder still");
	cr_assert(rmdir(file) == 0 && rename(kept, file) == 0);
	cr_assert(is_cached(folder, &s));
	step__free(&s);
}

Test(plan_cache, nor_is_a_folder_of_others)
{
	const char *folder = temp_dir(), *link = path_of("%s/link", temp_dir());
	struct step s = a_step();

	is_cached(folder, &s);
	cr_assert(symlink(folder, link) == 0);
	cr_assert(!is_cached(link, &s), "a symbolic link");
	cr_assert(chmod(folder, 0775) == 0);
	cr_assert(!is_cached(folder, &s), "writable to the group");
	cr_assert(unlink(file_in(folder)) == 0);
	cr_assert(!is_cached(folder, &s) && file_in(folder) == NULL, "written to");
	cr_assert(chmod(folder, 0755) == 0);
	if (geteuid() == 0) {
		cr_assert(chown(folder, 65534, 0) == 0);
		cr_assert(!is_cached(folder, &s) && file_in(folder) == NULL, "of another user");
	}
	step__free(&s);
}

/* All begin when the pipe is closed, make the same plan and put it in the same place. */
Test(plan_cache, several_at_once)
{
	enum { TOOLS = 6 };
	const char *folder = temp_dir();
	struct step s = a_step();
	pid_t pids[TOOLS];
	int start[2];

	cr_assert(pipe(start) == 0);
	for (int i = 0; i < TOOLS; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			char c;
			struct plan *p;
			bool cached;
			close(start[1]);
			if (read(start[0], &c, 1) != 0)
				_exit(2);
			struct plan_cache *cache = plan_cache__open(folder);
			struct err *e = plan_cache__plan(cache, s.vapi, s.live, &s.map, s.next, &p, &cached);
			_exit(e || p->refusals.n ? 1 : 0);
		}
	}
	close(start[0]);
	close(start[1]);
	for (int i = 0; i < TOOLS; i++)
		cr_assert_eq(command__wait(pids[i], 60), 0);
	cr_assert(file_in(folder) != NULL, "one file, and nothing left beside it");
	cr_assert(is_cached(folder, &s));
	step__free(&s);
}

static void sparse_file(const char *path, off_t size, time_t used)
{
	const struct timespec t[2] = {{.tv_sec = used}, {.tv_sec = used}};
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	cr_assert(fd >= 0 && ftruncate(fd, size) == 0 && futimens(fd, t) == 0, "%s: %s", path, strerror(errno));
	close(fd);
}

/* Over 256 MiB, what was used longest ago goes; a plan that is used stays. */
Test(plan_cache, the_folder_is_bounded)
{
	const char *folder = temp_dir();
	struct step s = a_step(), other = step__first(fixture("v1", "tls"), fixture("v2", "tls"));

	is_cached(folder, &s);
	const char *file = file_in(folder);
	const struct timespec long_ago[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
	sparse_file(path_of("%s/older", folder), 200 << 20, 1000);
	sparse_file(path_of("%s/newer", folder), 200 << 20, 2000);
	cr_assert(utimensat(AT_FDCWD, file, long_ago, 0) == 0);
	cr_assert(is_cached(folder, &s), "it is the oldest, and used now");
	cr_assert(!is_cached(folder, &other));
	cr_assert(access(path_of("%s/older", folder), F_OK) != 0 && access(path_of("%s/newer", folder), F_OK) == 0);
	cr_assert(is_cached(folder, &s) && is_cached(folder, &other));
	step__free(&s);
	step__free(&other);
}

/* Runs a command of binutils. */
static void run(const char *const argv[])
{
	struct result r = command__run(argv, 60);

	cr_assert_eq(r.exit_code, 0, "%s: %s", argv[0], r.err);
	result__free(&r);
}

/* A plan made without debug information is not used when there is some, nor the reverse. The test has
 * a /usr/lib/debug of its own. */
Test(plan_cache, debug_information_that_comes_and_goes)
{
	if (geteuid() != 0)
		cr_skip_test("only root can make a mount namespace");
	const char *dir = temp_dir(), *with = fixture("v1-debug", "stream"), *without = path_of("%s/stripped", dir);

	cr_assert(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		      mount("none", "/usr/lib/debug", "tmpfs", 0, NULL) == 0,
		  "%s", strerror(errno));
	run((const char *const[]){"strip", "-o", without, with, NULL});
	struct step s = step__first(without, without);
	char *id = elf_file__build_id(s.next);
	const char *folder = path_of("%s/cache", dir), *debug_dir = path_of("/usr/lib/debug/.build-id/%.2s", id);
	const char *debug = path_of("%s/%s.debug", debug_dir, id + 2);
	cr_assert(!is_cached(folder, &s));
	cr_assert(is_cached(folder, &s));
	cr_assert(mkdir("/usr/lib/debug/.build-id", 0755) == 0 && mkdir(debug_dir, 0755) == 0);
	run((const char *const[]){"objcopy", "--only-keep-debug", with, debug, NULL});
	cr_assert(!is_cached(folder, &s), "debug information has come");
	struct plan *p = step__plan(&s);
	cr_assert_eq(p->layout, LAYOUT_PROVED);
	plan__free(p);
	cr_assert(is_cached(folder, &s));
	run((const char *const[]){"objcopy", "--only-keep-debug", with, debug, NULL});
	cr_assert(!is_cached(folder, &s), "debug information was replaced");
	cr_assert(unlink(debug) == 0);
	cr_assert(is_cached(folder, &s), "as it was at first");
	free(id);
	step__free(&s);
}
