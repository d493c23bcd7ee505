/* See work.h. */
#include "crew/work.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/watchdog.h"
#include "crew/restart.h"
#include "machine/init.h"
#include "machine/package.h"
#include "machine/procfs.h"
#include "remap/tree.h"

/* What nobody waits for any longer: one phase of a try, which may wait for its threads a few times for each library. */
enum { PHASES = 2, PHASE_TIMEOUTS = 5, PHASE_MAX_S = 120 };

static struct watchdog *watch(const struct work_options *opt, pid_t pid, const char *what, unsigned seconds, int code)
{
	FREE_CLEANUP char *words = xasprintf("llvupdate: pid %d: %s takes more than %u seconds: given up%s", pid, what,
					     seconds, opt->alone ? "" : "; the others are gone on with");
	return watchdog__start(seconds, words, code);
}

static bool says_nothing(pid_t pid, const struct err *e, enum left_out *why)
{
	struct process *p = NULL;
	struct stat st;
	FREE_CLEANUP char *path = xasprintf("/proc/%d", pid);
	ERR_CLEANUP struct err *opened = process__open(pid, &p);
	process__close(p);
	const struct err *said = opened ? opened : e;
	*why = err__kind(said) == ERR_GONE         ? LEFT_OUT_ENDED
	       : err__kind(said) == ERR_PERMISSION ? LEFT_OUT_OTHERS
	       : procfs__is_kernel_thread(pid)     ? LEFT_OUT_KERNEL
						   : LEFT_OUT_NEVER;
	if (opened || err__kind(e) == ERR_GONE)
		return true;
	return err__kind(e) == ERR_PERMISSION && (stat(path, &st) < 0 || st.st_uid != geteuid());
}

/* An init in its early life, or its last, is left alone, whoever asked. True: it was one. */
static bool leave_out_init(struct report_target *t)
{
	const char *sign = t->target && target__outdated(t->target) ? init__unsettled(t->pid) : NULL;
	FREE_CLEANUP char *who = xasprintf("pid %d", t->pid),
			  *hint = xasprintf("run llvupdate again when %s is gone", sign ? sign : "");
	if (!sign)
		return false;
	target__close(t->target);
	t->target = NULL;
	t->error = err__new(ERR_RETRY, 0, who, hint,
			    "it is the init of a system that boots or shuts down: its root has %s", sign);
	t->left_out = LEFT_OUT_INIT;
	return true;
}

static bool has_libllu(const struct process *p)
{
	static const char name[] = "/libllu.so.";
	struct mappings maps;
	bool has = false;
	ERR_CLEANUP struct err *e = process__maps(p, &maps);
	if (e)
		return false; /* nor can it be updated */
	for (size_t i = 0; i < maps.n; i++) {
		const char *slash = strrchr(maps.items[i].path, '/');
		has = has || (slash && strncmp(slash, name, strlen(name)) == 0);
	}
	mappings__free(&maps);
	return has;
}

/* A program with libllu may have other processes stand still for it at any moment. */
static void refuse_users_of_libllu(struct report_target *t)
{
	if (!t->target || !target__outdated(t->target) || !has_libllu(t->target->process))
		return;
	FREE_CLEANUP char *who = xasprintf("pid %d", t->pid);
	target__close(t->target);
	t->target = NULL;
	t->error = err__new(ERR_REFUSED, 0, who, "restart it",
			    "it has libllu loaded, and may be at work on other processes itself");
}

/* As in /proc/PID/comm. */
static char *name_of(pid_t pid)
{
	char *name = NULL;
	ERR_CLEANUP struct err *e = procfs__text(pid, "comm", 4096, &name);
	if (!e)
		name[strcspn(name, "\n")] = '\0';
	return name;
}

/* The file that stands at the library's place now, as the machine names it; NULL: it has another view of files. The
 * caller frees it. */
static char *file_of(const struct report_target *t, const struct loaded *l)
{
	FREE_CLEANUP char *top = NULL;
	TREE_CLEANUP struct tree tree = {0};
	ERR_CLEANUP struct err *e = procfs__top(t->pid, &top);
	if (!e)
		e = tree__read(t->target->process, &tree);
	if (e || !l->now || strcmp(top, "/") != 0)
		return NULL;
	const char *path = tree__path(l->now);
	return path == l->now || strcmp(tree.root, "/") == 0 ? realpath(path, NULL) : NULL;
}

/* The old version is known of what was loaded from the package's own path, and was not updated yet. */
static struct report_owner owner_of(struct packages *all, const struct package *p, const char *file,
				    const struct target *t, size_t i)
{
	const struct loaded *l = &t->libraries.items[i];
	bool same = strcmp(l->path, file) == 0 && l->live == l->vapi;
	const char *old = same ? packages__version_at(all, p, procfs__started(t->start_time)) : NULL;
	return (struct report_owner){xstrdup(p->name), xstrdup(p->version), old ? xstrdup(old) : NULL};
}

/* Of libraries that are not up to date. */
static void find_owners(const struct work_options *opt, struct report_target *t)
{
	if (!opt->packages || !t->target || !target__outdated(t->target))
		return;
	t->n_owners = t->target->libraries.n;
	t->owners = xcalloc(t->n_owners, sizeof(*t->owners));
	for (size_t i = 0; i < t->n_owners; i++) {
		const struct package *p = NULL;
		FREE_CLEANUP char *file = t->target->results[i].outcome == OUTCOME_CURRENT
					      ? NULL
					      : file_of(t, &t->target->libraries.items[i]);
		if (file)
			err__free(packages__owner(opt->packages, file, &p));
		if (p)
			t->owners[i] = owner_of(opt->packages, p, file, t->target, i);
	}
}

/* Where it belongs, and whether it needs a restart. `passed_over`: nothing else is to be said of it. */
static void look_around(const struct work_options *opt, struct report_target *t, bool passed_over)
{
	if (opt->scan)
		restart__find(opt->scan, t, opt->plan->split_only);
	if (passed_over && t->restart.reasons.n == 0)
		return;
	err__free(whereabouts__of(t->pid, &t->where));
	find_owners(opt, t);
	t->passed_over = passed_over;
	if (passed_over)
		t->name = name_of(t->pid);
}

bool work__look(const struct work_options *opt, pid_t pid, bool all, struct report_target *out)
{
	*out = (struct report_target){.pid = pid};
	struct watchdog *w = watch(opt, pid, "looking at it", WORK_LOOK_MAX_S, WORK_LOOK_TOO_LONG);
	out->error = target__open(pid, opt->plan, &out->target);
	bool init = leave_out_init(out);
	refuse_users_of_libllu(out);
	bool nothing = all && (init || (out->error && says_nothing(pid, out->error, &out->left_out)));
	if (!init)
		look_around(opt, out, nothing);
	watchdog__call_off(w);
	return nothing && !out->passed_over;
}

static unsigned phase_max_s(const struct work_options *opt, const struct target *t)
{
	return PHASE_MAX_S + PHASE_TIMEOUTS * (unsigned)(1 + t->libraries.n) * opt->update.timeout_s;
}

unsigned work__try_max_s(const struct work_options *opt, const struct target *t)
{
	return PHASES * phase_max_s(opt, t);
}

static void phase(const struct work_options *opt, struct target *t,
		  void (*step)(struct target *, const struct update_options *))
{
	struct watchdog *w = watch(opt, t->pid, "updating it", phase_max_s(opt, t), WORK_TRY_TOO_LONG);
	step(t, &opt->update);
	watchdog__call_off(w);
}

void work__try(const struct work_options *opt, struct report_target *t, void (*prepared)(void *context), void *context)
{
	if (t->target && target__pending(t->target))
		phase(opt, t->target, target__prepare);
	if (prepared && t->target && target__pending(t->target))
		prepared(context);
	if (t->target && target__pending(t->target))
		phase(opt, t->target, target__commit);
}

void work__give_up(struct report_target *t)
{
	if (t->target)
		target__give_up(t->target);
}

void work__end(struct report_target *t)
{
	report_target__free(t);
}
