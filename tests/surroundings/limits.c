/* Processes at their limits, and memory of special kinds: what the process cannot have is not there for an update
 * either. Then it is refused or taken back; the process itself loses nothing. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "place.h"

static const char *group; /* the cgroup that a test made */

static void leave(void)
{
	support__teardown();
	if (group)
		rmdir(group);
}

TestSuite(limits, .init = place__want_root, .fini = leave);

/* ---- resource limits ---- */

/* Refused, or taken back: no more is mapped than before, but in the reservation. */
static void refuse(const char *line, const char *reason)
{
	struct place p = place__begin();
	struct map m[8];

	place__tell(&p, line);
	place__refuse(&p, 2, 3, reason);
	cr_assert_eq(maps__find(p.pid, "/var/cache/llu/", m, 8), 0, "the new image stayed mapped");
	target__rounds(p.s.target, 3, 1);
	place__end(&p);
}

static void allow(const char *line)
{
	struct place p = place__begin();

	if (!place__try(&p, line)) {
		place__end(&p);
		cr_skip_test("this kernel cannot: %s", line);
	}
	place__update(&p, 2);
	place__update(&p, 3);
	place__update(&p, 1);
	place__end(&p);
}

/* What is mapped takes the place of reserved addresses: the size does not grow. */
Test(limits, address_space_is_used_up)
{
	allow("limit as");
}

Test(limits, data_is_used_up)
{
	allow("limit data");
}

Test(limits, no_more_open_files)
{
	refuse("limit nofile", "the process could not make memory for the new code: Too many open files");
}

Test(limits, no_more_mappings)
{
	refuse("fill maps", "it may have [0-9]+ more mappings \\(vm.max_map_count\\)");
}

Test(limits, locked_memory_is_used_up)
{
	struct place p = place__make(BY_RENAME);

	/* root may lock as much as it likes */
	place__start(&p,
		     (const char *const[]){"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
					   path_of("%s/bin/driver", p.s.dir), NULL},
		     path_of("%s/lib", p.s.dir));
	place__tell(&p, "lock");
	place__update(&p, 2);
	place__update(&p, 3);
	place__end(&p);
}

Test(limits, no_more_threads)
{
	struct place p = place__make(BY_RENAME);

	place__start(&p,
		     (const char *const[]){"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
					   path_of("%s/bin/driver", p.s.dir), NULL},
		     path_of("%s/lib", p.s.dir));
	place__tell(&p, "limit nproc");
	place__refuse(&p, 2, 3, "no thread could be made in it: Resource temporarily unavailable\n *raise the limit");
	place__end(&p);
}

/* ---- cgroups ---- */

static bool write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

static unsigned long read_from(const char *path)
{
	char text[32] = "";
	FILE *f = fopen(path, "re");

	cr_assert(f && fgets(text, sizeof(text), f), "cannot read %s", path);
	fclose(f);
	return strtoul(text, NULL, 10);
}

/* A new cgroup with a controller, wherever this machine has it; skips where it has not. *v2: of the one hierarchy. */
static void make_group(const char *controller, bool *v2)
{
	*v2 = access("/sys/fs/cgroup/cgroup.subtree_control", W_OK) == 0;
	if (*v2 && !write_to("/sys/fs/cgroup/cgroup.subtree_control", path_of("+%s", controller)))
		cr_skip_test("no %s controller here", controller);
	group = *v2 ? path_of("/sys/fs/cgroup/llu-test-%d", getpid())
		    : path_of("/sys/fs/cgroup/%s/llu-test-%d", controller, getpid());
	if (mkdir(group, 0755) < 0)
		cr_skip_test("cannot make %s: %s", group, strerror(errno));
	/* its name lives longer than what path_of() made, which the teardown takes away */
	group = strdup(group);
}

static struct place in_group(void)
{
	struct place p = place__make(BY_RENAME);

	place__start(&p,
		     (const char *const[]){"/bin/sh", "-c",
					   path_of("echo $$ >%s/cgroup.procs && exec %s/bin/driver", group, p.s.dir),
					   NULL},
		     path_of("%s/lib", p.s.dir));
	return p;
}

/* The pages of an update count as the process's: without room for them the kernel kills it. */
Test(limits, memory_is_used_up)
{
	bool v2;
	make_group("memory", &v2);
	struct place p = in_group();
	const char *limit = path_of("%s/%s", group, v2 ? "memory.max" : "memory.limit_in_bytes");
	const char *usage = path_of("%s/%s", group, v2 ? "memory.current" : "memory.usage_in_bytes");

	place__tell(&p, "fill memory 8");
	cr_assert(write_to(limit, path_of("%lu", read_from(usage))), "cannot set the limit");
	place__refuse(&p, 2, 3, "the limit of its memory cgroup leaves [0-9]+ KiB.*\n *raise the limit");
	cr_assert(write_to(limit, path_of("%lu", read_from(usage) + (4ul << 20))));
	struct result r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	place__end(&p);
}

/* The limit that counts may be one further up. */
Test(limits, memory_is_used_up_in_the_group_above)
{
	bool v2;
	make_group("memory", &v2);
	const char *above = group, *limit = path_of("%s/%s", above, v2 ? "memory.max" : "memory.limit_in_bytes");
	const char *usage = path_of("%s/%s", above, v2 ? "memory.current" : "memory.usage_in_bytes");

	if (v2)
		cr_assert(write_to(path_of("%s/cgroup.subtree_control", above), "+memory"));
	group = path_of("%s/below", above);
	cr_assert_eq(mkdir(group, 0755), 0);
	struct place p = in_group();
	place__tell(&p, "fill memory 8");
	cr_assert(write_to(limit, path_of("%lu", read_from(usage))), "cannot set the limit");
	place__refuse(&p, 2, 3, "the limit of its memory cgroup leaves [0-9]+ KiB");
	place__end(&p);
	cr_assert_eq(rmdir(group), 0);
	group = above;
}

/* Where the memory controller belongs to another hierarchy, or to none, that of version 2 shows no memory: its files
 * are put there, in mounts of the test's own. */
Test(limits, memory_is_used_up_in_a_group_of_version_2)
{
	const char *at =
	    access("/sys/fs/cgroup/unified/cgroup.procs", F_OK) == 0 ? "/sys/fs/cgroup/unified" : "/sys/fs/cgroup";

	if (access(path_of("%s/cgroup.subtree_control", at), F_OK) != 0)
		cr_skip_test("no cgroups of version 2 here");
	group = strdup(path_of("%s/llu-test-%d", at, getpid()));
	cr_assert_eq(mkdir(group, 0755), 0);
	cr_assert(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	struct place p = in_group();
	const char *max = path_of("%s/memory.max", group), *stat = path_of("%s/memory.stat", group);
	cr_assert_eq(mount("none", group, "tmpfs", 0, "mode=755"), 0);
	file__write(max, "10485760\n", 9);
	file__write(path_of("%s/memory.current", group), "9961472\n", 8);
	file__write(stat, "anon 9000000\ninactive_file 4096\nactive_file 400000\n", 51);
	place__refuse(&p, 2, 3, "the limit of its memory cgroup leaves 516 KiB");
	file__write(stat, "anon 5000000\ninactive_file 4000000\n", 35);
	struct result r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	file__write(stat, "anon 9000000\ninactive_file 0\n", 29);
	file__write(max, "max\n", 4);
	place__update(&p, 3);
	place__end(&p);
	cr_assert_eq(umount2(group, MNT_DETACH), 0);
}

Test(limits, number_of_threads_is_used_up)
{
	bool v2;
	make_group("pids", &v2);
	struct place p = in_group();

	cr_assert(write_to(path_of("%s/pids.max", group), "1"));
	place__refuse(&p, 2, 3, "no thread could be made in it: Resource temporarily unavailable\n *raise the limit");
	cr_assert(write_to(path_of("%s/pids.max", group), "2"));
	struct result r = place__llvupdate(&p, NULL);
	place__updated(&p, &r, p.pid, 2);
	place__end(&p);
}

/* ---- kinds of memory, and what a process forbids itself ---- */

/* prctl(2), PR_SET_MDWE: what is mapped as code stays so; a new mapping may be code if it was never writable. */
Test(limits, memory_deny_write_execute)
{
	allow("mdwe");
}

Test(limits, no_new_privileges)
{
	allow("nnp");
}

/* personality(2), READ_IMPLIES_EXEC: what is mapped as data comes out as code. */
Test(limits, what_is_readable_is_executable)
{
	refuse("exec", "it may execute all that it may read \\(personality READ_IMPLIES_EXEC\\)");
}

Test(limits, huge_pages_in_the_heap)
{
	allow("huge heap");
}

/* Code that was copied to anonymous memory is where it was, and who is in it is seen by addresses. */
Test(limits, code_on_huge_pages)
{
	allow("huge code");
}

/* The stubs are compared byte by byte, wherever they are. */
Test(limits, code_and_stubs_on_huge_pages)
{
	allow("huge library");
}

/* ---- scheduling ---- */

static void schedule_threads(pid_t pid, int policy, int priority)
{
	cpu_set_t first;
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	DIR *d = opendir(path_of("/proc/%d/task", pid));
	cr_assert(d);
	for (struct dirent *e; (e = readdir(d));) {
		pid_t tid = (pid_t)strtol(e->d_name, NULL, 10);
		if (tid == 0 || tid == pid)
			continue;
		cr_assert_eq(sched_setaffinity(tid, sizeof(first), &first), 0);
		cr_assert_eq(sched_setscheduler(tid, policy, &(struct sched_param){.sched_priority = priority}), 0);
	}
	closedir(d);
}

/* A real-time thread that never sleeps leaves its processor to nobody of its own priority. */
Test(limits, real_time_thread_that_never_sleeps)
{
	struct scene s = scene__prepare("libcallback.so.1", fixture_library("v1", "libcallback.so.1"), BY_RENAME);

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		cr_skip_test("it would leave no processor to the tests");
	scene__start(&s, (const char *const[]){FIXTURE_DIR "/callback_driver", "1", NULL});
	schedule_threads(target__pid(s.target), SCHED_FIFO, 10);
	scene__install(&s, "v2");
	scene__update(&s);
	schedule_threads(target__pid(s.target), SCHED_OTHER, 0);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}
