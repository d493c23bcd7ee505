/* A scene of an update; see scene.h. */
#include "scene.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COMMAND_SECONDS = 60, ROUNDS = 3 };

void llusplit(const char *in, const char *out, const char *like)
{
	const char *argv[] = {COMMAND_DIR "/llusplit", in, "-o", out, like ? "--like" : NULL, like, NULL};
	struct result r = command__run(argv, COMMAND_SECONDS);

	cr_assert_eq(r.exit_code, 0, "llusplit %s: exit code %d\n%s%s", in, r.exit_code, r.out, r.err);
	result__free(&r);
}

const char *fixture_library(const char *variant, const char *library)
{
	return path_of(FIXTURE_DIR "/lib/%s/%s", variant, library);
}

/* Renames a new symbolic link over `link`, so that the name is there at every moment. */
static void switch_link(const char *link, const char *content)
{
	const char *fresh = path_of("%s.new", link);

	cr_assert(symlink(content, fresh) == 0 && rename(fresh, link) == 0, "cannot switch %s: %s", link,
		  strerror(errno));
}

void scene__install_raw(struct scene *s, const char *file)
{
	const char *lib = path_of("%s/lib", s->dir), *fresh;

	s->generation++;
	switch (s->how) {
	case BY_RENAME:
		mkdir(lib, 0755);
		fresh = path_of("%s/%s.fresh", lib, s->library);
		file__copy(file, fresh);
		cr_assert(rename(fresh, path_of("%s/%s", lib, s->library)) == 0);
		break;
	case BY_SYMLINK:
		mkdir(lib, 0755);
		fresh = path_of("%s/%s.0.%u", lib, s->library, s->generation);
		file__copy(file, fresh);
		switch_link(path_of("%s/%s", lib, s->library), path_of("%s.0.%u", s->library, s->generation));
		break;
	case BY_DIRECTORY:
		fresh = path_of("%s/release-%u", s->dir, s->generation);
		mkdir(fresh, 0755);
		file__copy(file, path_of("%s/%s", fresh, s->library));
		switch_link(lib, path_of("release-%u", s->generation));
		break;
	}
}

void scene__install_file(struct scene *s, const char *file)
{
#ifdef UNPREPARED
	scene__install_raw(s, file);
	return;
#endif
	const char *split = path_of("%s/split-%u", s->dir, s->generation + 1);

	llusplit(file, split, s->first);
	if (!s->first)
		s->first = split;
	scene__install_raw(s, split);
}

void scene__install(struct scene *s, const char *variant)
{
	scene__install_file(s, fixture_library(variant, s->library));
}

struct scene scene__prepare(const char *library, const char *file, enum arrival how)
{
	struct scene s = {.dir = temp_dir(), .library = path_of("%s", library), .how = how};

	scene__install_file(&s, file);
	return s;
}

void scene__start(struct scene *s, const char *const argv[])
{
	const char *env[] = {path_of("LD_LIBRARY_PATH=%s/lib:" FIXTURE_DIR "/lib/dep", s->dir), NULL};

	s->target = target__start(argv, env);
	target__expect(s->target, "ready");
}

struct scene scene__begin_plain(const char *library, const char *variant, const char *program)
{
	struct scene s = {.dir = temp_dir(), .library = path_of("%s", library), .how = BY_RENAME};

	scene__install_raw(&s, fixture_library(variant, library));
	scene__start(&s, (const char *const[]){path_of(FIXTURE_DIR "/%s", program), NULL});
	return s;
}

struct scene scene__begin_by(const char *name, const char *variant, enum arrival how)
{
	const char *library = path_of("lib%s.so.1", name);
	const char *argv[] = {path_of(FIXTURE_DIR "/%s_driver", name), NULL};
	struct scene s = scene__prepare(library, fixture_library(variant, library), how);

	scene__start(&s, argv);
	return s;
}

struct scene scene__begin(const char *name, const char *variant)
{
	return scene__begin_by(name, variant, BY_RENAME);
}

static bool others_in(const char *text, pid_t own)
{
	for (const char *p = text; (p = strstr(p, "pid ")) != NULL; p += 4)
		if (strtol(p + 4, NULL, 10) != own)
			return true;
	return strstr(text, "Cannot look at") != NULL;
}

/* Known clients match pid\s+(\d+).*?Library needs to be updated\s+(\S+) over the text: the first such words
 * behind the PID are the library's. */
bool scene__preview_lists(const struct scene *s)
{
	const char *argv[] = {COMMAND_DIR "/llvupdate", "-P", "-l", path_of("%s/preview.log", s->dir), NULL};
	static const char words[] = "Library needs to be updated";
	struct result r = command__run(argv, COMMAND_SECONDS);
	bool listed = false;

	for (const char *p = r.out; (p = strstr(p, "pid ")) != NULL; p += 4) {
		if (strtol(p + 4, NULL, 10) != target__pid(s->target))
			continue;
		const char *w = strstr(p, words);
		size_t len;
		if (!w)
			break;
		w += sizeof(words) - 1;
		w += strspn(w, " \t\n");
		len = strcspn(w, " \t\n");
		char *word = strndup(w, len);
		listed = strstr(word, s->library) != NULL;
		free(word);
		if (listed)
			break;
	}
	/* the preview is of the whole machine: processes of other tests may be refused, or half-way through something
	 */
	if (!others_in(r.out, target__pid(s->target)))
		cr_assert_eq(r.exit_code, listed ? 0 : 1, "llvupdate -P: exit code %d\n%s%s", r.exit_code, r.out,
			     r.err);
	if (r.exit_code == 1)
		cr_assert(text__has(r.out, "No process requires a Live library Update operation\\."), "%s", r.out);
	result__free(&r);
	return listed;
}

struct result scene__llvupdate(const struct scene *s, const char *const extra[])
{
	const char *argv[16] = {COMMAND_DIR "/llvupdate", "-p", path_of("%d", target__pid(s->target)), "-l",
				path_of("%s/update.log", s->dir)};
	size_t n = 5;

	for (; extra && *extra && n < 15; extra++)
		argv[n++] = *extra;
	return command__run(argv, COMMAND_SECONDS);
}

char *report_state(const char *text, pid_t pid)
{
	const char *report = strstr(text, "==== LLU Report ====");
	const char *end = report ? strstr(report, "==== LLU Report End ====") : NULL;

	for (const char *line = end ? strchr(report, '\n') : NULL; line && ++line < end; line = strchr(line, '\n')) {
		char *after;
		if (strtol(line, &after, 10) != pid)
			continue;
		/* PID, then the name, then the state to the end of the line. */
		after += strspn(after, " ");
		after += strcspn(after, " \n");
		after += strspn(after, " ");
		return strndup(after, strcspn(after, "\n"));
	}
	return strdup("");
}

static void expect_state(const struct scene *s, const struct result *r, const char *expected)
{
	char *state = report_state(r->out, target__pid(s->target));

	cr_assert_str_eq(state, expected, "llvupdate reports '%s', not '%s'\n%s%s", state, expected, r->out, r->err);
	free(state);
}

void scene__update(struct scene *s)
{
	cr_assert(scene__preview_lists(s), "llvupdate -P does not list pid %d", target__pid(s->target));
	struct result r = scene__llvupdate(s, NULL);
	cr_assert_eq(r.exit_code, 0, "llvupdate -p: exit code %d\n%s%s", r.exit_code, r.out, r.err);
	expect_state(s, &r, "SUCCESS");
	result__free(&r);
	cr_assert(!scene__preview_lists(s), "llvupdate -P still lists pid %d", target__pid(s->target));
}

void scene__refuse(struct scene *s, const char *reason)
{
	struct result r = scene__llvupdate(s, (const char *const[]){"-n", "1", "-t", "2", NULL});

	cr_assert_eq(r.exit_code, 3, "llvupdate -p: exit code %d\n%s%s", r.exit_code, r.out, r.err);
	expect_state(s, &r, "NOT UPDATED");
	cr_assert(text__has(r.out, reason) || text__has(r.err, reason), "no word of '%s' in:\n%s%s", reason, r.out,
		  r.err);
	result__free(&r);
}

void scene__walk(struct scene *s, const char *variant)
{
	static const int versions[] = {2, 3, 1};

	target__rounds(s->target, ROUNDS, 1);
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		scene__install(s, path_of("v%d%s", versions[i], variant));
		scene__update(s);
		target__rounds(s->target, ROUNDS, versions[i]);
	}
}

void scene__seal(struct target *t, const char *library, const char *part)
{
	struct result r =
	    command__run((const char *const[]){COMMAND_DIR "/procmap", path_of("%d", target__pid(t)), NULL}, 60);
	const char *end = path_of("  %s(%s)\n", library, part), *line = strstr(r.out, end);
	unsigned long from, to;
	char *after;

	cr_assert_not_null(line, "no '%s' in:\n%s", end, r.out);
	while (line > r.out && line[-1] != '\n')
		line--;
	from = strtoul(line, &after, 16);
	to = strtoul(after + 1, NULL, 16);
	cr_assert(*after == '-' && to > from, "%s", line);
	result__free(&r);
	target__say(t, path_of("seal 0x%lx 0x%lx", from, to - from));
	if (strcmp(target__hear(t), "sealed") != 0)
		cr_skip_test("this kernel has no mseal(2)");
}
