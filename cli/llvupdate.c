/* llvupdate: brings the new code of updated libraries into running processes. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/trusted.h"
#include "base/watchdog.h"
#include "remap/update.h"
#include "report/journal.h"
#include "report/report.h"

enum {
	EXIT_DONE = 0,
	EXIT_NOTHING = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_UPDATED = 3,
	EXIT_FAILURE_SEEN = 4,
	EXIT_NOT_PERMITTED = 5,
};

enum { TRIES_MAX = 10, TIMEOUT_MAX_S = 300, PAUSE_BETWEEN_TRIES_S = 10 };
/* What nobody waits for any longer: looking at one process and planning for it; one phase of a try, which may wait for
 * its threads a few times for each library. */
enum { LOOK_MAX_S = 600, PHASE_TIMEOUTS = 5, PHASE_MAX_S = 120 };

typedef VEC(pid_t) pid_list;
typedef VEC(struct report_target) target_list;

struct options {
	bool preview, all, json, strict, require_proof, split_only;
	pid_list pids, except;
	unsigned tries, timeout_s;
	int delay_s; /* -1: not said */
	const char *log;
	const char *overrule; /* NULL: OVERRULE_FILE, if there is one */
};

static const char usage[] = "usage: llvupdate -P [-l LOG] [--json]\n"
			    "       llvupdate -p 'PID PID...' [-n TRIES] [-t SECONDS] [-l LOG] [--json]\n"
			    "       llvupdate -a [-e 'PID PID...'] [-n TRIES] [-t SECONDS] [-l LOG] [--json]\n"
			    "\n"
			    "Brings the new code of updated libraries into running processes.\n"
			    "  -P, --preview        say which processes run old code; change nothing\n"
			    "  -p, --pids PIDS      update these processes\n"
			    "  -a, --all            update all processes\n"
			    "  -e, --except PIDS    with -a: but not these\n"
			    "  -n, --retries N      how often to try, 1 to 10 (3)\n"
			    "  -t, --timeout S      seconds for a process to reach an updatable state, up to 300 (30)\n"
			    "  -l, --log FILE       log file (/var/log/liveupdate/llvupdlog)\n"
			    "      --delay S        count-down before it begins (10 on a terminal, else 0)\n"
			    "      --strict         stop sleeping threads too\n"
			    "      --split-only     leave processes alone that were not prepared by llusplit\n"
			    "      --require-proof  only debug information will do for the layout of objects\n"
			    "      --overrule FILE  pairs of builds whose layout the administrator answers for\n"
			    "                       (" OVERRULE_FILE ")\n"
			    "      --json           one JSON document instead of text\n"
			    "      --help, --version\n"
			    "Exit: 0 all updated (preview: something to do), 1 nothing to do, 2 usage,\n"
			    "      3 some not updated, 4 some failed, 5 not permitted or busy.\n";

/* ---- arguments ---- */

static bool parse_number(const char *s, long min, long max, long *out)
{
	char *end;
	errno = 0;
	*out = strtol(s, &end, 10);
	return errno == 0 && end != s && *end == 0 && *out >= min && *out <= max;
}

/* PIDs between blanks or commas. */
static bool parse_pids(const char *s, pid_list *out)
{
	FREE_CLEANUP char *copy = xstrdup(s);
	char *rest = copy;
	for (char *word; (word = strsep(&rest, " ,\t\n"));) {
		long pid;
		if (!*word)
			continue;
		if (!parse_number(word, 1, INT32_MAX, &pid))
			return false;
		vec__push(out, (pid_t)pid);
	}
	return out->n > 0;
}

static int wrong(const char *what)
{
	fprintf(stderr, "llvupdate: %s\n%s", what, usage);
	return EXIT_USAGE;
}

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, struct options *o)
{
	enum { OPT_DELAY = 256, OPT_STRICT, OPT_SPLIT_ONLY, OPT_PROOF, OPT_OVERRULE, OPT_JSON, OPT_HELP, OPT_VERSION };
	static const struct option long_options[] = {
	    {"preview", no_argument, NULL, 'P'},
	    {"pids", required_argument, NULL, 'p'},
	    {"all", no_argument, NULL, 'a'},
	    {"except", required_argument, NULL, 'e'},
	    {"retries", required_argument, NULL, 'n'},
	    {"timeout", required_argument, NULL, 't'},
	    {"log", required_argument, NULL, 'l'},
	    {"delay", required_argument, NULL, OPT_DELAY},
	    {"strict", no_argument, NULL, OPT_STRICT},
	    {"split-only", no_argument, NULL, OPT_SPLIT_ONLY},
	    {"require-proof", no_argument, NULL, OPT_PROOF},
	    {"overrule", required_argument, NULL, OPT_OVERRULE},
	    {"json", no_argument, NULL, OPT_JSON},
	    {"help", no_argument, NULL, OPT_HELP},
	    {"version", no_argument, NULL, OPT_VERSION},
	    {NULL, 0, NULL, 0},
	};
	long n;
	int c;
	*o = (struct options){.tries = 3, .timeout_s = 30, .delay_s = -1};
	while ((c = getopt_long(argc, argv, "Pp:ae:n:t:l:", long_options, NULL)) != -1) {
		switch (c) {
		case 'P':
			o->preview = true;
			break;
		case 'p':
			if (!parse_pids(optarg, &o->pids))
				return wrong("-p wants process ids");
			break;
		case 'a':
			o->all = true;
			break;
		case 'e':
			if (!parse_pids(optarg, &o->except))
				return wrong("-e wants process ids");
			break;
		case 'n':
			if (!parse_number(optarg, 1, TRIES_MAX, &n))
				return wrong("-n wants a number from 1 to 10");
			o->tries = (unsigned)n;
			break;
		case 't':
			if (!parse_number(optarg, 1, TIMEOUT_MAX_S, &n))
				return wrong("-t wants seconds from 1 to 300");
			o->timeout_s = (unsigned)n;
			break;
		case 'l':
			o->log = optarg;
			break;
		case OPT_DELAY:
			if (!parse_number(optarg, 0, 3600, &n))
				return wrong("--delay wants seconds from 0 to 3600");
			o->delay_s = (int)n;
			break;
		case OPT_STRICT:
			o->strict = true;
			break;
		case OPT_SPLIT_ONLY:
			o->split_only = true;
			break;
		case OPT_PROOF:
			o->require_proof = true;
			break;
		case OPT_OVERRULE:
			o->overrule = optarg;
			break;
		case OPT_JSON:
			o->json = true;
			break;
		case OPT_HELP:
			fputs(usage, stdout);
			return 0;
		case OPT_VERSION:
			puts("llvupdate " LLU_VERSION);
			return 0;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (optind != argc)
		return wrong("arguments are not understood (several process ids go into one argument of -p)");
	if (o->preview + o->all + (o->pids.n > 0) != 1)
		return wrong("give one of -P, -p and -a");
	if (o->except.n && !o->all)
		return wrong("-e goes with -a");
	return -1;
}

/* ---- the log ---- */

/* A file in the folder of logs. */
static char *default_log(const char *name)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	if (geteuid() == 0)
		return xasprintf("/var/log/liveupdate/%s", name);
	if (state && *state == '/')
		return xasprintf("%s/liveupdate/%s", state, name);
	return xasprintf("%s/.local/state/liveupdate/%s", home ? home : "", name);
}

static void make_folders_of(const char *path)
{
	FREE_CLEANUP char *copy = xstrdup(path);
	for (char *p = copy + 1; *p; p++)
		if (*p == '/') {
			*p = 0;
			mkdir(copy, 0755);
			*p = '/';
		}
}

/* Opens a new log; the former one is kept under a name with its date and time. */
static FILE *open_log(const char *asked)
{
	FREE_CLEANUP char *path = asked ? xstrdup(asked) : default_log("llvupdlog");
	struct stat st;
	make_folders_of(path);
	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode)) {
		char when[32];
		struct tm tm;
		localtime_r(&st.st_mtime, &tm);
		strftime(when, sizeof(when), "%Y%m%d.%H%M%S", &tm);
		FREE_CLEANUP char *former = xasprintf("%s.%s", path, when);
		rename(path, former);
	}
	int fd = trusted__create(path);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f)
		fprintf(stderr, "llvupdate: %s: cannot write the log: %s\n", path, strerror(errno));
	return f;
}

/* Of an operation, not of a preview. Where it cannot be written, there is none. */
static struct trace *open_trace(void)
{
	FREE_CLEANUP char *folder = default_log("trace_llu"), *path = xasprintf("%s/trcfileLLU", folder);
	make_folders_of(folder);
	mkdir(folder, 0700);
	struct trace *t = trace__open(path, TRACE_MAX);
	if (!t)
		fprintf(stderr, "llvupdate: %s: cannot write the trace: %s\n", path, strerror(errno));
	return t;
}

/* ---- the processes ---- */

static bool listed(const pid_list *l, pid_t pid)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i] == pid)
			return true;
	return false;
}

/* Of all processes, those say nothing that end meanwhile, that are never operated on (kernel threads and the
 * like, refused by process__open), or that belong to others. */
static bool says_nothing(pid_t pid, const struct err *e)
{
	struct process *p = NULL;
	struct stat st;
	FREE_CLEANUP char *path = xasprintf("/proc/%d", pid);
	ERR_CLEANUP struct err *opened = process__open(pid, &p);
	process__close(p);
	if (opened || err__kind(e) == ERR_GONE)
		return true;
	return err__kind(e) == ERR_PERMISSION && (stat(path, &st) < 0 || st.st_uid != geteuid());
}

/* For one process; the caller calls it off. */
static struct watchdog *watch(pid_t pid, const char *what, unsigned seconds, int code)
{
	FREE_CLEANUP char *words =
	    xasprintf("llvupdate: pid %d: %s takes more than %u seconds: given up, with all other "
		      "processes; leave it out (-e %d)",
		      pid, what, seconds, pid);
	return watchdog__start(seconds, words, code);
}

static void add_target(target_list *list, pid_t pid, bool asked_for, const struct plan_options *opt)
{
	struct report_target t = {.pid = pid};
	struct watchdog *w = watch(pid, "looking at it", LOOK_MAX_S, EXIT_NOT_UPDATED);
	t.error = target__open(pid, opt, &t.target);
	watchdog__call_off(w);
	if (t.error && !asked_for && says_nothing(pid, t.error)) {
		err__free(t.error);
		return;
	}
	vec__push(list, t);
}

static void add_all(target_list *list, const pid_list *except, const struct plan_options *opt)
{
	DIR *d = opendir("/proc");
	for (struct dirent *e; d && (e = readdir(d));) {
		long pid;
		if (isdigit((unsigned char)e->d_name[0]) && parse_number(e->d_name, 1, INT32_MAX, &pid) &&
		    pid != getpid() && !listed(except, (pid_t)pid))
			add_target(list, (pid_t)pid, false, opt);
	}
	if (d)
		closedir(d);
}

static size_t count_pending(const target_list *l)
{
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++)
		n += l->items[i].target && target__pending(l->items[i].target);
	return n;
}

static bool any_concern(const target_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (report__concerns(&l->items[i]))
			return true;
	return false;
}

static size_t count_outcome(const target_list *l, enum outcome o)
{
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++)
		n += l->items[i].target && target__outcome(l->items[i].target) == o;
	return n;
}

/* ---- the operation ---- */

static void one_phase(struct target *t, void (*phase)(struct target *, const struct update_options *),
		      const struct update_options *opt)
{
	unsigned waits = PHASE_TIMEOUTS * (unsigned)(1 + t->libraries.n);
	struct watchdog *w = watch(t->pid, "updating it", PHASE_MAX_S + waits * opt->timeout_s, EXIT_FAILURE_SEEN);
	phase(t, opt);
	watchdog__call_off(w);
}

static void one_try(const struct report *r, target_list *l, unsigned n, const struct update_options *opt)
{
	report__try(r, n);
	report__phase(r, "NOTIFY", true, n, "tonotify", count_pending(l));
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].target && target__pending(l->items[i].target))
			one_phase(l->items[i].target, target__prepare, opt);
	size_t prepared = count_pending(l), before = count_outcome(l, OUTCOME_SUCCESS);
	report__phase(r, "NOTIFY", false, n, "suspended", prepared);
	report__phase(r, "QUERY", true, n, "suspended", prepared);
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].target && target__pending(l->items[i].target))
			one_phase(l->items[i].target, target__commit, opt);
	report__phase(r, "QUERY", false, n, "updated", count_outcome(l, OUTCOME_SUCCESS) - before);
}

static void finish(const struct report *r, target_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->items[i].target)
			target__give_up(l->items[i].target);
		if (report__concerns(&l->items[i]))
			report__details(r, &l->items[i]);
	}
	report__final(r, l->items, l->n);
}

static void update(const struct report *r, target_list *l, const struct options *o)
{
	struct update_options opt = {.timeout_s = o->timeout_s, .strict = o->strict};
	if (count_pending(l) == 0) { /* everything is refused already */
		finish(r, l);
		return;
	}
	unsigned delay = o->delay_s >= 0 ? (unsigned)o->delay_s : isatty(STDOUT_FILENO) && !o->json ? 10 : 0;
	report__begins_in(r, delay);
	sleep(delay);
	report__say(r, "llvupdate preview\n");
	for (size_t i = 0; i < l->n; i++)
		report__validating(r, &l->items[i]);
	for (unsigned n = 1; n <= o->tries && count_pending(l); n++) {
		if (n > 1)
			sleep(PAUSE_BETWEEN_TRIES_S);
		one_try(r, l, n, &opt);
		report__try_end(r, n, o->tries, n < o->tries ? count_pending(l) : 0);
	}
	finish(r, l);
}

static int exit_code(const target_list *l, bool preview)
{
	struct report_summary s = report__summarise(l->items, l->n);
	for (size_t i = 0; i < l->n; i++) {
		const struct report_target *t = &l->items[i];
		if (t->error && err__kind(t->error) == ERR_PERMISSION)
			return EXIT_NOT_PERMITTED;
		for (size_t k = 0; t->target && k < t->target->libraries.n; k++) {
			const struct result *x = &t->target->results[k];
			if (x->outcome == OUTCOME_NOT_UPDATED && (x->kind == ERR_PERMISSION || x->kind == ERR_BUSY))
				return EXIT_NOT_PERMITTED;
		}
	}
	if (preview && s.to_do)
		return EXIT_DONE;
	if (s.failure)
		return EXIT_FAILURE_SEEN;
	if (s.not_updated)
		return EXIT_NOT_UPDATED;
	return s.success || s.to_do ? EXIT_DONE : EXIT_NOTHING;
}

static int run(const struct options *o)
{
	target_list list = {0};
	struct overrules *overrules = overrules__read(o->overrule ? o->overrule : OVERRULE_FILE, o->overrule);
	struct plan_cache *plans = plan_cache__open(NULL);
	struct trace *trace = o->preview ? NULL : open_trace();
	const struct plan_options opt = {.require_proof = o->require_proof,
					 .split_only = o->split_only,
					 .overrules = overrules,
					 .plans = plans,
					 .trace = trace};
	for (size_t i = 0; i < o->pids.n; i++)
		add_target(&list, o->pids.items[i], true, &opt);
	if (o->pids.n == 0)
		add_all(&list, &o->except, &opt);

	struct report r = {.out = o->json ? NULL : stdout};
	if (!o->preview || o->log)
		r.log = open_log(o->log);
	report__say(&r, "llvupdate preview\n");
	for (size_t i = 0; i < list.n; i++)
		report__preview(&r, &list.items[i]);
	if (!any_concern(&list))
		report__say(&r, "No process requires a Live library Update operation.\n");
	else if (!o->preview)
		update(&r, &list, o);
	if (!o->preview)
		report__journal(NULL, list.items, list.n);
	int code = exit_code(&list, o->preview);
	if (o->json)
		report__json(stdout, o->preview ? "preview" : "update", list.items, list.n, code);
	for (size_t i = 0; i < list.n; i++) {
		target__close(list.items[i].target);
		err__free(list.items[i].error);
	}
	vec__free(&list);
	plan_cache__close(plans);
	overrules__free(overrules);
	trace__close(trace);
	if (r.log)
		fclose(r.log);
	return code;
}

int main(int argc, char **argv)
{
	struct options o;
	signal(SIGPIPE, SIG_IGN); /* a reader that goes away must not end an operation half-way */
	int code = parse(argc, argv, &o);
	if (code < 0)
		code = run(&o);
	vec__free(&o.pids);
	vec__free(&o.except);
	return code;
}
