/* llusnap: what is in the archive, who may read it, and what is not in it. Folders of logs and journals are the test's
 * own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"

TestSuite(snap, .fini = support__teardown, .timeout = 120);

#define SECRET "correct-horse-battery-staple"

static const char llusnap[] = COMMAND_DIR "/llusnap";

static void own_folders(void)
{
	if (geteuid() != 0)
		cr_skip_test("only root can make a mount namespace");
	cr_assert(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		      mount("none", "/var/log", "tmpfs", 0, "mode=0755") == 0 &&
		      mount("none", "/run", "tmpfs", 0, "mode=0755") == 0,
		  "%s", strerror(errno));
}

static struct result in_folder(const char *dir, const char *command)
{
	return command__run((const char *const[]){"sh", "-c", path_of("cd %s && %s", dir, command), NULL}, 100);
}

static void expect(const char *dir, const char *command, int code, const char *out)
{
	struct result r = in_folder(dir, command);
	cr_assert_eq(r.exit_code, code, "%s: exit code %d\n%s%s", command, r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, out), "%s: no '%s' in:\n%s%s", command, out, r.out, r.err);
	result__free(&r);
}

static mode_t mode_of(const char *path)
{
	struct stat st;
	cr_assert_eq(stat(path, &st), 0, "%s", path);
	return st.st_mode & 07777;
}

/* One that was interrupted, with pages of the process behind its lines. */
static void leave_journal(void)
{
	static const char text[] = "llu-journal 1\ntool 1 2 3\ntarget 4 5 some%20name\nstep exchange\n"
				   "library 0x1 0x2 3 0x4 0x5 0x6 0x7 /usr/lib/liba.so.1\nmove 0x1 0x2 0x3 0x4\n"
				   "pages 64\n" SECRET "\ntarget " SECRET "\n\0\1\2" SECRET;
	mkdir("/run/llu", 0700);
	file__write("/run/llu/4711.journal", text, sizeof(text));
}

Test(snap, all)
{
	own_folders();
	const char *dir = temp_dir(), *name = "llusnap\\.[A-Za-z0-9._-]+\\.[0-9]{8}\\.[0-9]{6}";
	setenv("LLU_TEST_SECRET", SECRET, 1);
	struct scene s = scene__begin("state", "v1");
	struct target *other =
	    target__start((const char *const[]){"/bin/sh", "-c", "echo ready; read x # " SECRET, NULL}, NULL);
	unsetenv("LLU_TEST_SECRET");
	target__expect(other, "ready");
	scene__install(&s, "v2");
	for (int i = 0; i < 2; i++) { /* a log and a trace, and former ones */
		const char *pid = path_of("%d", target__pid(s.target));
		struct result r = command__run((const char *const[]){COMMAND_DIR "/llvupdate", "-p", pid, NULL}, 60);
		cr_assert(r.exit_code == i, "%s%s", r.out, r.err);
		result__free(&r);
	}
	scene__install(&s, "v1");
	leave_journal();

	setenv("LLU_TEST_SECRET", SECRET, 1); /* its own is not read either */
	expect(dir, path_of("%s -ac", llusnap), 0, path_of("^%s\\.tar\\.gz\n$", name));
	unsetenv("LLU_TEST_SECRET");
	expect(dir, "ls -A", 0, path_of("^%s\\.tar\\.gz\n$", name));
	expect(dir, "mkdir out && mv *.gz s.tar.gz && tar -xzf s.tar.gz -C out && ls out", 0, path_of("^%s\n$", name));
	cr_assert_eq(mode_of(path_of("%s/s.tar.gz", dir)), 0600);
	expect(dir, "cd out/* && find . -type f | sort | tr '\\n' ' '", 0,
	       "^\\./journals/4711\\.journal \\./libraries \\./log/llvupdlog \\./log/llvupdlog\\.[0-9.]+ \\./machine "
	       "(\\./messages )?\\./preview\\.errors \\./preview\\.json \\./trace_llu/trcfileLLU "
	       "\\./trace_llu/trcfileLLU\\.old \\./versions $");
	expect(dir, "cat out/*/log/llvupdlog.*", 0, "SUCCESS: 1");
	expect(dir, "cat out/*/trace_llu/trcfileLLU.old", 0, "\"commit\"");
	expect(dir, "cat out/*/versions", 0, "^llvupdate [0-9.]+\nllusnap [0-9.]+\nLinux .*\nglibc 2\\..*\nID=");
	expect(dir, "cat out/*/machine", 0,
	       "processors: [1-9].*kernel/yama/ptrace_scope: .*vm/max_map_count: [0-9].*vm/overcommit_memory: [0-9]");
	expect(dir, "cat out/*/machine", 0, "/proc/self/cgroup: ");
	expect(dir, "cat out/*/preview.json", 0, path_of("\"pid\":%d", target__pid(s.target)));
	expect(dir, "cat out/*/libraries", 0,
	       "^path \\S+/libstate\\.so\\.1\"? .*old_build_id \"[0-9a-f]{40}\" new_build_id \"[0-9a-f]{40}\"");
	expect(dir, "cat out/*/journals/*", 0,
	       "step exchange\nlibrary .* /usr/lib/liba\\.so\\.1\nmove .*\npages 64\n$");
	/* it was there to be found */
	expect(dir, path_of("grep -acF " SECRET " /proc/%d/environ", target__pid(s.target)), 0, "^1");
	expect(dir, path_of("grep -acF " SECRET " /proc/%d/cmdline", target__pid(other)), 0, "^1");
	expect(dir, "grep -raF " SECRET " out", 1, "^$");
	free(target__finish(s.target));
}

Test(snap, the_last_operation_alone)
{
	own_folders();
	const char *dir = temp_dir();
	leave_journal();
	mkdir("/var/log/liveupdate", 0755);
	file__write("/var/log/liveupdate/llvupdlog", "now\n", 4);
	file__write("/var/log/liveupdate/llvupdlog.20260101.000000", "then\n", 5);
	file__write(path_of("%s/elsewhere", dir), SECRET, sizeof(SECRET));
	mkdir("/var/log/liveupdate/trace_llu", 0700);
	cr_assert_eq(symlink(path_of("%s/elsewhere", dir), "/var/log/liveupdate/trace_llu/trcfileLLU"), 0);
	expect(dir, path_of("%s -o plain.tar", llusnap), 0, "^plain\\.tar\n$");
	cr_assert_eq(mode_of(path_of("%s/plain.tar", dir)), 0600);
	expect(dir, "tar -tf plain.tar | sed 's,[^/]*/,,' | grep '[^/]$' | sort | tr '\\n' ' '", 0,
	       "^log/llvupdlog machine versions $");
	expect(dir, path_of("%s -a -o all.tar && tar -tf all.tar", llusnap), 0, "/log/llvupdlog\\.20260101\\.000000\n");
	expect(dir, "ls", 0, "^all\\.tar\nelsewhere\nplain\\.tar\n$");
}

Test(snap, nothing_is_written_over)
{
	const char *dir = temp_dir();
	expect(dir, "echo mine >file; ln -s file link; ln -s nothing dangling; mkdir folder; ln -s folder to-folder", 0,
	       "");
	static const char *const names[] = {"file", "link", "dangling", "folder", "to-folder", "none/file"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct result r = in_folder(dir, path_of("%s -o %s", llusnap, names[i]));
		cr_assert_eq(r.exit_code, 4, "%s: exit code %d\n%s", names[i], r.exit_code, r.out);
		cr_assert(text__has(r.err, "^llusnap: |\nllusnap: "), "%s", r.err);
		result__free(&r);
	}
	expect(dir, "cat file; ls -A . folder", 0,
	       "^mine\n\\.:\ndangling\nfile\nfolder\nlink\nto-folder\n\nfolder:\n$");
}

Test(snap, a_full_disk)
{
	own_folders();
	const char *dir = temp_dir();
	cr_assert_eq(mount("none", dir, "tmpfs", 0, "size=8k"), 0);
	struct result r = in_folder(dir, path_of("%s -o file", llusnap));
	cr_assert_eq(r.exit_code, 4, "%s%s", r.out, r.err);
	result__free(&r);
	expect(dir, "ls -A", 0, "^$");
	umount2(dir, MNT_DETACH);
}

Test(snap, usage)
{
	const char *dir = temp_dir();
	expect(dir, path_of("%s --help", llusnap), 0, "^usage: llusnap ");
	expect(dir, path_of("%s --version", llusnap), 0, "^llusnap [0-9.]+\n$");
	static const char *const wrong[] = {"", "-x", "-ac more", "-o", "--all"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		expect(dir, path_of("%s %s", llusnap, wrong[i]), 2, "^$");
	expect(dir, "ls -A", 0, "^$");
}
