/* A program that uses libllu, and has what programs have: files, signal handlers, a locale, threads.
 *
 *     api_host update PID [threads | locale NAME]     preview and update; says what it saw
 *     api_host preview FILE                           JSON of a preview of all
 *     api_host recover                                cleans up; says what it did
 *     api_host misuse                                 what must be refused, a line each
 *     api_host plan OLD NEW                           can NEW take over?
 */
#include <errno.h>
#include <llu.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int fail(struct llu_error *e)
{
	printf("error %d: %s\n", llu_error__kind(e), llu_error__text(e));
	if (llu_error__hint(e))
		printf("hint: %s\n", llu_error__hint(e));
	llu_error__free(e);
	return 1;
}

/* ---- what the program has ---- */

static pid_t self;
static int *handled_elsewhere; /* shared with all that is forked */

static void reap(int sig)
{
	(void)sig;
	int before = errno; /* NOLINT(bugprone-signal-handler): each thread's own (signal-safety(7)) */
	if (getpid() != self)
		++*handled_elsewhere;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	errno = before; /* NOLINT(bugprone-signal-handler) */
}

static void *rest(void *unused)
{
	(void)unused;
	for (;;)
		pause();
	return NULL;
}

static void have_handlers(void)
{
	self = getpid();
	handled_elsewhere =
	    mmap(NULL, sizeof(*handled_elsewhere), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (handled_elsewhere == MAP_FAILED)
		abort();
	signal(SIGCHLD, reap);
}

/* The reader of a pipe hears its end when the last writer has closed it. */
static bool is_shared(int ends[2])
{
	struct pollfd p = {.fd = ends[0], .events = POLLIN};
	close(ends[1]);
	return poll(&p, 1, 0) == 0;
}

static bool has_children(void)
{
	char list[64];
	FILE *f = fopen("/proc/thread-self/children", "r");
	bool any = f && fread(list, 1, sizeof(list), f) > 0;
	if (f)
		fclose(f);
	return any;
}

/* ---- an update ---- */

static struct llu_error *step_by_step(struct llu_operation *x, int ends[2])
{
	struct llu_error *e = llu_operation__look(x);
	if (e)
		return e;
	const struct llu_process *p = llu_operation__process(x, 0);
	printf("looked: %zu, outcome %d, pending %zu\n", llu_operation__n_processes(x), p ? (int)p->outcome : -1,
	       llu_operation__pending(x));
	printf("pipe %s\n", is_shared(ends) ? "shared" : "own");
	printf("children %s, %s\n", has_children() ? "there" : "not there",
	       waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD ? "not seen" : "seen");
	for (int tries = 0; !e && tries < 3 && llu_operation__pending(x) > 0; tries++)
		e = llu_operation__try(x);
	return e;
}

static int update(pid_t pid)
{
	struct llu_options opt = {.size = sizeof(opt), .pids = &pid, .n_pids = 1};
	struct llu_operation *x;
	struct rlimit before, after;
	int ends[2];
	have_handlers();
	getrlimit(RLIMIT_NOFILE, &before);
	if (pipe(ends) < 0)
		return 2;
	struct llu_error *e = llu_operation__new(&opt, &x);
	if (!e)
		e = step_by_step(x, ends);
	if (e) {
		llu_operation__free(x);
		return fail(e);
	}
	llu_operation__end(x);
	const struct llu_process *p = llu_operation__process(x, 0);
	printf("pid %d name %s outcome %d status %d\n", p->pid, p->name, p->outcome, llu_operation__status(x));
	printf("details: %s", p->details);
	printf("json: ");
	llu_operation__write_json(x, stdout);
	llu_operation__free(x);
	getrlimit(RLIMIT_NOFILE, &after);
	printf("handlers %s, limit %s, children %s\n", *handled_elsewhere ? "ran elsewhere" : "stayed here",
	       after.rlim_cur == before.rlim_cur ? "as before" : "changed", has_children() ? "left" : "gone");
	return 0;
}

/* ---- others ---- */

static int preview(const char *path)
{
	struct llu_options opt = {.size = sizeof(opt), .all = true, .preview = true};
	struct llu_operation *x;
	struct llu_error *e = llu_operation__new(&opt, &x);
	if (!e)
		e = llu_operation__look(x);
	if (e)
		return fail(e);
	FILE *to = fopen(path, "w");
	printf("json %s\n", to && llu_operation__write_json(x, to) ? "written" : strerror(errno));
	if (to)
		fclose(to);
	e = llu_operation__try(x);
	fail(e);
	llu_operation__free(x);
	return 0;
}

static int recover(void)
{
	struct llu_recovery *r;
	have_handlers();
	struct llu_error *e = llu_recovery__run(NULL, &r);
	for (size_t i = 0; i < llu_recovery__n(r); i++) {
		const struct llu_recovered *x = llu_recovery__item(r, i);
		printf("%d %s: %s: %s%s\n", x->pid, x->name ? x->name : "-", x->library ? x->library : "-",
		       x->failed ? "failed: " : "", x->text);
	}
	llu_recovery__free(r);
	printf("handlers %s, children %s\n", *handled_elsewhere ? "ran elsewhere" : "stayed here",
	       has_children() ? "left" : "gone");
	return e ? fail(e) : 0;
}

static void refused(const char *what, struct llu_error *e)
{
	printf("%s: ", what);
	if (e)
		fail(e);
	else
		printf("done\n");
}

static int misuse(void)
{
	struct {
		struct llu_options known;
		char more[16];
	} later = {.known = {.size = sizeof(later), .all = true}};
	struct llu_options opt = {0};
	struct llu_operation *x = NULL;
	struct llu_recovery *r = NULL;
	pid_t pid = getpid(), none = 0;
	refused("no size", llu_operation__new(&opt, &x));
	refused("later options, unused", llu_operation__new(&later.known, &x));
	llu_operation__free(x);
	later.more[7] = 1;
	refused("later options, used", llu_operation__new(&later.known, &x));
	opt = (struct llu_options){.size = offsetof(struct llu_options, except), .pids = &pid, .n_pids = 1};
	refused("options of before", llu_operation__new(&opt, &x));
	if (!x) /* this program may not do it: why was said */
		return 1;
	refused("try before the look", llu_operation__try(x));
	refused("look", llu_operation__look(x));
	refused("look again", llu_operation__look(x));
	refused("trace behind the look", llu_operation__trace_to(x, "/dev/null"));
	llu_operation__end(x);
	refused("try behind the end", llu_operation__try(x));
	printf("process 7: %s\n", llu_operation__process(x, 7) ? "there" : "none");
	llu_operation__free(x);
	opt = (struct llu_options){.size = sizeof(opt), .pids = &none, .n_pids = 1};
	refused("PID 0", llu_operation__new(&opt, &x));
	opt = (struct llu_options){.size = sizeof(opt), .all = true, .timeout_s = 301};
	refused("long timeout", llu_operation__new(&opt, &x));
	opt = (struct llu_options){.size = sizeof(opt), .pids = &pid, .n_pids = 1, .except = &pid, .n_except = 1};
	refused("all but one of one", llu_operation__new(&opt, &x));
	opt = (struct llu_options){.size = sizeof(opt)};
	refused("nobody", llu_operation__new(&opt, &x));
	opt = (struct llu_options){.size = sizeof(opt), .pids = &pid};
	refused("an empty list", llu_operation__new(&opt, &x));
	refused("no options", llu_operation__new(NULL, &x));
	opt = (struct llu_options){.size = sizeof(opt), .all = true, .pids = &pid, .n_pids = 1};
	refused("all and one", llu_operation__new(&opt, &x));
	opt = (struct llu_options){.size = sizeof(opt), .all = true, .reserved = {0, 0, 1}};
	refused("reserved", llu_operation__new(&opt, &x));
	opt = (struct llu_options){.size = 1 << 20, .all = true};
	refused("a wild size", llu_operation__new(&opt, &x));
	opt = (struct llu_options){.size = sizeof(opt), .all = true};
	close(0);
	refused("no standard input", llu_operation__new(&opt, &x));
	refused("no standard input to recover", llu_recovery__run(NULL, &r));
	llu_recovery__free(r);
	printf("no plan and no error: %s\n", llu_plan__write_json(NULL, NULL, stdout) ? "written" : "not written");
	llu_operation__free(NULL);
	llu_error__free(NULL);
	llu_plan__free(NULL);
	llu_recovery__free(NULL);
	return 0;
}

static int plan(const char *from, const char *to)
{
	struct llu_plan *p;
	struct llu_error *e = llu_plan__make(from, to, NULL, &p);
	if (e)
		return fail(e);
	printf("fits: %d\n", llu_plan__fits(p));
	llu_plan__free(p);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	pthread_t thread;
	if (argc == 4 && strcmp(argv[3], "threads") == 0 && pthread_create(&thread, NULL, rest, NULL) != 0)
		return 2;
	if (argc == 5 && strcmp(argv[3], "locale") == 0 && !setlocale(LC_NUMERIC, argv[4]))
		return 2;
	if (strcmp(what, "update") == 0)
		return update((pid_t)strtol(argv[2], NULL, 10));
	if (strcmp(what, "preview") == 0)
		return preview(argv[2]);
	if (strcmp(what, "recover") == 0)
		return recover();
	if (strcmp(what, "misuse") == 0)
		return misuse();
	return strcmp(what, "plan") == 0 ? plan(argv[2], argv[3]) : 2;
}
