/* llvupdate: brings the new code of updated libraries into running processes. */
#include <errno.h>
#include <getopt.h>
#include <llu.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "standard.h"

/* All others are enum llu_status. */
enum { EXIT_USAGE = 2 };

enum { PAUSE_BETWEEN_TRIES_S = 10 };

struct pid_list {
	pid_t *items;
	size_t n;
};

struct options {
	struct llu_options llu;
	struct pid_list pids, except;
	bool all, json, metrics;
	bool upgraded; /* nobody sits in front of it */
	unsigned tries;
	int delay_s; /* -1: not said */
	const char *log;
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
			    "                       (/etc/liveupdate/overrule)\n"
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

/* PIDs between blanks or commas. */
static bool parse_pids(const char *s, struct pid_list *out)
{
	char *copy = strdup(s), *rest = copy;
	bool good = copy;
	/* each takes a character at least */
	out->items = realloc(out->items, (out->n + strlen(s) + 1) * sizeof(*out->items));
	for (char *word; good && (word = strsep(&rest, " ,\t\n"));) {
		long pid;
		if (!*word)
			continue;
		good = out->items && parse_number(word, 1, INT32_MAX, &pid);
		if (good)
			out->items[out->n++] = (pid_t)pid;
	}
	free(copy);
	return good && out->n > 0;
}

static int wrong(const char *what)
{
	fprintf(stderr, "llvupdate: %s\n%s", what, usage);
	return EXIT_USAGE;
}

static int report_error(struct llu_error *e, int code)
{
	llu_error__print(e, "llvupdate", stderr);
	llu_error__free(e);
	return code;
}

/* What lvupdate.data wants done when libraries may have been upgraded. -1: go on; else the exit code. */
static int decide_upgraded(struct options *o)
{
	struct llu_config c;
	struct llu_error *e = llu_config__read(NULL, sizeof(c), &c);
	if (e)
		return report_error(e, EXIT_USAGE);
	o->upgraded = true;
	o->all = c.update;
	o->llu.preview = !c.update;
	o->tries = c.tries;
	o->llu.timeout_s = c.timeout_s;
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
	*o = (struct options){.llu = {.size = sizeof(o->llu), .own_process = true, .progress = true, .syslog = true},
			      .tries = 3,
			      .delay_s = -1};
	while ((c = getopt_long(argc, argv, "Pp:ae:n:t:l:", long_options, NULL)) != -1) {
		switch (c) {
		case 'P':
			o->llu.preview = true;
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
			if (!parse_number(optarg, 1, LLU_TRIES_MAX, &n))
				return wrong("-n wants a number from 1 to 10");
			o->tries = (unsigned)n;
			break;
		case 't':
			if (!parse_number(optarg, 1, LLU_TIMEOUT_MAX_S, &n))
				return wrong("-t wants seconds from 1 to 300");
			o->llu.timeout_s = (unsigned)n;
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
			o->llu.strict = true;
			break;
		case OPT_SPLIT_ONLY:
			o->llu.split_only = true;
			break;
		case OPT_PROOF:
			o->llu.require_proof = true;
			break;
		case OPT_OVERRULE:
			o->llu.overrule = optarg;
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
			printf("llvupdate %s\n", llu_version());
			return 0;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (optind != argc)
		return wrong("arguments are not understood (several process ids go into one argument of -p)");
	if (o->llu.preview + o->all + (o->pids.n > 0) != 1)
		return wrong("give one of -P, -p and -a");
	if (o->except.n && !o->all)
		return wrong("-e goes with -a");
	if (o->metrics && (!o->llu.preview || o->json))
		return wrong("--metrics goes with -P, and not with --json");
	return -1;
}

/* ---- the operation ---- */

static bool any_process(const struct llu_operation *x, bool (*is)(const struct llu_process *))
{
	for (size_t i = 0; i < llu_operation__n_processes(x); i++)
		if (is(llu_operation__process(x, i)))
			return true;
	return false;
}

static bool has_news(const struct llu_process *p)
{
	return p->needs_restart || (p->outcome != LLU_CURRENT && !p->unknown);
}

/* Signals that end an operation: with its report, once it has begun. */
static sigset_t enders(void)
{
	sigset_t s;
	sigemptyset(&s);
	sigaddset(&s, SIGINT);
	sigaddset(&s, SIGTERM);
	return s;
}

/* From here on processes stand still for it. It goes on without its terminal. */
static void become_serious(void)
{
	sigset_t s = enders();
	sigprocmask(SIG_BLOCK, &s, NULL);
	signal(SIGHUP, SIG_IGN);
}

/* Has somebody asked for an end, or does within `seconds`? The next signal ends it at once. */
static bool ended_within(bool *ended, unsigned seconds)
{
	const struct timespec t = {.tv_sec = seconds};
	sigset_t s = enders();
	if (!*ended && sigtimedwait(&s, NULL, &t) > 0) {
		*ended = true;
		fputs("llvupdate: no more processes are tried; the report follows (once more: ends at once)\n", stderr);
		sigprocmask(SIG_UNBLOCK, &s, NULL);
	}
	return *ended;
}

static bool ended(void *flag)
{
	return ended_within(flag, 0);
}

static struct llu_error *update(struct llu_operation *x, const struct options *o)
{
	struct llu_error *e = NULL;
	if (llu_operation__pending(x) > 0) { /* else everything is refused already */
		unsigned delay = o->delay_s >= 0 ? (unsigned)o->delay_s : isatty(STDOUT_FILENO) && !o->json ? 10 : 0;
		llu_operation__say_begin(x, delay, o->tries);
		sleep(delay);
	}
	become_serious();
	for (unsigned n = 1; !e && n <= o->tries && llu_operation__pending(x) > 0; n++)
		if (!ended_within(o->llu.context, n > 1 ? PAUSE_BETWEEN_TRIES_S : 0))
			e = llu_operation__try(x);
	llu_operation__end(x);
	return e;
}

/* A log and a trace are worth no update: without one, the operation goes on. */
static void complain(struct llu_error *e)
{
	if (e)
		(void)report_error(e, 0);
}

static struct llu_error *operate(struct llu_operation *x, const struct options *o)
{
	bool preview = o->llu.preview, silent = o->json || o->metrics || o->upgraded;
	llu_operation__speak_to(x, silent ? NULL : stdout);
	if (!preview)
		complain(llu_operation__trace_to(x, NULL));
	struct llu_error *e = llu_operation__look(x);
	if (e)
		return e;
	if (o->upgraded && (!preview || any_process(x, has_news)))
		llu_operation__speak_to(x, stdout);
	if ((!preview && (!o->upgraded || llu_operation__pending(x) > 0)) || o->log)
		complain(llu_operation__log_to(x, o->log));
	llu_operation__say_preview(x);
	if (!preview)
		return update(x, o);
	llu_operation__say_restarts(x);
	return NULL;
}

/* What was asked for instead of text. False: somebody would read half of it. */
static bool write_document(const struct llu_operation *x, const struct options *o)
{
	bool good =
	    o->json ? llu_operation__write_json(x, stdout) : !o->metrics || llu_operation__write_metrics(x, stdout);
	if (!good)
		fprintf(stderr, "llvupdate: standard output cannot be written: %s\n", strerror(errno));
	return good;
}

static int code_of_error(const struct llu_error *e)
{
	switch (llu_error__kind(e)) {
	case LLU_ERROR_USAGE:
		return EXIT_USAGE;
	case LLU_ERROR_PERMISSION:
	case LLU_ERROR_BUSY:
		return LLU_STATUS_NOT_PERMITTED;
	default:
		return LLU_STATUS_FAILURE;
	}
}

static int run(struct options *o)
{
	struct llu_operation *x = NULL;
	bool end = false;
	o->llu.stop = ended;
	o->llu.context = &end;
	o->llu.pids = o->pids.items;
	o->llu.n_pids = o->pids.n;
	o->llu.all = o->pids.n == 0;
	o->llu.except = o->except.items;
	o->llu.n_except = o->except.n;
	o->llu.packages = o->json;
	struct llu_error *e = llu_operation__new(&o->llu, &x);
	/* where nobody sits in front of it, this is the making of a system in a folder */
	if (e && o->upgraded && llu_error__kind(e) == LLU_ERROR_PERMISSION) {
		llu_error__free(e);
		return LLU_STATUS_DONE;
	}
	if (!e)
		e = operate(x, o);
	if (e) {
		llu_operation__free(x);
		return report_error(e, code_of_error(e));
	}
	if (o->upgraded && o->llu.preview && llu_operation__pending(x) > 0)
		puts("run: llvupdate -a");
	int code = o->upgraded ? LLU_STATUS_DONE : (int)llu_operation__status(x);
	if (!write_document(x, o))
		code = LLU_STATUS_FAILURE;
	llu_operation__free(x);
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
	free(o.pids.items);
	free(o.except.items);
	return code;
}
