/* Whose process it is, who runs the tool, and who could have put the new library there. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "place.h"

TestSuite(users, .init = place__want_root, .fini = support__teardown);

static const char userns[] = FIXTURE_DIR "/userns";

enum { NOBODY = 65534, SOMEBODY = 1234 };

#define SETPRIV   "/usr/bin/setpriv"
#define AS_NOBODY "--reuid=65534", "--regid=65534", "--clear-groups"

/* DIR/lib, and what is in it, belong to a user. */
static void give(const struct place *p, uid_t uid)
{
	const char *lib = path_of("%s/lib", p->s.dir);

	cr_assert_eq(chown(path_of("%s/%s", lib, p->s.library), uid, uid), 0);
	cr_assert_eq(chown(lib, uid, uid), 0);
}

static struct place as(const char *const options[])
{
	struct place p = place__make(BY_RENAME);
	const char *argv[12] = {SETPRIV};
	size_t n = 1;

	for (; *options; options++)
		argv[n++] = *options;
	argv[n] = path_of("%s/bin/driver", p.s.dir);
	place__start(&p, argv, path_of("%s/lib", p.s.dir));
	return p;
}

static struct place of_nobody(void)
{
	return as((const char *const[]){AS_NOBODY, NULL});
}

/* ---- root's tool ---- */

Test(users, a_users_process)
{
	struct place p = of_nobody();
	struct map m[8];

	place__update(&p, 2);
	cr_assert_gt(maps__find(p.pid, "/var/cache/llu/", m, 8), 0, "the store is not mapped");
	place__update(&p, 3);
	place__end(&p);
}

/* As systemd's DynamicUser= does it: a number without a name. */
Test(users, a_user_without_a_name)
{
	struct place p = as((const char *const[]){"--reuid=61184", "--regid=61184", "--clear-groups", "--no-new-privs",
						  "--bounding-set=-all", NULL});

	place__update(&p, 2);
	place__update(&p, 3);
	place__end(&p);
}

/* ---- a user's tool ---- */

static struct result by_nobody(const struct place *p)
{
	return command__run(
	    (const char *const[]){SETPRIV, AS_NOBODY, "/usr/bin/env", "-u", "XDG_CACHE_HOME", "-u", "XDG_STATE_HOME",
				  path_of("HOME=%s/home", p->s.dir), path_of("XDG_RUNTIME_DIR=%s/home", p->s.dir),
				  path_of("%s/bin/llvupdate", p->s.dir), "-p", path_of("%d", p->pid), NULL},
	    60);
}

static void make_home(const struct place *p)
{
	const char *home = path_of("%s/home", p->s.dir);

	cr_assert(mkdir(home, 0700) == 0 && chown(home, NOBODY, NOBODY) == 0);
}

Test(users, their_own_process)
{
	struct place p = place__make(BY_SYMLINK);
	struct map m[8];

	make_home(&p);
	place__start(&p, (const char *const[]){SETPRIV, AS_NOBODY, path_of("%s/bin/driver", p.s.dir), NULL},
		     path_of("%s/lib", p.s.dir));
	for (int v = 2; v <= 3; v++) {
		scene__install(&p.s, path_of("v%d", v));
		struct result r = by_nobody(&p);
		place__updated(&p, &r, p.pid, v);
	}
	cr_assert_gt(maps__find(p.pid, path_of("%s/home/.cache/llu/", p.s.dir), m, 8), 0, "the store is elsewhere");
	cr_assert_eq(access(path_of("%s/home/.local/state/liveupdate/llvupdlog", p.s.dir), F_OK), 0, "no log");
	place__end(&p);
}

/* The file that was renamed over can be opened through map_files alone, which asks for CAP_CHECKPOINT_RESTORE. */
Test(users, their_own_process_and_a_file_renamed_over)
{
	struct place p = of_nobody();

	make_home(&p);
	scene__install(&p.s, "v2");
	struct result r = by_nobody(&p);
	place__refused(&p, &r, 5, "the file mapped as .*libstate.so.1 cannot be opened: Operation not permitted");
	place__end(&p);
}

static void not_for_nobody(struct place p)
{
	make_home(&p);
	scene__install(&p.s, "v2");
	struct result r = by_nobody(&p);
	place__refused(&p, &r, 5, "its executable may not be read: Permission denied\n *run as root");
	r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	place__end(&p);
}

Test(users, somebody_elses_process)
{
	not_for_nobody(as((const char *const[]){"--reuid=1234", "--regid=1234", "--clear-groups", NULL}));
}

Test(users, roots_process)
{
	not_for_nobody(place__begin());
}

Test(users, their_own_process_that_protects_itself)
{
	struct place p = of_nobody();

	place__tell(&p, "nodump");
	not_for_nobody(p);
}

/* Yama lets a user look at the own processes, but not into their memory (kernel.yama.ptrace_scope 1 and more). Where
 * there is no Yama, a filter for the tool answers as it would. */
Test(users, their_own_process_under_yama)
{
	struct place p = of_nobody();

	file__copy(FIXTURE_DIR "/yama", path_of("%s/bin/yama", p.s.dir));
	scene__install(&p.s, "v2");
	struct result r = command__run((const char *const[]){SETPRIV, AS_NOBODY, path_of("%s/bin/yama", p.s.dir),
							     path_of("%s/bin/llvupdate", p.s.dir), "-p",
							     path_of("%d", p.pid), "-l", "/dev/null", NULL},
				       60);
	place__refused(&p, &r, 5, "its memory may not be read: Operation not permitted\n.*kernel.yama.ptrace_scope");
	place__end(&p);
}

/* ---- the path belongs to the process's own user ---- */

Test(users, a_users_process_and_their_own_library)
{
	struct place p = place__make(BY_RENAME);

	give(&p, NOBODY);
	place__start(&p, (const char *const[]){SETPRIV, AS_NOBODY, path_of("%s/bin/driver", p.s.dir), NULL},
		     path_of("%s/lib", p.s.dir));
	place__update(&p, 2);
	give(&p, NOBODY);
	place__update(&p, 3);
	place__end(&p);
}

/* ... and the process has more rights than that user. It gets the code once only root can change the path. */
static void only_from_root(struct place *p, const char *more)
{
	give(p, NOBODY);
	place__refuse(p, 2, 3,
		      path_of("user 65534 could put another file there, and the process has more rights than "
			      "that user: %s",
			      more));
	give(p, 0);
	struct result r = place__llvupdate(p, NULL);
	place__updated(p, &r, p->pid, 2);
	place__end(p);
}

Test(users, ambient_capabilities)
{
	struct place p = as((const char *const[]){AS_NOBODY, "--inh-caps=+net_raw", "--ambient-caps=+net_raw", NULL});

	only_from_root(&p, "it has capabilities");
}

Test(users, another_group)
{
	struct place p = as((const char *const[]){"--reuid=65534", "--regid=42", "--clear-groups", NULL});

	only_from_root(&p, "its group is not known to be its user's");
}

Test(users, not_dumpable)
{
	struct place p = of_nobody();

	place__tell(&p, "nodump");
	only_from_root(&p, "it protects itself against its user");
}

#define CHROOT_AS_NOBODY ((const char *const[]){"--userspec=65534:65534", NULL})

/* A program with rights of its own does not look at LD_LIBRARY_PATH: the library is at the usual place. */
static struct place privileged(mode_t mode, gid_t group)
{
	struct place p = place__chroot(BY_RENAME, NULL, NULL);
	const char *program = path_of("%s/bin/driver", p.s.dir);

	cr_assert(chown(program, 0, group) == 0 && chmod(program, mode) == 0);
	place__start_chroot(&p, NULL, CHROOT_AS_NOBODY);
	return p;
}

Test(users, setuid)
{
	struct place p = privileged(04755, 0);

	only_from_root(&p, "it also runs as another user \\(setuid\\)");
}

Test(users, setgid)
{
	struct place p = privileged(02755, 42);

	only_from_root(&p, "it also runs as another group \\(setgid\\)");
}

/* It may have opened what it wanted before. */
Test(users, setuid_given_back)
{
	struct place p = privileged(04755, 0);

	place__tell(&p, "drop");
	only_from_root(&p, "it was started with more rights than its user has");
}

Test(users, file_capabilities)
{
	struct vfs_cap_data caps = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
				    .data = {{.permitted = 1u << CAP_NET_RAW}}};
	struct place p = place__chroot(BY_RENAME, NULL, NULL);

	if (setxattr(path_of("%s/bin/driver", p.s.dir), "security.capability", &caps, sizeof(caps), 0) < 0)
		cr_skip_test("no file capabilities on this file system");
	place__start_chroot(&p, NULL, CHROOT_AS_NOBODY);
	only_from_root(&p, "it has capabilities");
}

/* ---- the path belongs to others ---- */

Test(users, somebody_elses_library)
{
	struct place p = place__begin();

	give(&p, SOMEBODY);
	place__refuse(
	    &p, 2, 3,
	    path_of("%s/lib: user 1234 could put another file there, and the process belongs to user 0", p.s.dir));
	struct result r = place__llvupdate(&p, (const char *const[]){"--json", NULL});
	cr_assert(text__has(r.out, "\"untrusted-path\""), "%s", r.out);
	result__free(&r);
	give(&p, 0);
	r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	place__end(&p);
}

/* One thing on the way to the library is changed, and back; `what` is what the sentence names. */
static void refuse_and_mend(struct place *p, int version, const char *what)
{
	place__refuse(p, version, 3, path_of("not updated: %s", what));
}

Test(users, others_may_write)
{
	static const struct {
		mode_t mode;
		const char *says;
	} modes[] = {{0777, "anybody could put another file there \\(mode 0777\\)"},
		     {01777, "anybody could put another file there \\(mode 1777\\)"},
		     {02775, "group 0, or whom an access control list names, could put .* \\(mode 2775\\)"}};
	struct place p = place__begin();
	const char *lib = path_of("%s/lib", p.s.dir), *file = path_of("%s/libstate.so.1", lib);

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		cr_assert_eq(chmod(lib, modes[i].mode), 0);
		refuse_and_mend(&p, 2, path_of("%s: %s", lib, modes[i].says));
	}
	cr_assert_eq(chmod(lib, 0755), 0);
	cr_assert_eq(chmod(file, 0664), 0);
	struct result r = place__llvupdate(&p, NULL);
	place__refused(&p, &r, 3, "libstate.so.1 is not updated: group 0, or whom an access control list names");
	cr_assert_eq(chmod(file, 0644), 0);
	r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	place__end(&p);
}

/* acl(5): the group bits of the mode are the list's mask. */
Test(users, an_access_control_list)
{
	struct {
		uint32_t version;
		struct {
			uint16_t tag, perm;
			uint32_t id;
		} entry[5];
	} acl = {2, {{1, 7, ~0u}, {2, 7, NOBODY}, {4, 5, ~0u}, {16, 7, ~0u}, {32, 5, ~0u}}};
	struct place p = place__begin();
	const char *lib = path_of("%s/lib", p.s.dir);

	if (setxattr(lib, "system.posix_acl_access", &acl, sizeof(acl), 0) < 0)
		cr_skip_test("no access control lists on this file system");
	refuse_and_mend(&p, 2, path_of("%s: group 0, or whom an access control list names", lib));
	cr_assert_eq(removexattr(lib, "system.posix_acl_access"), 0);
	cr_assert_eq(chmod(lib, 0755), 0);
	place__update(&p, 2);
	place__end(&p);
}

/* Who owns a folder further up can put another one there. */
Test(users, somebody_elses_folder_above)
{
	struct place p = place__begin();

	cr_assert_eq(chown(p.s.dir, SOMEBODY, 0), 0);
	refuse_and_mend(&p, 2, path_of("%s: user 1234 could", p.s.dir));
	cr_assert_eq(chown(p.s.dir, 0, 0), 0);
	place__update(&p, 2);
	place__end(&p);
}

/* Symbolic links are followed step by step, and what they lead over is judged. */
Test(users, a_link_over_somebody_elses_folder)
{
	struct place p = place__make(BY_RENAME);
	const char *theirs = path_of("%s/theirs", p.s.dir), *link = path_of("%s/linked", p.s.dir);

	cr_assert(mkdir(theirs, 0755) == 0 && symlink("theirs/./../lib", link) == 0);
	place__start(&p, (const char *const[]){path_of("%s/bin/driver", p.s.dir), NULL}, link);
	cr_assert_eq(chown(theirs, SOMEBODY, 0), 0);
	refuse_and_mend(&p, 2, path_of("%s: user 1234 could", theirs));
	cr_assert_eq(chown(theirs, 0, 0), 0);
	cr_assert_eq(lchown(link, SOMEBODY, 0), 0);
	refuse_and_mend(&p, 2, path_of("%s: user 1234 could", link));
	cr_assert_eq(lchown(link, 0, 0), 0);
	place__update(&p, 2);
	place__end(&p);
}

/* The test goes on in mounts of its own, and what it makes there nobody else meets. */
static void take_own_mounts(void)
{
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
}

/* A FUSE file system over the library's folder, with a server that never answers: so the tool must not ask. */
Test(users, fuse)
{
	take_own_mounts();
	struct place p = place__begin();
	const char *lib = path_of("%s/lib", p.s.dir);
	int server = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (server < 0)
		cr_skip_test("no FUSE here");
	scene__install(&p.s, "v2");
	cr_assert_eq(mount("test", lib, "fuse.test", MS_NODEV | MS_NOSUID,
			   path_of("fd=%d,rootmode=40000,user_id=1234,group_id=1234,allow_other", server)),
		     0, "cannot mount: %s", strerror(errno));
	struct result r = place__llvupdate(&p, NULL);
	cr_assert_eq(umount2(lib, MNT_DETACH), 0);
	place__refused(&p, &r, 3, path_of("%s: is on a FUSE file system, whose server could show any file", lib));
	close(server);
	r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	place__end(&p);
}

/* ---- user namespaces ---- */

static struct place in_container(const char *const options[])
{
	struct place p = place__make(BY_RENAME);
	const char *argv[16] = {userns, "100000", SETPRIV};
	size_t n = 3;

	for (; *options; options++)
		argv[n++] = *options;
	argv[n] = path_of("%s/bin/driver", p.s.dir);
	place__start(&p, argv, path_of("%s/lib", p.s.dir));
	return p;
}

/* Root there is an ordinary user here, who owns the files of the container. */
Test(users, root_of_a_container)
{
	struct place p = in_container((const char *const[]){"--no-new-privs", NULL});

	scene__install(&p.s, "v2");
	give(&p, 100000);
	struct result r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	give(&p, 100033);
	place__refuse(&p, 3, 3, "user 100033 could put another file there, and the process belongs to user 100000");
	place__end(&p);
}

Test(users, a_user_of_a_container)
{
	struct place p = in_container((const char *const[]){"--reuid=33", "--regid=33", "--clear-groups", NULL});

	scene__install(&p.s, "v2");
	give(&p, 100000);
	struct result r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	give(&p, 100034);
	place__refuse(&p, 3, 3, "user 100034 could put another file there, and the process belongs to user 100033");
	place__end(&p);
}

/* A process of root's that was sent into the mounts of a container: who is root there decides what it sees. */
Test(users, root_in_the_mounts_of_a_container)
{
	struct place container = place__make(BY_RENAME);
	const char *dir = container.s.dir;

	place__start(
	    &container,
	    (const char *const[]){userns, "100000", "/usr/bin/unshare", "--mount", path_of("%s/bin/driver", dir), NULL},
	    path_of("%s/lib", dir));
	struct place p = container;
	place__start(&p,
		     (const char *const[]){"/usr/bin/nsenter", "--mount", "--target", path_of("%d", container.pid),
					   path_of("%s/bin/driver", dir), NULL},
		     path_of("%s/lib", dir));
	place__refuse(&p, 2, 3, "the process looks into a mount namespace whose owner has no power over it");
	struct result r = place__llvupdate(&container, NULL);
	place__updated(&container, &r, container.pid, 2);
	place__end(&p);
	place__end(&container);
}

/* ---- the log ---- */

/* A folder that others may write to may hold what they put there, under the name of the log. */
Test(users, a_log_in_a_folder_of_others)
{
	struct place p = place__begin();
	const char *victim = path_of("%s/victim", p.s.dir), *log = path_of("%s/log", p.s.dir);
	char text[8] = "";

	file__write(victim, "precious", 8);
	cr_assert_eq(symlink(victim, log), 0);
	scene__install(&p.s, "v2");
	struct result r = place__llvupdate(&p, (const char *const[]){"-l", log, NULL});
	cr_assert(text__has(r.err, "cannot write the log: File exists"), "%s", r.err);
	place__updated(&p, &r, p.pid, 2);
	int fd = open(victim, O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0 && read(fd, text, 8) == 8 && memcmp(text, "precious", 8) == 0, "the log went over a link");
	close(fd);
	place__end(&p);
}

/* ---- the tool's own folders ---- */

/* `folder`, below `above`, is not root's: a link to a folder of somebody's, then that folder itself. */
static void not_in_a_folder_of_others(const char *above, const char *folder, const char *link_says,
				      const char *folder_says)
{
	take_own_mounts();
	cr_assert_eq(mount("none", above, "tmpfs", 0, "mode=755"), 0);
	struct place p = place__begin();
	const char *theirs = path_of("%s/theirs", p.s.dir);

	cr_assert(mkdir(theirs, 0755) == 0 && symlink(theirs, folder) == 0);
	place__refuse(&p, 2, 3, path_of("%s: %s", folder, link_says));
	cr_assert(unlink(folder) == 0 && mkdir(folder, 0755) == 0 && chown(folder, SOMEBODY, 0) == 0);
	place__refuse(&p, 2, 3, path_of("%s: %s", folder, folder_says));
	cr_assert_eq(rmdir(theirs), 0, "something was written there");
	cr_assert_eq(rmdir(folder), 0, "something was written there");
	struct result r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	place__end(&p);
	cr_assert_eq(umount2(above, MNT_DETACH), 0);
}

Test(users, images_in_a_folder_of_others)
{
	not_in_a_folder_of_others("/var/cache", "/var/cache/llu", "cannot open the folder for relinked images",
				  "the folder for relinked images could be changed by another user");
}

Test(users, locks_in_a_folder_of_others)
{
	not_in_a_folder_of_others("/run", "/run/llu",
				  "the folder for locks and journals could be changed by another user",
				  "the folder for locks and journals could be changed by another user");
}
