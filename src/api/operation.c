/* Operations, step by step. See llu.h. */
#include "api/operation.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "image/overrule.h"
#include "inject/clock.h"
#include "inject/process.h"
#include "report/files.h"
#include "report/journal.h"

enum { TIMEOUT_S = 30 };

/* ---- making one ---- */

static struct err *check_forking(const struct llu_operation *x)
{
	return x->opt.own_process ? NULL : api__check_forking();
}

static bool listed(const pid_t *pids, size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

static void add_job(struct llu_operation *x, pid_t pid)
{
	for (size_t i = 0; i < x->jobs.n; i++)
		if (x->jobs.items[i].pid == pid)
			return;
	vec__push(&x->jobs, (struct job){.pid = pid});
}

static void add_all(struct llu_operation *x, const struct llu_options *opt)
{
	DIR *d = opendir("/proc");
	for (struct dirent *e; d && (e = readdir(d));) {
		pid_t pid = isdigit((unsigned char)e->d_name[0]) ? (pid_t)strtol(e->d_name, NULL, 10) : 0;
		if (pid > 0 && pid != getpid() && !listed(opt->except, opt->n_except, pid))
			vec__push(&x->jobs, (struct job){.pid = pid});
	}
	if (d)
		closedir(d);
}

static struct err *check_options(const struct llu_options *o)
{
	const char *wrong = NULL;
	if (o->timeout_s > LLU_TIMEOUT_MAX_S)
		wrong = "the timeout is too long";
	else if (o->all && (o->pids || o->n_pids))
		wrong = "it is all processes or those that are named, not both";
	else if (!o->all && (!o->pids || !o->n_pids))
		wrong = "no process is named";
	else if (o->n_except && (!o->all || !o->except))
		wrong = "processes are left out of all, not of those that are named";
	for (size_t i = 0; !wrong && i < o->n_pids; i++)
		if (o->pids[i] <= 0)
			wrong = "what is named is no PID";
	return wrong ? err__new(ERR_USAGE, 0, NULL, NULL, "%s", wrong) : NULL;
}

static struct err *new_operation(const struct llu_options *given, struct llu_operation **out)
{
	struct llu_operation x = {.since = clock_ns()};
	TRY(api__options(given, &x.opt, sizeof(x.opt)));
	TRY(api__reserved(x.opt.reserved, sizeof(x.opt.reserved)));
	TRY(check_options(&x.opt));
	TRY(api__check_program());
	TRY(check_forking(&x));
	TRY(process__check_proc());
	const struct llu_options *o = &x.opt;
	for (size_t i = 0; i < o->n_pids; i++)
		add_job(&x, o->pids[i]);
	if (o->all)
		add_all(&x, o);
	x.overrules = overrules__read(o->overrule ? o->overrule : OVERRULE_FILE, o->overrule);
	x.opt.overrule = NULL;
	x.opt.pids = x.opt.except = NULL;
	x.plans = plan_cache__open(NULL);
	*out = xcalloc(1, sizeof(**out));
	**out = x;
	return NULL;
}

LLU_API struct llu_error *llu_operation__new(const struct llu_options *opt, struct llu_operation **out)
{
	LOCALE_SCOPE;
	*out = NULL;
	return api__error(new_operation(opt, out));
}

LLU_API void llu_operation__free(struct llu_operation *x)
{
	if (!x)
		return;
	LOCALE_SCOPE;
	crew__free(x->crew);
	vec__free(&x->views);
	vec__free(&x->records);
	job_list__free(&x->jobs);
	plan_cache__close(x->plans);
	overrules__free(x->overrules);
	trace__close(x->trace);
	if (x->report.log)
		fclose(x->report.log);
	free(x);
}

LLU_API struct llu_error *llu_operation__trace_to(struct llu_operation *x, const char *path)
{
	LOCALE_SCOPE;
	if (x->crew || x->trace)
		return api__error(err__new(ERR_USAGE, 0, NULL, NULL, "a trace begins before the look, and once"));
	return api__error(report__open_trace(path, &x->trace));
}

LLU_API struct llu_error *llu_operation__log_to(struct llu_operation *x, const char *path)
{
	LOCALE_SCOPE;
	if (x->report.log)
		return api__error(err__new(ERR_USAGE, 0, NULL, NULL, "there is a log already"));
	return api__error(report__open_log(path, &x->report.log));
}

LLU_API void llu_operation__speak_to(struct llu_operation *x, FILE *out)
{
	x->report.out = out;
}

/* ---- what was seen ---- */

static enum llu_outcome outcome_of(enum outcome o)
{
	static const enum llu_outcome outcomes[] = {
	    [OUTCOME_CURRENT] = LLU_CURRENT,         [OUTCOME_PENDING] = LLU_PENDING, [OUTCOME_SUCCESS] = LLU_SUCCESS,
	    [OUTCOME_NOT_UPDATED] = LLU_NOT_UPDATED, [OUTCOME_FAILURE] = LLU_FAILURE,
	};
	return outcomes[o];
}

/* What there is to say of now, in the order of the jobs. */
static void list_records(struct llu_operation *x)
{
	x->records.n = x->views.n = 0;
	for (size_t i = 0; i < x->jobs.n; i++) {
		const struct record *r = &x->jobs.items[i].record;
		if (x->jobs.items[i].nothing)
			continue;
		vec__push(&x->records, *r);
		vec__push(&x->views, (struct llu_process){.pid = r->pid,
							  .start_time = r->start_time,
							  .name = r->name,
							  .outcome = outcome_of(r->outcome),
							  .pending = r->pending,
							  .unknown = r->unknown,
							  .not_permitted = r->not_permitted,
							  .needs_restart = r->restart,
							  .details = r->details ? r->details : "",
							  .json = r->json});
	}
}

LLU_API size_t llu_operation__n_processes(const struct llu_operation *x)
{
	return x->views.n;
}

LLU_API const struct llu_process *llu_operation__process(const struct llu_operation *x, size_t i)
{
	return i < x->views.n ? &x->views.items[i] : NULL;
}

LLU_API size_t llu_operation__pending(const struct llu_operation *x)
{
	size_t n = 0;
	for (size_t i = 0; i < x->records.n; i++)
		n += x->records.items[i].pending;
	return n;
}

bool operation__any_concern(const struct llu_operation *x)
{
	for (size_t i = 0; i < x->records.n; i++)
		if (x->records.items[i].concerns)
			return true;
	return false;
}

LLU_API enum llu_status llu_operation__status(const struct llu_operation *x)
{
	struct report_summary s = report__summarise(x->records.items, x->records.n);
	if (s.failure) /* before all else: somebody has to look after that process */
		return LLU_STATUS_FAILURE;
	for (size_t i = 0; i < x->records.n; i++)
		if (x->records.items[i].not_permitted)
			return LLU_STATUS_NOT_PERMITTED;
	if (x->opt.preview && s.to_do)
		return LLU_STATUS_DONE;
	if (s.not_updated)
		return LLU_STATUS_NOT_UPDATED;
	return s.success || s.to_do ? LLU_STATUS_DONE : LLU_STATUS_NOTHING;
}

LLU_API bool llu_operation__write_json(const struct llu_operation *x, FILE *to)
{
	LOCALE_SCOPE;
	report__json(to, x->opt.preview ? "preview" : "update", x->records.items, x->records.n,
		     x->jobs.n - x->records.n + x->opt.all, (int)llu_operation__status(x));
	return fflush(to) == 0 && !ferror(to);
}

LLU_API bool llu_operation__write_metrics(const struct llu_operation *x, FILE *to)
{
	LOCALE_SCOPE;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t now_ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
	report__metrics(to, x->records.items, x->records.n, (double)(clock_ns() - x->since) / 1e9,
			(double)now_ms / 1000);
	return fflush(to) == 0 && !ferror(to);
}

/* ---- the steps ---- */

static void say_prepared(void *operation, size_t pending)
{
	say__prepared(operation, pending);
}

/* A preview goes into pipes: no dots there. */
static void say_waits(void *operation, size_t over, size_t of)
{
	struct llu_operation *x = operation;
	report__waits(&x->report, x->opt.progress && isatty(STDERR_FILENO) ? stderr : NULL, x->n_try > 0, over, of);
}

static bool is_stopped(void *operation)
{
	struct llu_operation *x = operation;
	x->stopped = x->stopped || (x->opt.stop && x->opt.stop(x->opt.context));
	return x->stopped;
}

static struct err *look(struct llu_operation *x)
{
	if (x->crew)
		return err__new(ERR_USAGE, 0, NULL, NULL, "an operation looks once");
	TRY(check_forking(x));
	const struct llu_options *o = &x->opt;
	x->plan = (struct plan_options){.require_proof = o->require_proof,
					.split_only = o->split_only,
					.overrules = x->overrules,
					.plans = x->plans,
					.trace = x->trace};
	const struct work_options work = {
	    .plan = &x->plan,
	    .update = {.timeout_s = o->timeout_s ? o->timeout_s : TIMEOUT_S, .strict = o->strict},
	    .owners = o->packages,
	};
	const struct crew_options crew = {.all = o->all, .restarts = o->preview, .guest = !o->own_process};
	const struct crew_watch watch = {.waits = say_waits, .context = x};
	x->crew = crew__new(&x->jobs, &crew, &work, &x->plan);
	crew__look(x->crew, &watch);
	list_records(x);
	return NULL;
}

LLU_API struct llu_error *llu_operation__look(struct llu_operation *x)
{
	LOCALE_SCOPE;
	return api__error(look(x));
}

static struct err *try_once(struct llu_operation *x)
{
	if (!x->crew || x->over || x->opt.preview)
		return err__new(ERR_USAGE, 0, NULL, NULL, "%s",
				!x->crew  ? "an operation looks first"
				: x->over ? "the operation is over"
					  : "a preview tries nothing");
	TRY(check_forking(x));
	const struct crew_watch watch = {
	    .prepared = say_prepared, .waits = say_waits, .stop = is_stopped, .context = x};
	size_t before = report__summarise(x->records.items, x->records.n).success;
	x->n_try++;
	say__try_begins(x);
	crew__try(x->crew, &watch);
	list_records(x);
	say__try_ended(x, before);
	return NULL;
}

LLU_API struct llu_error *llu_operation__try(struct llu_operation *x)
{
	LOCALE_SCOPE;
	return api__error(try_once(x));
}

LLU_API void llu_operation__end(struct llu_operation *x)
{
	if (!x->crew || x->over || x->opt.preview)
		return;
	LOCALE_SCOPE;
	x->over = true;
	crew__give_up(x->crew);
	list_records(x);
	say__end(x);
	if (x->opt.syslog)
		report__journal(NULL, x->records.items, x->records.n);
}
