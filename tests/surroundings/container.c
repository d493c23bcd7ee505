/* Processes in containers: other namespaces, another root directory, the tool outside and inside. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "place.h"

TestSuite(container, .init = place__want_root, .fini = support__teardown);

static const char in_root[] = SOURCE_DIR "/tests/surroundings/container";
static const char userns[] = FIXTURE_DIR "/userns";
#define UNSHARE "/usr/bin/unshare"

/* Version by version; the image goes into memory of the process's own, where the next update finds it again. */
static void walk(struct place *p)
{
	struct map m[8];

	place__update(p, 2);
	place__update(p, 3);
	cr_assert_gt(maps__find(p->pid, "/memfd:llu-image", m, 8), 0, "no image in its own memory");
	cr_assert_eq(maps__find(p->pid, "/var/cache/llu/", m, 8), 0, "the store is mapped");
	place__update(p, 1);
	place__end(p);
}

static struct place in(const char *const argv[])
{
	struct place p = place__make(BY_RENAME);
	const char *all[24];
	size_t n = 0;

	for (; *argv; argv++)
		all[n++] = *argv;
	all[n++] = in_root;
	all[n++] = p.s.dir;
	all[n++] = "/opt/bin/driver";
	all[n] = NULL;
	place__start(&p, all, NULL);
	return p;
}

/* The store is not there, all else is. */
Test(container, without_the_store)
{
	struct place p = place__make(BY_RENAME);

	place__start(&p,
		     (const char *const[]){UNSHARE, "--mount", "--propagation", "private", "sh", "-c",
					   path_of("mount -t tmpfs none /var/cache && exec %s/bin/driver", p.s.dir),
					   NULL},
		     path_of("%s/lib", p.s.dir));
	walk(&p);
}

/* Nothing but the way to the library is the same: the new file is found through the process's root. */
Test(container, mount_namespace)
{
	struct place p = in((const char *const[]){UNSHARE, "--mount", NULL});

	walk(&p);
}

Test(container, pid_namespace)
{
	struct place p = place__make(BY_RENAME);

	place__start(
	    &p,
	    (const char *const[]){UNSHARE, "--pid", "--fork", "--kill-child", path_of("%s/bin/driver", p.s.dir), NULL},
	    path_of("%s/lib", p.s.dir));
	for (int v = 2; v <= 3; v++)
		place__update(&p, v);
	place__end(&p);
}

Test(container, user_namespace)
{
	struct place p = place__make(BY_RENAME);

	place__start(&p, (const char *const[]){userns, "100000", path_of("%s/bin/driver", p.s.dir), NULL},
		     path_of("%s/lib", p.s.dir));
	for (int v = 2; v <= 3; v++)
		place__update(&p, v);
	place__end(&p);
}

#define ALL_NAMESPACES UNSHARE, "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "--net", "--cgroup"

Test(container, all_namespaces)
{
	struct place p = in((const char *const[]){userns, "100000", ALL_NAMESPACES, NULL});

	walk(&p);
}

/* A user of the container, neither root there nor here. */
Test(container, a_user_in_it)
{
	struct place p = place__make(BY_RENAME);

	place__start(&p,
		     (const char *const[]){userns, "100000", ALL_NAMESPACES, in_root, p.s.dir, "/usr/bin/setpriv",
					   "--reuid=33", "--regid=33", "--clear-groups", "/opt/bin/driver", NULL},
		     NULL);
	walk(&p);
}

Test(container, read_only_root)
{
	struct place p = place__make(BY_RENAME);

	place__start(&p, (const char *const[]){UNSHARE, "--mount", in_root, p.s.dir, "ro", "/opt/bin/driver", NULL},
		     NULL);
	walk(&p);
}

/* The library comes by a path that is nothing outside, and lies on a file system that is mounted inside only. */
Test(container, new_library_inside_only)
{
	const char *script = "mkdir /app && mount -t tmpfs -o mode=755 none /app && "
			     "cp /opt/lib/libstate.so.1 /app && LD_LIBRARY_PATH=/app exec /opt/bin/driver";
	struct place p = place__make(BY_RENAME);

	place__start(&p, (const char *const[]){UNSHARE, "--mount", in_root, p.s.dir, "sh", "-c", script, NULL}, NULL);
	llusplit(fixture_library("v2", "libstate.so.1"), path_of("%s/lib/next", p.s.dir), p.s.first);
	struct result r = command__run((const char *const[]){"nsenter", "--mount", "--target", path_of("%d", p.pid),
							     "mv", "/opt/lib/next", "/app/libstate.so.1", NULL},
				       10);
	cr_assert_eq(r.exit_code, 0, "%s", r.err);
	result__free(&r);
	r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	place__end(&p);
}

/* ---- the tool inside ---- */

/* llvupdate as a process of the container sees it; `pid` is the number there. */
static struct result inside(const struct place *p, const char *pid, const char *user)
{
	return command__run((const char *const[]){"nsenter", "--mount", "--pid", user, "--target",
						  path_of("%d", p->pid), "--root", "/opt/bin/llvupdate", "-p", pid,
						  "-l", "/tmp/log", "-n", "1", "-t", "5", NULL},
			    60);
}

Test(container, the_tool_inside)
{
	struct place p = in((const char *const[]){UNSHARE, "--mount", "--pid", "--fork", "--kill-child", NULL});

	for (int v = 2; v <= 3; v++) {
		scene__install(&p.s, path_of("v%d", v));
		struct result r = inside(&p, "1", "--pid");
		place__updated(&p, &r, 1, v);
	}
	place__end(&p);
}

/* There every process has another number, or none. */
Test(container, the_tool_inside_and_the_process_outside)
{
	struct place p = in((const char *const[]){UNSHARE, "--mount", "--pid", "--fork", "--kill-child", NULL});
	struct place outside = place__begin();

	scene__install(&outside.s, "v2");
	struct result r = inside(&p, path_of("%d", outside.pid), "--pid");
	place__refused(&outside, &r, 3, path_of("PID %d: no such process", outside.pid));
	target__rounds(p.s.target, 3, 1);
	place__end(&p);
	place__end(&outside);
}

/* Root of a user namespace may trace what is in it, but not open by way of map_files the file that was renamed over
 * (CAP_CHECKPOINT_RESTORE is asked of the first namespace). */
Test(container, the_tool_inside_a_user_namespace)
{
	struct place p = in((const char *const[]){userns, "100000", ALL_NAMESPACES, NULL});

	scene__install(&p.s, "v2");
	struct result r = inside(&p, "1", "--user");
	place__refused(&p, &r, 5, "the file mapped as /opt/lib/libstate.so.1 cannot be opened");
	place__end(&p);
}

Test(container, the_tool_inside_a_user_namespace_and_a_switched_link)
{
	struct place p = place__make(BY_SYMLINK);

	place__start(&p,
		     (const char *const[]){userns, "100000", ALL_NAMESPACES, in_root, p.s.dir, "/opt/bin/driver", NULL},
		     NULL);
	scene__install(&p.s, "v2");
	/* nobody in there has a name for the owner of /opt/lib, who is root outside */
	struct result r = inside(&p, "1", "--user");
	place__refused(&p, &r, 3, "belongs to a user who has no name in this user namespace");
	place__end(&p);
}

/* ---- inits ---- */

static struct result preview(void)
{
	return command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-P", NULL}, 60);
}

/* The first process of a container that boots, as it would be left out on a machine that does. */
Test(container, init_while_the_system_boots)
{
	struct place p =
	    in((const char *const[]){UNSHARE, "--mount", "--propagation", "private", "--pid", "--fork", NULL});
	const char *sign = path_of("/proc/%d/root/run/nologin", p.pid), *listed = path_of(" pid %d\\.\n", p.pid);

	file__write(sign, "", 0);
	scene__install(&p.s, "v2");
	struct result r = preview();
	cr_expect(text__has(r.out, "\nLeft out by rule: [^\n]*1 init of a system that boots or shuts down"), "%s",
		  r.out);
	cr_expect(!text__has(r.out, listed), "%s", r.out);
	result__free(&r);
	place__refuse(&p, 3, 3,
		      path_of("PID %d: it is the init of a system that boots or shuts down: its root has "
			      "/run/nologin\n  run llvupdate again when /run/nologin is gone\n",
			      p.pid));
	cr_assert_eq(unlink(sign), 0);
	r = preview();
	cr_expect(!strstr(r.out, "1 init"), "%s", r.out);
	cr_expect(text__has(r.out, listed), "%s", r.out);
	result__free(&r);
	place__update(&p, 2);
	place__end(&p);
}

/* ---- chroot ---- */

Test(container, chroot)
{
	struct place p = place__chroot(BY_RENAME, "/lib", (const char *const[]){NULL});

	walk(&p);
}

/* An absolute link means the process's root, not ours. */
Test(container, chroot_with_absolute_links)
{
	struct place p = place__chroot(BY_RENAME, "/linked", (const char *const[]){NULL});

	walk(&p);
}

/* What the library needs is looked for there as well. */
Test(container, chroot_with_an_outdated_dependency)
{
	struct place p = place__chroot(BY_RENAME, NULL, NULL);
	const char *dep = path_of("%s/lib/libdep.so.1", p.s.dir), *fresh = path_of("%s.fresh", dep);

	p.s.library = "libimports.so.1";
	p.s.first = NULL;
	scene__install(&p.s, "v1");
	file__copy(fixture_library("dep", "libdep.so.1"), dep);
	cr_assert_eq(unlink(path_of("%s/bin/driver", p.s.dir)), 0);
	file__copy(FIXTURE_DIR "/imports_driver", path_of("%s/bin/driver", p.s.dir));
	place__start_chroot(&p, "/linked", (const char *const[]){NULL});
	file__copy(fixture_library("dep2", "libdep.so.1"), fresh);
	cr_assert_eq(rename(fresh, dep), 0);
	place__refuse(&p, 2, 3, "libdep\\.so\\.1, which it depends on, cannot be updated");
	place__end(&p);
}

/* ---- /proc, and what was deleted ---- */

Test(container, proc_hides_processes)
{
	struct place p = place__begin();
	const char *script = "mount -t proc -o hidepid=invisible proc /proc && exec \"$@\"";

	scene__install(&p.s, "v2");
	/* from everybody but root */
	struct result r = command__run((const char *const[]){UNSHARE, "--mount", "sh", "-c", script, "sh",
							     "/usr/bin/setpriv", "--reuid=65534", "--regid=65534",
							     "--clear-groups", path_of("%s/bin/llvupdate", p.s.dir),
							     "-p", path_of("%d", p.pid), "-l", "/dev/null", NULL},
				       60);
	place__refused(&p, &r, 5, path_of("PID %d: /proc hides it", p.pid));
	r = command__run((const char *const[]){UNSHARE, "--mount", "sh", "-c", script, "sh",
					       path_of("%s/bin/llvupdate", p.s.dir), "-p", path_of("%d", p.pid), "-l",
					       "/dev/null", NULL},
			 60);
	place__updated(&p, &r, p.pid, 2);
	place__end(&p);
}

Test(container, executable_is_deleted)
{
	struct place p = place__begin();

	cr_assert_eq(unlink(path_of("%s/bin/driver", p.s.dir)), 0);
	for (int v = 2; v <= 3; v++)
		place__update(&p, v);
	place__end(&p);
}

/* The old file has no name any more, and the folder it was in neither. */
Test(container, old_library_and_its_folder_are_deleted)
{
	struct place p = place__make(BY_DIRECTORY);

	place__start(&p, (const char *const[]){path_of("%s/bin/driver", p.s.dir), NULL}, path_of("%s/lib", p.s.dir));
	scene__install(&p.s, "v2");
	cr_assert_eq(unlink(path_of("%s/release-1/libstate.so.1", p.s.dir)), 0);
	cr_assert_eq(rmdir(path_of("%s/release-1", p.s.dir)), 0);
	struct result r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	place__end(&p);
}

/* ---- what a container forbids ---- */

/* The image in the store can be opened there, but not mapped as code. */
Test(container, the_store_is_mounted_without_code)
{
	struct place p = place__make(BY_RENAME);

	place__start(&p,
		     (const char *const[]){UNSHARE, "--mount", "sh", "-c",
					   path_of("mkdir -p /var/cache/llu && mount --bind /var/cache/llu "
						   "/var/cache/llu && mount -o remount,bind,noexec /var/cache/llu && "
						   "exec %s/bin/driver",
						   p.s.dir),
					   NULL},
		     path_of("%s/lib", p.s.dir));
	place__refuse(&p, 2, 3, "the process could not map the new image: Operation not permitted");
	place__end(&p);
}

/* vm.memfd_noexec, a setting of a PID namespace, is about executing such memory as a program, not about mapping it. */
Test(container, no_programs_in_memory)
{
	struct place p = place__make(BY_RENAME);

	place__start(&p,
		     (const char *const[]){UNSHARE, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh",
					   "-c",
					   path_of("mount -t tmpfs none /var/cache && echo 2 >"
						   "/proc/sys/vm/memfd_noexec && exec %s/bin/driver",
						   p.s.dir),
					   NULL},
		     path_of("%s/lib", p.s.dir));
	walk(&p);
}

/* No file, and no call that makes memory of its own kind. */
Test(container, no_store_and_a_filter)
{
	struct place p = in((const char *const[]){UNSHARE, "--mount", NULL});

	place__tell(&p, "filter errno memfd_create");
	place__refuse(&p, 2, 3, "its seccomp filter does not allow the system call memfd_create");
	place__end(&p);
}
