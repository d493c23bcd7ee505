/* What is outdated in a process: as administrators meet it, and as somebody would make it who wants to hide or confuse.
 * Every test looks twice: as is fastest, and by the text of maps. */
#include "machine/outdated.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "support/forked.h"
#include "support/support.h"
#include "support/target.h"

TestSuite(outdated, .fini = support__teardown, .timeout = 120);

enum { PAGE = 4096 };

/* ---- processes ---- */

/* exec(2) says which program it is before that is mapped. */
static bool has_code_of(pid_t pid, const char *path)
{
	struct map maps[8];
	size_t n = maps__find(pid, path, maps, 8);
	for (size_t i = 0; i < n && i < 8; i++)
		if (maps[i].prot[2] == 'x')
			return true;
	return false;
}

/* Starts a copy of sleep(1), and waits until it runs. */
static pid_t program(const char *path)
{
	struct target *t = target__start((const char *const[]){path, "1000", NULL}, NULL);
	pid_t pid = target__pid(t);
	char link[32], exe[512];
	snprintf(link, sizeof(link), "/proc/%d/exe", pid);
	for (int64_t start = support__now_ms(); support__now_ms() - start < 10000; usleep(1000)) {
		ssize_t n = readlink(link, exe, sizeof(exe) - 1);
		exe[n > 0 ? n : 0] = '\0';
		if (strcmp(exe, path) == 0 && has_code_of(pid, path))
			return pid;
	}
	cr_assert_fail("%s does not run", path);
	return pid;
}

/* No two have the same bytes. */
static void file(const char *path)
{
	static unsigned n;
	char page[PAGE] = {0};
	snprintf(page, sizeof(page), "%d %u", getpid(), n++);
	unlink(path);
	file__write(path, page, sizeof(page));
}

/* As dpkg does. */
static void replace(const char *path)
{
	const char *fresh = path_of("%s.fresh", path);
	file(fresh);
	cr_assert_eq(rename(fresh, path), 0);
}

/* ---- what is expected ---- */

static const enum scan_how hows[] = {SCAN_BEST, SCAN_TEXT};

/* "PATH\nKIND HOW\n" of each. */
static char *said(const struct outdated *o)
{
	static const char *const kinds[] = {"program", "library", "other"}, *const how[] = {"replaced", "deleted"};
	char *all = xstrdup("");
	for (size_t i = 0; i < o->files.n; i++) {
		const struct outdated_file *f = &o->files.items[i];
		char *more = xasprintf("%s%s %s %s\n", all, f->path, kinds[f->kind], how[f->how]);
		free(all);
		all = more;
	}
	return all;
}

static void expect_updated(pid_t pid, const char *want, bool updated)
{
	for (size_t i = 0; i < 2; i++) {
		struct scan *s = scan__new(hows[i]);
		for (int twice = 0; twice < 2; twice++) { /* the second time it is known */
			struct outdated o;
			struct err *e = scan__process(s, pid, &o);
			cr_assert_null(e, "%s", err__text(e));
			FREE_CLEANUP char *have = said(&o);
			cr_expect_str_eq(have, want, "how %zu: %s", i, have);
			cr_expect_eq(o.updated, updated, "how %zu", i);
			outdated__free(&o);
		}
		scan__free(s);
	}
}

static void expect(pid_t pid, const char *want)
{
	expect_updated(pid, want, false);
}

/* ---- as administrators meet it ---- */

Test(outdated, library)
{
	const char *path = path_of("%s/libx.so.1", temp_dir());
	file(path);
	pid_t pid = forked__start(map_code, path);
	expect(pid, "");
	replace(path);
	expect(pid, path_of("%s library replaced\n", path));
	unlink(path);
	expect(pid, path_of("%s library deleted\n", path));
	mkdir(path, 0755);
	expect(pid, path_of("%s library replaced\n", path));
	forked__end(pid);
}

/* As a package that is installed once more. */
Test(outdated, same_bytes_once_more)
{
	const char *path = path_of("%s/libx.so.1", temp_dir()), *copy = path_of("%s.copy", path);
	if (geteuid() != 0)
		cr_skip_test("not root");
	file(path);
	file__copy(path, copy);
	pid_t pid = forked__start(map_code, path);
	cr_assert_eq(rename(copy, path), 0);
	expect(pid, "");
	replace(path);
	expect(pid, path_of("%s library replaced\n", path));
	forked__end(pid);
}

/* The copy has other bytes, behind all sections, and the same build-id. */
Test(outdated, same_build_id)
{
	const char *path = path_of("%s/libx.so.1", temp_dir()), *copy = path_of("%s.copy", path);
	if (geteuid() != 0)
		cr_skip_test("not root");
	file__copy("/bin/sleep", path);
	file__copy("/bin/sleep", copy);
	file__truncate(copy, file__size(copy) + 1);
	pid_t pid = forked__start(map_code, path);
	cr_assert_eq(rename(copy, path), 0);
	expect(pid, "");
	file__copy("/bin/cat", copy);
	cr_assert_eq(rename(copy, path), 0);
	expect(pid, path_of("%s library replaced\n", path));
	forked__end(pid);
}

Test(outdated, program)
{
	const char *path = path_of("%s/prog", temp_dir());
	file__copy("/bin/sleep", path);
	chmod(path, 0755);
	pid_t pid = program(path);
	expect(pid, "");
	replace(path);
	expect(pid, path_of("%s program replaced\n", path));
	unlink(path);
	expect(pid, path_of("%s program deleted\n", path));
}

static void map_twice(const char *path)
{
	char other[512];
	snprintf(other, sizeof(other), "%s.jit", path);
	map_code(path);
	map_code(other);
	map_code(path);
}

Test(outdated, files_are_said_once)
{
	const char *path = path_of("%s/libx.so.1", temp_dir()), *other = path_of("%s.jit", path);
	file(path);
	file(other);
	pid_t pid = forked__start(map_twice, path);
	replace(path);
	unlink(other);
	struct scan *s = scan__new(SCAN_BEST);
	struct outdated o;
	struct err *e = scan__process(s, pid, &o);
	cr_assert_null(e);
	cr_assert_eq(o.files.n, 2);
	outdated__free(&o);
	scan__free(s);
	forked__end(pid);
}

Test(outdated, kinds)
{
	static const struct {
		const char *name, *kind;
	} cases[] = {{"libx.so", "library"},   {"libx.so.1.2", "library"}, {"ld-linux-x86-64.so.2", "library"},
		     {"x.sorry", "other"},     {"classes.jsa", "other"},   {".so", "other"},
		     {"x.so.d.jit", "library"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *path = path_of("%s/%s", temp_dir(), cases[i].name);
		file(path);
		pid_t pid = forked__start(map_code, path);
		replace(path);
		expect(pid, path_of("%s %s replaced\n", path, cases[i].kind));
		forked__end(pid);
	}
}

Test(outdated, file_that_is_linked_again)
{
	const char *path = path_of("%s/libx.so.1", temp_dir()), *backup = path_of("%s.dpkg-tmp", path);
	file(path);
	pid_t pid = forked__start(map_code, path);
	cr_assert_eq(link(path, backup), 0);
	unlink(path);
	expect(pid, path_of("%s library deleted\n", path));
	cr_assert_eq(rename(backup, path), 0);
	expect(pid, "");
	forked__end(pid);
}

static void map_memory(const char *unused)
{
	(void)unused;
	int fd = memfd_create("x.so", MFD_CLOEXEC), id = shmget(IPC_PRIVATE, PAGE, 0700);
	void *shm = shmat(id, NULL, SHM_EXEC);
	shmctl(id, IPC_RMID, NULL);
	if (ftruncate(fd, PAGE) < 0 || shm == (void *)-1 ||
	    mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ||
	    mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		_exit(1);
	map_code_of(fd);
}

Test(outdated, memory_is_no_file)
{
	pid_t pid = forked__start(map_memory, NULL);
	expect(pid, "");
	forked__end(pid);
}

/* ---- processes that llvupdate has been to ---- */

Test(outdated, image_of_llvupdate_is_not_outdated_code)
{
	const char *folder = path_of("%s/llu", temp_dir()), *path = path_of("%s/libx.so-0123456789abcdef", folder),
		   *no = path_of("%s/libx.so-0123456789abcdeg", folder);
	mkdir(folder, 0755);
	file(path);
	pid_t pid = forked__start(map_code, path);
	expect_updated(pid, "", true);
	unlink(path);
	expect_updated(pid, "", true);
	forked__end(pid);
	file(no);
	pid = forked__start(map_code, no);
	unlink(no);
	expect(pid, path_of("%s other deleted\n", no));
	forked__end(pid);
}

static void map_memfd_image(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	if (ftruncate(fd, PAGE) < 0)
		_exit(1);
	map_code_of(fd);
}

Test(outdated, image_in_memory)
{
	pid_t pid = forked__start(map_memfd_image, "llu-image");
	expect_updated(pid, "", true);
	forked__end(pid);
}

/* ---- names ---- */

Test(outdated, name_that_ends_as_if_deleted)
{
	const char *dir = temp_dir(), *plain = path_of("%s/x.so", dir), *path = path_of("%s/x.so (deleted)", dir);
	file(path);
	pid_t pid = forked__start(map_code, path);
	expect(pid, "");
	file(plain); /* another file, of no importance */
	expect(pid, "");
	replace(path);
	expect(pid, path_of("%s other replaced\n", path));
	unlink(path);
	expect(pid, path_of("%s other deleted\n", path));
	forked__end(pid);

	/* the other way round: a file that seems to be the deleted one */
	pid = forked__start(map_code, plain);
	unlink(plain);
	file(path);
	expect(pid, path_of("%s library deleted\n", plain));
	forked__end(pid);
}

Test(outdated, name_with_newlines_and_escapes)
{
	static const char *const names[] = {
	    "a\nb.so",      "a\\012b.so", "a\n\\012b.so", "x\n7f00-7f01 r-xp 0 00:00 1 passwd (deleted)\n.so",
	    "a\033[2Jb.so", "a b .so",    " .so",         "\377.so"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *path = path_of("%s/%s", temp_dir(), names[i]);
		file(path);
		pid_t pid = forked__start(map_code, path);
		expect(pid, "");
		replace(path);
		expect(pid, path_of("%s library replaced\n", path));
		forked__end(pid);
	}
}

Test(outdated, name_like_that_of_memory)
{
	const char *path = "/memfd:llu-test.so";
	if (access("/", W_OK) < 0)
		cr_skip_test("the root is not writable");
	file(path);
	pid_t pid = forked__start(map_code, path);
	replace(path);
	expect(pid, path_of("%s library replaced\n", path));
	unlink(path);
	expect(pid, path_of("%s library deleted\n", path));
	forked__end(pid);
}

enum { FOLDERS = 40 };

static void map_deep(const char *top)
{
	char name[201] = "";
	memset(name, 'd', sizeof(name) - 1);
	if (chdir(top) < 0)
		_exit(1);
	for (int i = 0; i < FOLDERS; i++)
		if (mkdir(name, 0755) < 0 || chdir(name) < 0)
			_exit(1);
	file("deep.so");
	map_code("deep.so");
}

/* Where PATH_MAX is not enough nothing can be looked up, and the kernel's word must do. */
Test(outdated, path_longer_than_any_system_call_takes)
{
	const char *top = temp_dir();
	pid_t pid = forked__start(map_deep, top);
	for (size_t i = 0; i < 2; i++) {
		struct scan *s = scan__new(hows[i]);
		struct outdated o;
		struct err *e = scan__process(s, pid, &o);
		cr_assert_null(e, "%s", err__text(e));
		cr_expect_eq(o.files.n, 0);
		outdated__free(&o);
		scan__free(s);
	}
	struct result r = command__run((const char *const[]){"find", top, "-name", "deep.so", "-delete", NULL}, 30);
	cr_assert_eq(r.exit_code, 0, "%s", r.err);
	result__free(&r);
	for (size_t i = 0; i < 2; i++) {
		struct scan *s = scan__new(hows[i]);
		struct outdated o;
		struct err *e = scan__process(s, pid, &o);
		cr_assert_null(e, "%s", err__text(e));
		cr_assert_eq(o.files.n, 1);
		cr_expect_eq(o.files.items[0].how, OUTDATED_DELETED);
		cr_expect_eq(strlen(o.files.items[0].path), strlen(top) + FOLDERS * 201 + strlen("/deep.so"));
		outdated__free(&o);
		scan__free(s);
	}
	forked__end(pid);
}

/* ---- other roots ---- */

static void map_and_chroot(const char *dir)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/x.so", dir);
	map_code(path);
	snprintf(path, sizeof(path), "%s/jail", dir);
	if (chroot(path) < 0)
		_exit(1);
	map_code("/y.so");
}

Test(outdated, process_that_changed_its_root)
{
	const char *dir = temp_dir(), *x = path_of("%s/x.so", dir), *y = path_of("%s/jail/y.so", dir);
	if (geteuid() != 0)
		cr_skip_test("not root");
	mkdir(path_of("%s/jail", dir), 0755);
	file(x);
	file(y);
	pid_t pid = forked__start(map_and_chroot, dir);
	expect(pid, "");
	replace(x);
	expect(pid, path_of("%s library replaced\n", x));
	replace(y);
	unlink(x);
	struct scan *s = scan__new(SCAN_BEST);
	struct outdated o;
	struct err *e = scan__process(s, pid, &o);
	cr_assert_null(e);
	cr_expect_eq(o.files.n, 2);
	outdated__free(&o);
	scan__free(s);
	forked__end(pid);
}

static void unshared(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		_exit(1);
}

static void map_in_other_mounts(const char *dir)
{
	unshared();
	if (mount("none", dir, "tmpfs", 0, NULL) < 0)
		_exit(1);
	char path[512];
	snprintf(path, sizeof(path), "%s/x.so", dir);
	file(path);
	snprintf(path, sizeof(path), "%s/jail", dir);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/jail/y.so", dir);
	file(path);
	map_and_chroot(dir);
}

/* The path means another file where the tool is, or none. */
Test(outdated, process_in_a_mount_namespace)
{
	const char *dir = temp_dir(), *x = path_of("%s/x.so", dir), *jail = path_of("%s/jail", dir);
	if (geteuid() != 0)
		cr_skip_test("not root");
	file(x);
	pid_t pid = forked__start(map_in_other_mounts, dir);
	expect(pid, "");
	unlink(x);
	expect(pid, "");
	const char *inside = path_of("/proc/%d/root/y.so", pid), *other = path_of("/proc/%d/root/fresh", pid);
	file(other);
	cr_assert_eq(rename(other, inside), 0);
	expect(pid, path_of("%s/y.so library replaced\n", jail));
	unlink(inside);
	cr_assert_eq(symlink(path_of("%s/x.so", dir), inside), 0); /* absolute: within the other tree */
	expect(pid, path_of("%s/y.so library replaced\n", jail));
	unlink(inside);
	cr_assert_eq(symlink("nowhere", inside), 0);
	expect(pid, path_of("%s/y.so library deleted\n", jail));
	forked__end(pid);
}

static void map_in_overlay(const char *dir)
{
	char options[2048], path[512];
	unshared();
	snprintf(options, sizeof(options), "lowerdir=%s/lower,upperdir=%s/upper/u,workdir=%s/upper/w", dir, dir, dir);
	snprintf(path, sizeof(path), "%s/upper", dir);
	if (mount("none", path, "tmpfs", 0, NULL) < 0)
		_exit(1);
	strcat(path, "/u");
	mkdir(path, 0755);
	path[strlen(path) - 1] = 'w';
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/merged", dir);
	if (mount("overlay", path, "overlay", 0, options) < 0)
		_exit(1);
	strcat(path, "/x.so");
	map_code(path);
	snprintf(path, sizeof(path), "%s/merged/y.so", dir);
	file(path);
	map_code(path);
}

/* As in containers: layers of two file systems, and one file of each. */
Test(outdated, file_of_an_overlay)
{
	const char *dir = temp_dir(), *merged = path_of("%s/merged", dir);
	struct result r = command__run((const char *const[]){"grep", "-qw", "overlay", "/proc/filesystems", NULL}, 10);
	bool overlay = r.exit_code == 0;
	result__free(&r);
	if (geteuid() != 0 || !overlay)
		cr_skip_test("no overlayfs here");
	mkdir(path_of("%s/lower", dir), 0755);
	mkdir(path_of("%s/upper", dir), 0755);
	mkdir(merged, 0755);
	file(path_of("%s/lower/x.so", dir));
	pid_t pid = forked__start(map_in_overlay, dir);
	expect(pid, "");
	const char *inside = path_of("/proc/%d/root%s", pid, merged);
	chmod(path_of("%s/x.so", inside), 0644); /* now it is copied to the upper layer */
	expect(pid, "");
	file(path_of("%s/fresh", inside));
	rename(path_of("%s/fresh", inside), path_of("%s/x.so", inside));
	expect(pid, path_of("%s/x.so library replaced\n", merged));
	unlink(path_of("%s/x.so", inside));
	expect(pid, path_of("%s/x.so library deleted\n", merged));
	forked__end(pid);
}

/* ---- processes that are not there, or not for us ---- */

static enum err_kind kind_of_failure(pid_t pid)
{
	struct scan *s = scan__new(SCAN_BEST);
	struct outdated o;
	struct err *e = scan__process(s, pid, &o);
	cr_assert_not_null(e);
	enum err_kind kind = err__kind(e);
	cr_expect_eq(o.files.n, 0);
	err__free(e);
	scan__free(s);
	return kind;
}

Test(outdated, no_process)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	siginfo_t info;
	waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
	expect(pid, ""); /* a zombie */
	waitpid(pid, NULL, 0);
	cr_expect_eq(kind_of_failure(pid), ERR_GONE);
	cr_expect_eq(kind_of_failure(0), ERR_USAGE);
	cr_expect_eq(kind_of_failure(-1), ERR_USAGE);
}

/* Whatever a process does meanwhile, it has nothing outdated, or is gone. */
Test(outdated, process_that_ends_meanwhile)
{
	for (size_t i = 0; i < 2; i++) {
		struct scan *s = scan__new(hows[i]);
		for (int n = 0; n < 100; n++) {
			pid_t pid = fork();
			if (pid == 0) {
				if (n % 2)
					execl("/bin/true", "true", (char *)NULL);
				_exit(0);
			}
			struct outdated o;
			for (struct err *e = NULL; !e && waitpid(pid, NULL, WNOHANG) == 0;) {
				e = scan__process(s, pid, &o);
				cr_expect(!e || err__kind(e) == ERR_GONE, "%s", err__text(e));
				cr_expect_eq(o.files.n, 0);
				outdated__free(&o);
				err__free(e);
				e = NULL;
			}
		}
		scan__free(s);
	}
}

/* For processes of the test, which cannot fail it by themselves. */
static bool is_said(pid_t pid, const char *want)
{
	bool ok = true;
	for (size_t i = 0; i < 2; i++) {
		struct scan *s = scan__new(hows[i]);
		struct outdated o;
		ERR_CLEANUP struct err *e = scan__process(s, pid, &o);
		FREE_CLEANUP char *have =
		    e ? xstrdup(err__kind(e) == ERR_PERMISSION ? "no right" : "failed") : said(&o);
		ok = ok && strcmp(have, want) == 0;
		outdated__free(&o);
		scan__free(s);
	}
	return ok;
}

/* Somebody who is not root sees his own processes, without the right to look at mapped files, and no others. */
Test(outdated, as_somebody)
{
	enum { SOMEBODY = 65534 };
	const char *dir = temp_dir(), *path = path_of("%s/prog", dir);
	if (geteuid() != 0)
		cr_skip_test("not root");
	chmod(dir, 0755);
	file__copy("/bin/sleep", path);
	chmod(path, 0755);
	pid_t roots = forked__start(map_code, path), pid = fork();
	if (pid == 0) {
		if (setgroups(0, NULL) || setgid(SOMEBODY) || setuid(SOMEBODY))
			_exit(1);
		pid_t own = program(path);
		bool ok = is_said(own, "") && is_said(roots, "no right");
		kill(getpid(), SIGSTOP);
		ok = ok && is_said(own, path_of("%s program replaced\n", path));
		targets__kill_all();
		_exit(ok ? 0 : 3);
	}
	int status;
	waitpid(pid, &status, WUNTRACED);
	cr_assert(WIFSTOPPED(status), "%x", (unsigned)status);
	replace(path);
	kill(pid, SIGCONT);
	waitpid(pid, &status, 0);
	cr_expect_eq(status, 0, "%x", (unsigned)status);
	forked__end(roots);
}
