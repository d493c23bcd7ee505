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

#include "base/standard.h"
#include "base/trusted.h"
#include "config/lvupdate_data.h"
#include "crew/crew.h"
#include "inject/clock.h"
#include "inject/process.h"
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

typedef VEC(pid_t) pid_list;
typedef VEC(struct record) record_list;

struct options {
	bool preview, all, json, metrics, strict, require_proof, split_only;
	bool upgraded; /* nobody sits in front of it */
	pid_list pids, except;
	unsigned tries, timeout_s;
	int delay_s; /* -1: not said */
	const char *log;
	const char *overrule; /* NULL: OVERRULE_FILE, if there is one */
};

static const char usage[] = "usage: llvupdate -P [-l LOG] [--json | --metrics]\n"
			    "       llvupdate -p 'PID PID...' [-n TRIES] [-t SECONDS] [-l LOG] [--json]\n"
			    "       llvupdate -a [-e 'PID PID...'] [-n TRIES] [-t SECONDS] [-l LOG] [--json]\n"
			    "       llvupdate --upgraded\n"
			    "\n"
			    "Brings the new code of updated libraries into running processes.\n"
			    "  -P, --preview        say who runs old code or needs a restart; change nothing\n"
			    "  -p, --pids PIDS      update these processes\n"
			    "  -a, --all            update all processes\n"
			    "  -e, --except PIDS    with -a: but not these\n"
			    "  -n, --retries N      how often to try, 1 to 10 (3)\n"
			    "  -t, --timeout S      seconds to wait for an updatable state, 1 to 300 (30)\n"
			    "  -l, --log FILE       log file (/var/log/liveupdate/llvupdlog)\n"
			    "      --delay S        count-down before it begins (10 on a terminal, else 0)\n"
			    "      --strict         stop sleeping threads too\n"
			    "      --split-only     leave processes alone that were not prepared by llusplit\n"
			    "      --require-proof  only debug information will do for the layout of objects\n"
			    "      --overrule FILE  pairs of builds that the administrator answers for\n"
			    "                       (" OVERRULE_FILE ")\n"
			    "      --json           one JSON document instead of text\n"
			    "      --metrics        with -P: metrics for Prometheus instead of text\n"
			    "      --upgraded       for hooks: -a or -P, as lvupdate.data(5) says\n"
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

static bool listed(const pid_list *l, pid_t pid)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i] == pid)
			return true;
	return false;
}

/* PIDs between blanks or commas; each counts once. */
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
		if (!listed(out, (pid_t)pid))
			vec__push(out, (pid_t)pid);
	}
	return out->n > 0;
}

static int wrong(const char *what)
{
	fprintf(stderr, "llvupdate: %s\n%s", what, usage);
	return EXIT_USAGE;
}

/* What lvupdate.data wants done when libraries may have been upgraded. -1: go on; else the exit code. */
static int decide_upgraded(struct options *o)
{
	struct lvupdate_data data;
	ERR_CLEANUP struct err *e = lvupdate_data__read(LVUPDATE_DATA, &data);
	if (e) {
		report__error(stderr, "llvupdate", e);
		return EXIT_USAGE;
	}
	o->upgraded = true;
	o->all = data.llu;
	o->preview = !data.llu;
	o->tries = data.retries;
	o->timeout_s = data.timeout_s;
	o->delay_s = 0;
	return -1;
}

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, struct options *o)
{
	enum { OPT_DELAY = 256, OPT_STRICT, OPT_SPLIT_ONLY, OPT_PROOF, OPT_OVERRULE, OPT_JSON, OPT_HELP, OPT_VERSION };
	enum { OPT_UPGRADED = OPT_VERSION + 1, OPT_METRICS };
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
	    {"metrics", no_argument, NULL, OPT_METRICS},
	    {"upgraded", no_argument, NULL, OPT_UPGRADED},
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
			o->log = optarg + strspn(optarg, " "); /* clients of AIX say "-l FILE" in one argument */
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
		case OPT_METRICS:
			o->metrics = true;
			break;
		case OPT_UPGRADED:
			return argc == 2 ? decide_upgraded(o) : wrong("--upgraded goes with nothing else");
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
	if (o->metrics && (!o->preview || o->json))
		return wrong("--metrics goes with -P, and not with --json");
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

static void add_all(job_list *jobs, const pid_list *except)
{
	DIR *d = opendir("/proc");
	for (struct dirent *e; d && (e = readdir(d));) {
		long pid;
		if (isdigit((unsigned char)e->d_name[0]) && parse_number(e->d_name, 1, INT32_MAX, &pid) &&
		    pid != getpid() && !listed(except, (pid_t)pid))
			vec__push(jobs, (struct job){.pid = (pid_t)pid});
	}
	if (d)
		closedir(d);
}

/* What was looked at, in the order of the jobs; the records are the jobs'. */
static void list_records(const job_list *jobs, record_list *out)
{
	out->n = 0;
	for (size_t i = 0; i < jobs->n; i++)
		if (!jobs->items[i].nothing)
			vec__push(out, jobs->items[i].record);
}

static size_t count_pending(const record_list *l)
{
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++)
		n += l->items[i].pending;
	return n;
}

static bool any_concern(const record_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].concerns)
			return true;
	return false;
}

static bool any_outdated(const record_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].concerns && !l->items[i].unknown)
			return true;
	return false;
}

static bool any_restart(const record_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].restart)
			return true;
	return false;
}

/* ---- the operation ---- */

struct operation {
	struct report r;
	struct crew *crew;
	job_list jobs;
	record_list records; /* as of the last step */
	unsigned n_try;
};

static void say_prepared(void *operation, size_t pending)
{
	struct operation *x = operation;
	report__phase(&x->r, "NOTIFY", false, x->n_try, "suspended", pending);
	report__phase(&x->r, "QUERY", true, x->n_try, "suspended", pending);
}

static void say_waits(void *operation, size_t over, size_t of)
{
	struct operation *x = operation;
	report__waits(&x->r, over, of);
}

static void one_try(struct operation *x)
{
	const struct crew_watch watch = {.prepared = say_prepared, .waits = say_waits, .context = x};
	size_t before = report__summarise(x->records.items, x->records.n).success;
	report__try(&x->r, x->n_try);
	report__phase(&x->r, "NOTIFY", true, x->n_try, "tonotify", count_pending(&x->records));
	crew__try(x->crew, &watch);
	list_records(&x->jobs, &x->records);
	report__phase(&x->r, "QUERY", false, x->n_try, "updated",
		      report__summarise(x->records.items, x->records.n).success - before);
}

static void finish(struct operation *x)
{
	crew__give_up(x->crew);
	list_records(&x->jobs, &x->records);
	for (size_t i = 0; i < x->records.n; i++)
		if (x->records.items[i].concerns)
			report__say(&x->r, "%s", x->records.items[i].details);
	report__final(&x->r, x->records.items, x->records.n);
}

static void update(struct operation *x, const struct options *o)
{
	if (count_pending(&x->records) == 0) { /* everything is refused already */
		finish(x);
		return;
	}
	unsigned delay = o->delay_s >= 0 ? (unsigned)o->delay_s : isatty(STDOUT_FILENO) && !o->json ? 10 : 0;
	report__begins_in(&x->r, delay);
	sleep(delay);
	report__say(&x->r, "llvupdate preview\n");
	for (size_t i = 0; i < x->records.n; i++)
		report__say(&x->r, "%s", x->records.items[i].validating);
	for (x->n_try = 1; x->n_try <= o->tries && count_pending(&x->records); x->n_try++) {
		if (x->n_try > 1)
			sleep(PAUSE_BETWEEN_TRIES_S);
		one_try(x);
		report__try_end(&x->r, x->n_try, o->tries, x->n_try < o->tries ? count_pending(&x->records) : 0);
	}
	finish(x);
}

static int exit_code(const record_list *l, bool preview)
{
	struct report_summary s = report__summarise(l->items, l->n);
	if (s.failure) /* before all else: somebody has to look after that process */
		return EXIT_FAILURE_SEEN;
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].not_permitted)
			return EXIT_NOT_PERMITTED;
	if (preview && s.to_do)
		return EXIT_DONE;
	if (s.not_updated)
		return EXIT_NOT_UPDATED;
	return s.success || s.to_do ? EXIT_DONE : EXIT_NOTHING;
}

static void look(struct operation *x)
{
	/* a preview goes into pipes: no dots there */
	const struct crew_watch watch = {.waits = isatty(STDERR_FILENO) ? say_waits : NULL, .context = x};
	crew__look(x->crew, &watch);
	list_records(&x->jobs, &x->records);
}

/* What was looked at is said, and done. */
static void operate(struct operation *x, const struct options *o)
{
	report__say(&x->r, "llvupdate preview\n");
	for (size_t i = 0; i < x->records.n; i++)
		report__say(&x->r, "%s", x->records.items[i].preview);
	if (o->pids.n == 0 && !o->upgraded) {
		size_t left_out[LEFT_OUT_KINDS];
		job_list__left_out(&x->jobs, left_out);
		report__left_out(&x->r, left_out);
	}
	if (!any_concern(&x->records))
		report__say(&x->r, "No process requires a Live library Update operation.\n");
	else if (!o->preview)
		update(x, o);
	if (o->preview)
		report__restart(&x->r, x->records.items, x->records.n);
	if (o->upgraded && o->preview && count_pending(&x->records))
		report__say(&x->r, "run: llvupdate -a\n");
}

/* -1: go on; else the exit code. Where nobody sits in front of it, this is the making of a system in a folder. */
static int check_surroundings(const struct options *o)
{
	ERR_CLEANUP struct err *e = process__check_proc();
	if (e && !o->upgraded)
		report__error(stderr, "llvupdate", e);
	return !e ? -1 : o->upgraded ? EXIT_DONE : EXIT_NOT_PERMITTED;
}

/* False: somebody would read half of it. */
static bool print_metrics(const record_list *l, uint64_t since)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t now_ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
	report__metrics(stdout, l->items, l->n, (double)(clock_ns() - since) / 1e9, (double)now_ms / 1000);
	if (fflush(stdout) == 0 && !ferror(stdout))
		return true;
	fprintf(stderr, "llvupdate: the metrics cannot be written: %s\n", strerror(errno));
	return false;
}

static int run(const struct options *o)
{
	uint64_t since = clock_ns();
	struct operation x = {0};
	int cannot = check_surroundings(o);
	if (cannot >= 0)
		return cannot;
	struct overrules *overrules = overrules__read(o->overrule ? o->overrule : OVERRULE_FILE, o->overrule);
	struct plan_cache *plans = plan_cache__open(NULL);
	struct trace *trace = o->preview ? NULL : open_trace();
	struct plan_options plan = {.require_proof = o->require_proof,
				    .split_only = o->split_only,
				    .overrules = overrules,
				    .plans = plans,
				    .trace = trace};
	const struct work_options work = {
	    .plan = &plan, .update = {.timeout_s = o->timeout_s, .strict = o->strict}, .owners = o->json};
	for (size_t i = 0; i < o->pids.n; i++)
		vec__push(&x.jobs, (struct job){.pid = o->pids.items[i]});
	if (o->pids.n == 0)
		add_all(&x.jobs, &o->except);

	x.r.out = o->json || o->metrics || o->upgraded ? NULL : stdout;
	x.crew = crew__new(&x.jobs, o->pids.n == 0, o->preview, &work, &plan);
	look(&x);
	if (o->upgraded && (!o->preview || any_outdated(&x.records) || any_restart(&x.records)))
		x.r.out = stdout;
	if ((!o->preview && (!o->upgraded || count_pending(&x.records))) || o->log)
		x.r.log = open_log(o->log);
	operate(&x, o);
	if (!o->preview)
		report__journal(NULL, x.records.items, x.records.n);
	int code = o->upgraded ? EXIT_DONE : exit_code(&x.records, o->preview);
	if (o->json)
		report__json(stdout, o->preview ? "preview" : "update", x.records.items, x.records.n,
			     x.jobs.n - x.records.n + (o->pids.n == 0), code);
	if (o->metrics && !print_metrics(&x.records, since))
		code = EXIT_FAILURE_SEEN;
	crew__free(x.crew);
	vec__free(&x.records);
	job_list__free(&x.jobs);
	plan_cache__close(plans);
	overrules__free(overrules);
	trace__close(trace);
	if (x.r.log)
		fclose(x.r.log);
	return code;
}

int main(int argc, char **argv)
{
	struct options o;
	standard__open();
	signal(SIGPIPE, SIG_IGN); /* a reader that goes away must not end an operation half-way */
	/* A terminal must not stop it (Ctrl-Z; output in the background) while processes stand still for it. */
	signal(SIGTSTP, SIG_IGN);
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	int code = parse(argc, argv, &o);
	if (code < 0)
		code = run(&o);
	vec__free(&o.pids);
	vec__free(&o.except);
	return code;
}
