/* See stage.h. */
#include "stage.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"

enum { COMMAND_SECONDS = 90 };

static void put(const struct stage *s)
{
	const char *fresh = path_of("%s/fresh", s->dir);
	file__copy(s->split[s->version - 1], fresh);
	cr_assert(rename(fresh, path_of("%s/lib/libstate.so.1", s->dir)) == 0);
}

struct stage stage__new(void)
{
	struct stage s = {.dir = temp_dir(), .version = 1};
	cr_assert(mkdir(path_of("%s/lib", s.dir), 0755) == 0);
	for (int i = 0; i < 2; i++) {
		s.split[i] = path_of("%s/v%d", s.dir, i + 1);
		llusplit(fixture_library(path_of("v%d", i + 1), "libstate.so.1"), s.split[i], i ? s.split[0] : NULL);
	}
	put(&s);
	return s;
}

void stage__flip(struct stage *s)
{
	s->version = 3 - s->version;
	put(s);
}

struct target *stage__start(const struct stage *s, const char *const argv[])
{
	return target__start(argv, (const char *const[]){path_of("LD_LIBRARY_PATH=%s/lib", s->dir), NULL});
}

struct result stage__llvupdate(const char *pids, const char *const extra[])
{
	static const char llvupdate[] = COMMAND_DIR "/llvupdate";
	/* so that it says what is in its way before it is taken for hung */
	const char *argv[16] = {llvupdate, "-p", pids, "-l", "/dev/null", "-n", "2", "-t", "20"};
	for (size_t n = 9; extra && *extra && n < 15; extra++)
		argv[n++] = *extra;
	return command__run(argv, COMMAND_SECONDS);
}

void stage__update(struct stage *s, const struct target *t, bool strict)
{
	stage__flip(s);
	struct result r =
	    stage__llvupdate(path_of("%d", target__pid(t)), (const char *const[]){strict ? "--strict" : NULL, NULL});
	cr_assert_eq(r.exit_code, 0, "llvupdate%s: exit code %d\n%s%s", strict ? " --strict" : "", r.exit_code, r.out,
		     r.err);
	result__free(&r);
}

uint64_t switches(pid_t pid, pid_t tid)
{
	char line[128];
	uint64_t n = 0;
	FILE *f = fopen(path_of("/proc/%d/task/%d/status", pid, tid), "r");
	cr_assert(f, "thread %d of process %d is gone", tid, pid);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "ctxt_switches:"))
			n += strtoull(strchr(line, ':') + 1, NULL, 10);
	fclose(f);
	return n;
}

static const char *driver(void)
{
	return FIXTURE_DIR "/calls_driver";
}

struct rows rows__that(bool (*fit)(const struct row *r))
{
	struct rows rows = {.n = 0};
	setenv("LD_LIBRARY_PATH", FIXTURE_DIR "/lib/v1", 1);
	struct result r = command__run((const char *const[]){driver(), "--list", NULL}, COMMAND_SECONDS);
	unsetenv("LD_LIBRARY_PATH");
	cr_assert_eq(r.exit_code, 0, "%s", r.err);
	for (char *line = strtok(r.out, "\n"); line; line = strtok(NULL, "\n")) {
		char stop = 0;
		char timeout = 0;
		char timed[8];
		char handled[8];
		struct row row = {.name = ""};
		cr_assert_eq(sscanf(line, "%39s %c %c %7s %7s", row.name, &stop, &timeout, timed, handled), 5);
		row.stop = (enum stop)(stop - '0');
		row.timeout = (enum timeout)(timeout - '0');
		row.timed = strcmp(timed, "timed") == 0;
		row.handled = strcmp(handled, "handled") == 0;
		cr_assert_lt(rows.n, ROWS_MAX);
		if (fit(&row))
			rows.row[rows.n++] = row;
	}
	result__free(&r);
	cr_assert_gt(rows.n, 0);
	return rows;
}

static void skip(struct rows *rows, const char *name)
{
	for (size_t i = 0; i < rows->n; i++)
		if (strcmp(rows->row[i].name, name) == 0) {
			memmove(&rows->row[i], &rows->row[i + 1], (rows->n - i - 1) * sizeof(rows->row[0]));
			rows->n--;
			return;
		}
}

bool sleepers__start(const struct stage *s, const char *how, const char *signals, const struct rows *rows,
		     struct sleepers *out)
{
	const char *argv[ROWS_MAX + 5] = {driver(), s->dir, how, signals};
	*out = (struct sleepers){.rows = *rows};
	for (size_t i = 0; i < rows->n; i++)
		argv[4 + i] = rows->row[i].name;
	out->t = stage__start(s, argv);
	const char *line = target__hear(out->t);
	while (strncmp(line, "skip ", 5) == 0) {
		char name[40] = "";
		sscanf(line, "skip %39s", name);
		skip(&out->rows, name);
		fprintf(stderr, "skipped, as it cannot run here: %s\n", line + 5);
		line = target__hear(out->t);
	}
	if (strcmp(line, "none") == 0)
		return false;
	cr_assert_eq(strncmp(line, "ready ", 6), 0, "the driver says: %s", line);
	const char *p = line;
	for (size_t i = 0; i < out->rows.n; i++) {
		p = strchr(p, '=');
		cr_assert(p, "the driver says: %s", line);
		out->tid[i] = (pid_t)strtol(p + 1, NULL, 10);
		p++;
	}
	return true;
}

void sleepers__hear(struct sleepers *s, struct outcome *out)
{
	for (size_t i = 0; i < s->rows.n; i++) {
		const char *line = target__hear(s->t);
		size_t len = strlen(s->rows.row[i].name);
		char *end = NULL;
		cr_assert(strncmp(line, s->rows.row[i].name, len) == 0 && line[len] == ' ', "the driver says: %s",
			  line);
		out[i].start = strtol(line + len, &end, 10);
		out[i].end = strtol(end, &end, 10);
		out[i].alarms = (int)strtol(end, &end, 10);
		snprintf(out[i].text, sizeof(out[i].text), "%s", *end ? end + 1 : "");
	}
	const char *done = target__hear(s->t);
	cr_assert_eq(strncmp(done, "done ", 5), 0, "the driver says: %s", done);
	free(target__finish(s->t));
}
