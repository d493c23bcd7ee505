/* See place.h. */
#include "place.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char llvupdate[] = COMMAND_DIR "/llvupdate";

enum { ROUNDS = 3, COMMAND_SECONDS = 60 };

struct place place__make(enum arrival how)
{
	struct place p = {.s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), how),
			  .version = 1};

	cr_assert_eq(chmod(p.s.dir, 0755), 0);
	cr_assert_eq(mkdir(path_of("%s/bin", p.s.dir), 0755), 0);
	cr_assert_eq(mkdir(path_of("%s/root", p.s.dir), 0755), 0);
	file__copy(FIXTURE_DIR "/surroundings_driver", path_of("%s/bin/driver", p.s.dir));
	file__copy(COMMAND_DIR "/llvupdate", path_of("%s/bin/llvupdate", p.s.dir));
	file__copy(COMMAND_DIR "/libllu.so.0", path_of("%s/bin/libllu.so.0", p.s.dir));
	return p;
}

/* The driver is the process itself, or its child, or its child's child. */
static pid_t find_driver(pid_t pid)
{
	for (;;) {
		char name[64] = "", children[64] = "";
		FILE *f = fopen(path_of("/proc/%d/comm", pid), "re");
		cr_assert(f && fgets(name, sizeof(name), f), "process %d is gone", pid);
		fclose(f);
		if (!strcmp(name, "driver\n"))
			return pid;
		f = fopen(path_of("/proc/%d/task/%d/children", pid, pid), "re");
		cr_assert(f && fgets(children, sizeof(children), f), "process %d has no child", pid);
		fclose(f);
		pid = (pid_t)strtol(children, NULL, 10);
	}
}

void place__start(struct place *p, const char *const argv[], const char *path)
{
	const char *env[] = {path ? path_of("LD_LIBRARY_PATH=%s", path) : NULL, NULL};

	p->s.target = target__start(argv, env);
	target__expect(p->s.target, "ready");
	p->pid = find_driver(target__pid(p->s.target));
	target__rounds(p->s.target, ROUNDS, p->version);
}

struct place place__begin(void)
{
	struct place p = place__make(BY_RENAME);

	place__start(&p, (const char *const[]){path_of("%s/bin/driver", p.s.dir), NULL}, path_of("%s/lib", p.s.dir));
	return p;
}

void place__start_chroot(struct place *p, const char *path, const char *const options[])
{
	const char *argv[16] = {"/usr/sbin/chroot"};
	size_t n = 1;

	for (; *options; options++)
		argv[n++] = *options;
	argv[n++] = p->s.dir;
	argv[n] = "/bin/driver";
	place__start(p, argv, path);
}

struct place place__chroot(enum arrival how, const char *path, const char *const options[])
{
	struct place p = place__make(how);

	cr_assert_eq(mkdir(path_of("%s/lib64", p.s.dir), 0755), 0);
	file__copy("/lib64/ld-linux-x86-64.so.2", path_of("%s/lib64/ld-linux-x86-64.so.2", p.s.dir));
	file__copy("/lib/x86_64-linux-gnu/libc.so.6", path_of("%s/lib/libc.so.6", p.s.dir));
	cr_assert_eq(symlink("/lib", path_of("%s/linked", p.s.dir)), 0);
	if (options)
		place__start_chroot(&p, path, options);
	return p;
}

bool place__try(struct place *p, const char *line)
{
	target__say(p->s.target, line);
	const char *answer = target__hear(p->s.target);
	cr_assert(!strcmp(answer, "done") || !strncmp(answer, "no: ", 4), "'%s': %s", line, answer);
	return !strcmp(answer, "done");
}

void place__tell(struct place *p, const char *line)
{
	target__ask(p->s.target, line, "done");
}

struct result place__llvupdate(const struct place *p, const char *const extra[])
{
	const char *argv[16] = {llvupdate, "-p", path_of("%d", p->pid), "-l", path_of("%s/update.log", p->s.dir)};
	size_t n = 5;

	for (; extra && *extra && n < 15; extra++)
		argv[n++] = *extra;
	return command__run(argv, COMMAND_SECONDS);
}

static void expect(struct result *r, pid_t pid, int exit_code, const char *expected)
{
	char *state = report_state(r->out, pid);

	cr_assert_eq(r->exit_code, exit_code, "exit code %d, not %d\n%s%s", r->exit_code, exit_code, r->out, r->err);
	cr_assert_str_eq(state, expected, "llvupdate reports '%s', not '%s'\n%s%s", state, expected, r->out, r->err);
	free(state);
}

void place__updated(struct place *p, struct result *r, pid_t pid, int version)
{
	expect(r, pid, 0, "SUCCESS");
	result__free(r);
	p->version = version;
	target__rounds(p->s.target, ROUNDS, version);
}

void place__update(struct place *p, int version)
{
	scene__install(&p->s, path_of("v%d", version));
	struct result r = place__llvupdate(p, NULL);
	place__updated(p, &r, p->pid, version);
}

void place__refused(struct place *p, struct result *r, int exit_code, const char *reason)
{
	cr_assert_eq(r->exit_code, exit_code, "exit code %d, not %d\n%s%s", r->exit_code, exit_code, r->out, r->err);
	cr_assert(text__has(r->out, "SUCCESS: 0 NOT UPDATED: 1 FAILURE: 0"), "%s%s", r->out, r->err);
	cr_assert(text__has(r->out, reason), "no word of '%s' in:\n%s%s", reason, r->out, r->err);
	result__free(r);
	target__rounds(p->s.target, ROUNDS, p->version);
}

void place__refuse(struct place *p, int version, int exit_code, const char *reason)
{
	scene__install(&p->s, path_of("v%d", version));
	struct result r = place__llvupdate(p, (const char *const[]){"-n", "1", "-t", "2", NULL});
	place__refused(p, &r, exit_code, reason);
}

void place__end(struct place *p)
{
	free(target__finish(p->s.target));
}

void place__want_root(void)
{
	if (geteuid() != 0)
		cr_skip_test("only root can make these surroundings");
}
