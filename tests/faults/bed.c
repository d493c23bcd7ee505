/* See bed.h. */
#include "bed.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { BUILDS = 2, TOOL_SECONDS = 100, PATIENCE_MS = 20000, FAR = 100000 };

static const char *const names[] = {"libstate.so.1", "libupper.so.1", "liblower.so.1"};
enum { LIBRARIES = sizeof(names) / sizeof(names[0]) };

static struct bed make(bool plain)
{
	struct bed b = {.dir = temp_dir(), .live = 1};
	struct result before = bed__clean_up(&b, NULL); /* what other tests have left is no concern */

	cr_assert_eq(before.exit_code, 0, "%s%s", before.out, before.err);
	result__free(&before);
	for (int i = 0; i < LIBRARIES; i++) {
		b.library[i] = (struct scene){
		    .dir = b.dir, .library = names[i], .how = BY_RENAME, .generation = FAR * (unsigned)i};
		for (int v = 1; v <= BUILDS; v++) {
			const char *file = fixture_library(path_of("v%d", v), names[i]);
			b.build[i][v] = plain ? file : path_of("%s/%s.%d", b.dir, names[i], v);
			if (!plain)
				llusplit(file, b.build[i][v], v > 1 ? b.build[i][1] : NULL);
		}
	}
	return b;
}

struct bed bed__make(void)
{
	return make(false);
}

struct bed bed__make_unprepared(void)
{
	return make(true);
}

void bed__install(struct bed *b, int v)
{
	for (int i = 0; i < LIBRARIES; i++)
		scene__install_raw(&b->library[i], b->build[i][v]);
}

static void count(struct bed *b, unsigned *threads, unsigned *fds, unsigned *interrupted)
{
	target__say(b->target, "counts");
	const char *line = target__hear(b->target);
	cr_assert_eq(sscanf(line, "counts threads=%u fds=%u eintr=%u", threads, fds, interrupted), 3, "%s", line);
}

void bed__start(struct bed *b)
{
	bed__install(b, 1);
	scene__start(&b->library[0], (const char *const[]){FIXTURE_DIR "/witness_driver", NULL});
	b->target = b->library[0].target;
	b->live = 1;
	count(b, &b->threads, &b->fds, &b->interrupted);
	cr_assert_eq(b->interrupted, 0);
}

void bed__stop(struct bed *b)
{
	target__kill(b->target);
	b->target = NULL;
}

/* ---- is it well? ---- */

static unsigned threads_of(pid_t pid, bool *traced)
{
	char path[64], line[256];
	unsigned n = 0, tracer;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *d = opendir(path);
	cr_assert(d, "the program is gone");
	*traced = false;
	for (struct dirent *e; (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		n++;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/status", pid, e->d_name);
		FILE *f = fopen(path, "re");
		while (f && fgets(line, sizeof(line), f))
			*traced = *traced || (sscanf(line, "TracerPid: %u", &tracer) == 1 && tracer);
		if (f)
			fclose(f);
	}
	closedir(d);
	return n;
}

/* The hand that a dead tool leaves goes away by itself. */
static void wait_until_alone(struct bed *b, const char *when)
{
	int64_t deadline = support__now_ms() + PATIENCE_MS;
	unsigned n;
	bool traced;
	while ((n = threads_of(target__pid(b->target), &traced)) != b->threads || traced) {
		if (!target__alive(b->target)) /* it says why, if it could */
			cr_assert_fail("%s: the program is dead: %s", when, target__hear(b->target));
		cr_assert_lt(support__now_ms(), deadline, "%s: %u threads instead of %u%s", when, n, b->threads,
			     traced ? ", traced" : "");
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	}
}

/* Asks for a line and says, if the program ends instead, when that was. */
static const char *ask(struct bed *b, const char *line, const char *when)
{
	cr_assert(target__alive(b->target), "%s: the program is dead", when);
	target__say(b->target, line);
	const char *heard = target__hear(b->target);
	cr_assert(strncmp(heard, "wrong", 5) != 0, "%s: %s", when, heard);
	return heard;
}

/* Was the tool killed between asking threads to stop and mending the calls that they were in? */
static bool was_stopping(const struct bed *b)
{
	return b->killed_at && (strstr(b->killed_at, " tracee__interrupt<") ||
				text__has(b->killed_at, "^SETREGSET (before|after): tracee__set_regs<stopped<"));
}

static void look(struct bed *b, const char *when, unsigned *state, int *pair)
{
	unsigned n, threads, fds, interrupted;
	int64_t deadline = support__now_ms() + PATIENCE_MS;
	wait_until_alone(b, when);
	const char *heard = ask(b, "round", when);
	cr_assert_eq(sscanf(heard, "ok %u version=%u", &n, state), 2, "%s: %s", when, heard);
	heard = ask(b, "pair", when);
	cr_assert_eq(sscanf(heard, "pair %d", pair), 1, "%s: %s", when, heard);
	/* a thread that was on its way to make a hand, when the tool died, may have made it only now */
	for (count(b, &threads, &fds, &interrupted); threads > b->threads && support__now_ms() < deadline;
	     count(b, &threads, &fds, &interrupted))
		wait_until_alone(b, when);
	cr_assert(threads == b->threads && fds == b->fds, "%s: %u threads and %u descriptors, not %u and %u", when,
		  threads, fds, b->threads, b->fds);
	b->any_interrupted = b->any_interrupted || interrupted != b->interrupted;
	cr_assert(interrupted == b->interrupted || was_stopping(b), "%s: %u calls ended with EINTR", when,
		  interrupted - b->interrupted);
	b->interrupted = interrupted;
}

void bed__well(struct bed *b, const char *when)
{
	unsigned state;
	int pair;
	look(b, when, &state, &pair);
}

void bed__check(struct bed *b, int before, int after, const char *when)
{
	unsigned state;
	int pair;
	look(b, when, &state, &pair);
	cr_assert((int)state == before || (int)state == after, "%s: libstate is of version %u", when, state);
	cr_assert(pair == 11 * before || pair == 11 * after, "%s: the pair is of versions %d", when, pair);
}

void bed__is(struct bed *b, int v, const char *when)
{
	bed__check(b, v, v, when);
	b->live = v;
}

/* ---- the tools ---- */

static struct result run_with(struct bed *b, const char *const faults[], const char *const argv[])
{
	static const char killed[] = "killed at ";
	const char *all[32] = {"env"};
	size_t n = 1;
	for (; faults && *faults && n < 16; faults++)
		all[n++] = *faults;
	for (; *argv && n < 31; argv++)
		all[n++] = *argv;
	struct result r = command__run(all, TOOL_SECONDS);
	const char *at = r.exit_code == -SIGKILL ? strstr(r.err, killed) : NULL;
	b->killed_at = at ? path_of("%.*s", (int)strcspn(at, "\n") - (int)strlen(killed), at + strlen(killed)) : NULL;
	b->any_interrupted = false;
	return r;
}

struct result bed__update(struct bed *b, const char *const faults[])
{
	return run_with(b, faults,
			(const char *const[]){COMMAND_DIR "/faults/llvupdate", "-p",
					      path_of("%d", target__pid(b->target)), "-l", path_of("%s/log", b->dir),
					      "-n", "1", NULL});
}

pid_t bed__start_update(struct bed *b, const char *name, const char *value)
{
	const char *pid = path_of("%d", target__pid(b->target)), *log = path_of("%s/log", b->dir);
	pid_t tool = fork();
	if (tool == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setenv(name, value, 1);
		freopen("/dev/null", "w", stdout);
		execl(COMMAND_DIR "/faults/llvupdate", "llvupdate", "-p", pid, "-l", log, "-n", "1", (char *)NULL);
		_exit(127);
	}
	return tool;
}

struct result bed__clean_up(struct bed *b, const char *const faults[])
{
	return run_with(b, faults, (const char *const[]){COMMAND_DIR "/faults/cllvupdate", "-u", NULL});
}

const char *run_folder(void)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	return geteuid() == 0 ? "/run/llu" : runtime ? path_of("%s/llu", runtime) : path_of("/tmp/llu-%u", geteuid());
}

static void expect_clean_folder(pid_t pid, const char *when)
{
	DIR *d = opendir(run_folder());
	const char *own = path_of("%d.", pid);
	for (struct dirent *e; d && (e = readdir(d));)
		cr_assert(strncmp(e->d_name, own, strlen(own)) != 0, "%s: %s is left", when, e->d_name);
	if (d)
		closedir(d);
}

bool bed__cleaned_up(struct bed *b, const char *when)
{
	static const char nothing[] = "No clean up is required\n";
	struct result r = bed__clean_up(b, NULL);
	cr_log_info("%s: %s", when, r.out);
	cr_assert_eq(r.exit_code, 0, "%s: cllvupdate: exit code %d\n%s%s", when, r.exit_code, r.out, r.err);
	bool any = strcmp(r.out, nothing) != 0;
	cr_assert(!any || text__has(r.out, "was taken back|was finished|changed nothing|cleared away|gone: nothing|"
					   "not written to its end|removed from the store"),
		  "%s: %s", when, r.out);
	result__free(&r);
	expect_clean_folder(target__pid(b->target), when);
	if (any) {
		r = bed__clean_up(b, NULL);
		cr_assert_str_eq(r.out, nothing, "%s, once more: %s", when, r.out);
		result__free(&r);
	}
	return any;
}

void bed__updated(struct bed *b, int v, const char *when)
{
	struct result r = bed__update(b, NULL);
	cr_assert(r.exit_code == 0 || r.exit_code == 1, "%s: llvupdate: exit code %d\n%s%s", when, r.exit_code, r.out,
		  r.err);
	bed__is(b, v, when);
	if (r.exit_code == 0) /* 1: nothing to do, and what an earlier one left is cllvupdate's */
		expect_clean_folder(target__pid(b->target), when);
	result__free(&r);
}

/* ---- places ---- */

static bool has(char *const *list, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i], s))
			return true;
	return false;
}

static void push(char ***list, size_t *n, const char *s)
{
	*list = realloc(*list, (*n + 1) * sizeof(**list));
	cr_assert(*list);
	(*list)[(*n)++] = strdup(s);
}

struct places places__read(const char *file)
{
	struct places p = {0};
	char line[1024];
	FILE *f = fopen(file, "re");
	cr_assert(f, "no %s", file);
	while (fgets(line, sizeof(line), f)) {
		char *place = strchr(line, '\t');
		cr_assert(place, "%s", line);
		*place++ = '\0';
		place[strcspn(place, "\n")] = '\0';
		if (!strncmp(line, "call ", 5)) {
			push(&p.calls, &p.n_calls, place);
			continue;
		}
		push(&p.all, &p.n, place);
		if (!has(p.distinct, p.n_distinct, place))
			push(&p.distinct, &p.n_distinct, place);
	}
	fclose(f);
	return p;
}

static void free_list(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

void places__free(struct places *p)
{
	free_list(p->all, p->n);
	free_list(p->distinct, p->n_distinct);
	free_list(p->calls, p->n_calls);
	*p = (struct places){0};
}

const char *places__find(const struct places *p, const char *words)
{
	for (size_t i = 0; i < p->n_distinct; i++)
		if (strstr(p->distinct[i], words))
			return p->distinct[i];
	return NULL;
}
