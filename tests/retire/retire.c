/* See retire.h. */
#include "retire.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scene park__begin(void)
{
	return scene__begin("park", "v1");
}

char *update_to(struct scene *s, int version, pid_t pid)
{
	pid = pid ? pid : target__pid(s->target);
	const char *argv[] = {COMMAND_DIR "/llvupdate",         "-p", path_of("%d", pid), "-l",
			      path_of("%s/update.log", s->dir), NULL};

	scene__install(s, path_of("v%d", version));
	struct result r = command__run(argv, 60);
	cr_assert_eq(r.exit_code, 0, "llvupdate -p: exit code %d\n%s%s", r.exit_code, r.out, r.err);
	char *state = report_state(r.out, pid);
	cr_assert_str_eq(state, "SUCCESS", "%s\n%s", r.out, r.err);
	free(state);
	free(r.err);
	return r.out;
}

size_t replaced_code(const struct scene *s, pid_t pid)
{
	struct map maps[64];
	size_t n = maps__find(pid, s->dir, maps, 64), replaced = 0;

	cr_assert_lt(n, 64);
	for (size_t i = 0; i < n; i++)
		replaced += strchr(maps[i].prot, 'x') && strstr(maps[i].path, s->library);
	return replaced;
}

void update_gone(struct scene *s, int version)
{
	char *out = update_to(s, version, 0);

	cr_assert(text__has(out, "the old code is gone"), "%s", out);
	cr_assert_eq(replaced_code(s, target__pid(s->target)), 0, "code of a replaced file is still mapped\n%s", out);
	free(out);
	target__rounds(s->target, 1, version);
}

void update_held(struct scene *s, int version, const char *reason)
{
	char *out = update_to(s, version, 0);

	cr_assert(text__has(out, path_of("the old code stays mapped: [^\n]*%s", reason)), "no word of '%s' in:\n%s",
		  reason, out);
	free(out);
	target__rounds(s->target, 1, version);
}

long proc_number(pid_t pid, const char *file, const char *key)
{
	char line[256];
	long n = -1;
	FILE *f = fopen(path_of("/proc/%d/%s", pid, file), "re");

	cr_assert_not_null(f);
	while (n < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			n = strtol(line + strlen(key), NULL, 10);
	fclose(f);
	cr_assert_geq(n, 0, "no %s in %s", key, file);
	return n;
}

size_t proc_entries(pid_t pid, const char *folder)
{
	size_t n = 0;
	DIR *d = opendir(path_of("/proc/%d/%s", pid, folder));

	cr_assert_not_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

size_t proc_mappings(pid_t pid)
{
	size_t n = 0;
	FILE *f = fopen(path_of("/proc/%d/maps", pid), "re");

	cr_assert_not_null(f);
	for (int c; (c = getc(f)) != EOF;)
		n += c == '\n';
	fclose(f);
	return n;
}
