/* Which package a file is of, on this machine and in made-up ones. */
#include "machine/package.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(package, .fini = support__teardown, .timeout = 60);

/* A root with a database; *files gives name and text, up to NULL. */
static const char *a_root(const char *const files[][2])
{
	const char *root = temp_dir();
	mkdir(path_of("%s/var", root), 0755);
	mkdir(path_of("%s/var/lib", root), 0755);
	mkdir(path_of("%s/var/lib/dpkg", root), 0755);
	mkdir(path_of("%s/var/lib/dpkg/info", root), 0755);
	for (size_t i = 0; files[i][0]; i++)
		file__write(path_of("%s/var/lib/dpkg/%s", root, files[i][0]), files[i][1], strlen(files[i][1]));
	return root;
}

/* "NAME ARCH VERSION", "" for none, or the error; lives until the next call. */
static const char *owner(struct packages *p, const char *path)
{
	static char said[512];
	const struct package *k;
	ERR_CLEANUP struct err *e = packages__owner(p, path, &k);
	said[0] = '\0';
	if (e)
		snprintf(said, sizeof(said), "%s", err__text(e));
	else if (k)
		snprintf(said, sizeof(said), "%s %s %s", k->name, k->arch, k->version);
	return said;
}

static void expect(const char *root, const char *path, const char *want)
{
	struct packages *p = packages__new(root);
	cr_expect_str_eq(owner(p, path), want, "%s: %s", path, owner(p, path));
	packages__free(p);
}

Test(package, of_files_of_this_machine)
{
	static const char *const paths[] = {"/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/bash", "/bin/bash",
					    "/usr/lib/x86_64-linux-gnu/libz.so.1.2.13"};
	static const char *const names[] = {"libc6", "bash", "bash", "zlib1g"};
	if (access("/var/lib/dpkg/status", R_OK) < 0)
		cr_skip_test("no dpkg here");
	struct packages *p = packages__new(NULL);
	for (size_t i = 0; i < 4; i++) {
		struct result r =
		    command__run((const char *const[]){"dpkg-query", "-W", "-f",
						       "${Package} ${Architecture} ${Version}", names[i], NULL},
				 30);
		cr_expect_str_eq(owner(p, paths[i]), r.out, "%s: %s", paths[i], owner(p, paths[i]));
		result__free(&r);
	}
	cr_expect_str_eq(owner(p, "/usr/local/lib/libc.so.6"), "");
	cr_expect_str_eq(owner(p, "libc.so.6"), "");
	cr_expect_str_eq(owner(p, ""), "");
	packages__free(p);
}

static const char *const two_archs[][2] = {
    {"info/libx1:amd64.list", "/.\n/lib\n/lib/amd64\n/lib/amd64/libx.so.1\n/usr/share/doc/libx1\n"},
    {"info/libx1:i386.list", "/.\n/lib\n/lib/i386\n/lib/i386/libx.so.1\n/usr/share/doc/libx1\n"},
    {"info/tool.list", "/.\n/usr/bin\n/usr/bin/tool\n/usr/lib/tool.so\n"},
    {"info/tool.md5sums", "x  usr/bin/nobody\n"},
    {"info/nobody.list", "/usr/bin/orphan"},
    {"status", "Package: libx1\nStatus: install ok installed\nArchitecture: i386\nMulti-Arch: same\nVersion: 1.0-1\n"
	       "Description: x\n Version: 9\n\nPackage: libx1\nStatus: install ok installed\nArchitecture: amd64\n"
	       "Version: 1.0-1+b2\n\n"
	       "Package: tool\nStatus: deinstall ok config-files\nArchitecture: armhf\nVersion: 0.9\n\n"
	       "Package: tool\nStatus: install ok installed\nVersion: 2:1~rc1\nArchitecture: all"},
    {NULL, NULL},
};

Test(package, of_two_architectures)
{
	const char *root = a_root(two_archs);
	expect(root, "/lib/amd64/libx.so.1", "libx1 amd64 1.0-1+b2");
	expect(root, "/lib/i386/libx.so.1", "libx1 i386 1.0-1");
	expect(root, "/usr/bin/tool", "tool all 2:1~rc1");
	expect(root, "/usr/bin/nobody", "");
	expect(root, "/usr/bin/orphan", "nobody  ");
	expect(root, "/usr/bin/tool ", "");
	expect(root, "/usr/bin/tool\n/usr/lib/tool.so", "");
}

Test(package, is_found_by_both_paths_where_usr_is_merged)
{
	const char *root = a_root(two_archs);
	expect(root, "/usr/lib/amd64/libx.so.1", "");
	expect(root, "/lib/tool.so", "");
	cr_assert_eq(symlink("usr/lib", path_of("%s/lib", root)), 0);
	expect(root, "/usr/lib/amd64/libx.so.1", "libx1 amd64 1.0-1+b2");
	expect(root, "/lib/amd64/libx.so.1", "libx1 amd64 1.0-1+b2");
	expect(root, "/lib/tool.so", "tool all 2:1~rc1");
	expect(root, "/usr/lib/tool.so", "tool all 2:1~rc1");
	expect(root, "/usr/library/amd64/libx.so.1", "");
}

Test(package, that_moved_a_file_of_another_aside)
{
	static const char *const files[][2] = {
	    {"info/libgl1.list", "/usr/lib/libGL.so.1\n/usr/bin/gl\n"},
	    {"info/vendor.list", "/usr/lib/libGL.so.1\n"},
	    {"diversions",
	     "/usr/lib/libGL.so.1\n/usr/lib/mesa/libGL.so.1\nvendor\n/usr/bin/gl\n/usr/bin/gl.distrib\n:\n"},
	    {"status", "Package: libgl1\nArchitecture: amd64\nVersion: 1\n\n"
		       "Package: vendor\nArchitecture: amd64\nVersion: 2\n\n"},
	    {NULL, NULL},
	};
	const char *root = a_root(files);
	expect(root, "/usr/lib/libGL.so.1", "vendor amd64 2");
	expect(root, "/usr/lib/mesa/libGL.so.1", "libgl1 amd64 1");
	expect(root, "/usr/bin/gl", "");
	expect(root, "/usr/bin/gl.distrib", "libgl1 amd64 1");
}

Test(package, without_a_database)
{
	static const char *const empty[][2] = {{NULL, NULL}};
	expect(temp_dir(), "/usr/bin/tool", "");
	expect(a_root(empty), "/usr/bin/tool", "");
	expect(path_of("%s/nothing", temp_dir()), "/usr/bin/tool", "");
}

/* A container must not make us read what is outside of it, nor wait. */
Test(package, of_a_hostile_root)
{
	const char *outside = a_root(two_archs), *root = temp_dir();
	mkdir(path_of("%s/var", root), 0755);
	mkdir(path_of("%s/var/lib", root), 0755);
	cr_assert_eq(symlink(path_of("%s/var/lib/dpkg", outside), path_of("%s/var/lib/dpkg", root)), 0);
	expect(root, "/usr/bin/tool", "");

	const char *const none[][2] = {{"info/zero.list", ""}, {NULL, NULL}};
	const char *fifo = a_root(none);
	mkfifo(path_of("%s/var/lib/dpkg/info/fifo.list", fifo), 0666);
	expect(fifo, "/x", path_of("%s: its database of packages cannot be read: Invalid argument", fifo));

	const char *const odd[][2] = {{"info/a:b:c.list", "\n\n/x\n//\n/y"},
				      {"info/.list", "/x\n"},
				      {"info/zz.list", "/z\n"},
				      {"status", "\n\n\nPackage:\nVersion:\n\nPackage: zz"},
				      {"diversions", "/z\n/q"},
				      {NULL, NULL}};
	expect(a_root(odd), "/x", "a b:c ");
	expect(a_root(odd), "/z", "zz  ");
}

/* The same line very often: no hour of comparing. */
Test(package, of_a_list_that_is_made_to_be_slow)
{
	enum { LINES = 200000 };
	const char *const files[][2] = {{"status", ""}, {NULL, NULL}};
	const char *root = a_root(files);
	FILE *f = fopen(path_of("%s/var/lib/dpkg/info/slow.list", root), "we");
	for (int i = 0; i < LINES; i++)
		fputs("/a\n", f);
	fclose(f);
	int64_t start = support__now_ms();
	expect(root, "/b", path_of("%s: its database of packages cannot be read: File too large", root));
	cr_expect_lt(support__now_ms() - start, 20000);
}

/* ---- the version before an upgrade ---- */

enum { UPGRADED = 1750000000 }; /* when */

static const char *line_of(time_t at, const char *rest)
{
	char when[32];
	struct tm tm;
	localtime_r(&at, &tm);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	return path_of("%s %s\n", when, rest);
}

/* A root with libx1:amd64 1.0-1+b2, whose list of files was written 2 s after UPGRADED. `old_log` may be NULL. */
static const char *a_root_with_log(const char *log, const char *old_log)
{
	const char *root = a_root(two_archs), *list = path_of("%s/var/lib/dpkg/info/libx1:amd64.list", root);
	const struct timespec times[] = {{UPGRADED + 2, 0}, {UPGRADED + 2, 0}};
	mkdir(path_of("%s/var/log", root), 0755);
	file__write(path_of("%s/var/log/dpkg.log", root), log, strlen(log));
	if (old_log)
		file__write(path_of("%s/var/log/dpkg.log.1", root), old_log, strlen(old_log));
	cr_assert_eq(utimensat(AT_FDCWD, list, times, 0), 0);
	return root;
}

static void expect_version(const char *root, time_t since, const char *want)
{
	struct packages *p = packages__new(root);
	const struct package *k;
	ERR_CLEANUP struct err *e = packages__owner(p, "/lib/amd64/libx.so.1", &k);
	cr_assert(!e && k);
	const char *is = packages__version_at(p, k, since);
	cr_expect_str_eq(is ? is : "unknown", want, "since %ld: %s", (long)since - UPGRADED, is ? is : "unknown");
	packages__free(p);
}

Test(package, version_before_the_upgrade)
{
	const char *begin = line_of(UPGRADED - 86400, "startup archives unpack"),
		   *others = path_of("%s%s%s%s", line_of(UPGRADED - 7000, "upgrade libx1:i386 0.8-1 1.0-1"),
				     line_of(UPGRADED, "upgrade liby1:amd64 3 4"),
				     line_of(UPGRADED, "status unpacked libx1:amd64 1.0-1+b2"), "not a line\n"),
		   *upgrade = line_of(UPGRADED, "upgrade libx1:amd64 0.9-1 1.0-1+b2");
	const char *root = a_root_with_log(path_of("%s%s%s", begin, upgrade, others), NULL);
	expect_version(root, UPGRADED - 3600, "0.9-1");
	expect_version(root, UPGRADED - 5, "unknown");     /* clocks are set now and then */
	expect_version(root, UPGRADED + 3600, "unknown");  /* it was not upgraded since */
	expect_version(root, UPGRADED - 90000, "unknown"); /* the log does not go back so far */
	expect_version(a_root_with_log(path_of("%s%s", upgrade, others), begin), UPGRADED - 3600, "0.9-1");
}

Test(package, version_that_is_not_certain)
{
	const char *begin = line_of(UPGRADED - 86400, "startup archives unpack"),
		   *upgrade = line_of(UPGRADED, "upgrade libx1:amd64 0.9-1 1.0-1+b2");
	const char *const logs[] = {
	    "",
	    begin,
	    path_of("%s%s%s", begin, line_of(UPGRADED - 600, "upgrade libx1:amd64 0.8-1 0.9-1"), upgrade), /* twice */
	    path_of("%s%s%s", begin, upgrade, line_of(UPGRADED + 600, "remove libx1:amd64 1.0-1+b2 <none>")),
	    path_of("%s%s", begin, line_of(UPGRADED, "upgrade libx1:amd64 0.9-1 1.0-1+b3")), /* another is there */
	    path_of("%s%s", begin, line_of(UPGRADED, "install libx1:amd64 <none> 1.0-1+b2")),
	    path_of("%s%s", begin, line_of(UPGRADED + 7200, "upgrade libx1:amd64 0.9-1 1.0-1+b2")), /* another zone */
	    path_of("%s%s", begin, line_of(UPGRADED - 3600, "upgrade libx1:amd64 0.9-1 1.0-1+b2")),
	};
	for (size_t i = 0; i < sizeof(logs) / sizeof(logs[0]); i++)
		expect_version(a_root_with_log(logs[i], NULL), UPGRADED - 7200, "unknown");
}
