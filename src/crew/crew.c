/* See crew.h. */
#include "crew/crew.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "crew/channel.h"
#include "crew/child.h"
#include "crew/guest.h"
#include "crew/worker.h"
#include "image/file_memo.h"
#include "inject/clock.h"
#include "machine/outdated.h"
#include "machine/package.h"

enum {
	WORKERS_MAX = 16,
	/* that try at the same time; most of them wait, for a thread to leave a call: whoever sleeps for a second at a
	 * time is to be seen each time. Each takes some 700 KiB */
	KEEPERS_MAX = 384,
	FRESH_MS = 6,       /* so long a keeper counts as one that has work for a processor */
	LISTEN_MS = 2,      /* so long nobody may be waited for while there is somebody to be handed out */
	LOOK_AFTER_MS = 25, /* so often all are looked after */
	TICK_MS = 1000,
	MESSAGE_S = 5,     /* within a message, which is written at once */
	GRACE_S = 30,      /* for who has a watchdog and did not end by it: it could not run */
	REPLACED_MAX = 64, /* workers that died without work */
};

enum step { STEP_LOOK, STEP_TRY, STEP_GIVE_UP };

struct worker_process {
	pid_t pid;   /* 0: there is none */
	int control; /* the command's end */
	bool busy;
};

struct crew {
	job_list *jobs;
	struct crew_options is;
	struct work_options opt;
	struct plan_options *plan;
	int turns;
	struct worker_process workers[WORKERS_MAX];
	size_t n_workers;
	enum step step;
	size_t prepared; /* in this try */
	unsigned replaced;
	uint64_t looked_after; /* when that was last */
	rlim_t files;          /* the limit as it was; 0: it was not changed */
};

/* ---- workers ---- */

static size_t processors(void)
{
	cpu_set_t set;
	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
}

/* What a new process has of ours and must not keep: else nobody would see that the other end is gone. */
static void close_channels(const struct crew *c)
{
	for (size_t i = 0; i < c->jobs->n; i++)
		if (c->jobs->items[i].channel >= 0)
			close(c->jobs->items[i].channel);
	for (size_t i = 0; i < c->n_workers; i++)
		if (c->workers[i].pid)
			close(c->workers[i].control);
}

/* What who works has for all processes. */
static void equip(struct crew *c)
{
	signal(SIGIO, SIG_IGN); /* file_memo.c */
	c->plan->files = file_memo__new();
	if (c->is.restarts)
		c->opt.scan = scan__new(SCAN_BEST);
	if (c->opt.owners)
		c->opt.packages = packages__new(NULL);
}

static bool start_worker(struct crew *c, struct worker_process *w)
{
	int ends[2];
	pid_t self = getpid();
	*w = (struct worker_process){0};
	if (!channel__new(ends))
		return false;
	pid_t pid = child__fork();
	if (pid == 0) {
		const int keep[] = {ends[1], c->turns, trace__file(c->plan->trace)};
		if (c->is.guest)
			guest__enter(keep, sizeof(keep) / sizeof(keep[0]));
		else
			close_channels(c);
		close(ends[0]);
		equip(c);
		worker__run(ends[1], c->turns, self, &c->opt, c->plan);
	}
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return false;
	}
	*w = (struct worker_process){.pid = pid, .control = ends[0]};
	return true;
}

/* How it ended, for people. The caller frees it. */
static char *end_worker(struct worker_process *w)
{
	close(w->control);
	char *how = child__end(w->pid);
	w->pid = 0;
	return how;
}

/* ---- what comes back ---- */

static void close_channel(struct job *j)
{
	if (j->channel >= 0)
		close(j->channel);
	j->channel = -1;
}

/* Nobody could be had for it: `why` (errno), or all workers are gone (0). The process is as it was. */
static void not_begun(struct job *j, int why)
{
	FREE_CLEANUP char *name = xstrdup(j->record.name ? j->record.name : "-");
	FREE_CLEANUP char *text = xasprintf("Process %s pid %d: llvupdate has no process of its own for it%s%s", name,
					    j->pid, why ? ": " : "", why ? strerror(why) : "");
	record__free(&j->record);
	record__make_lost(j->pid, name, OUTCOME_NOT_UPDATED, text, "run llvupdate again", &j->record);
	close_channel(j);
	j->state = JOB_OVER;
}

/* Whoever has the job is ended. The caller frees what is said of how. */
static char *end_who_has(struct crew *c, struct job *j)
{
	char *how = NULL;
	if (j->state == JOB_AT_WORKER) {
		struct worker_process *w = &c->workers[j->worker];
		how = end_worker(w);
		start_worker(c, w);
	} else if (j->keeper) {
		how = child__end(j->keeper);
		j->keeper = 0;
	}
	return how ? how : xstrdup("ended before its work was done");
}

static void lose(struct crew *c, struct job *j, bool overdue)
{
	bool looked = c->step == STEP_LOOK;
	FREE_CLEANUP char *name = xstrdup(j->record.name ? j->record.name : "-");
	FREE_CLEANUP char *how = end_who_has(c, j);
	FREE_CLEANUP char *text = xasprintf("Process %s pid %d: llvupdate's own process that %s %s", name, j->pid,
					    looked ? "looked at it" : "was at work on it",
					    overdue ? "was held by something, and ended" : how);
	record__free(&j->record);
	record__make_lost(j->pid, name, looked ? OUTCOME_NOT_UPDATED : OUTCOME_FAILURE, text,
			  looked ? "leave it out (-e)" : "run cllvupdate -u; it runs on, on the old code or the new",
			  &j->record);
	close_channel(j);
	j->state = JOB_OVER;
}

/* Somebody has it, for so many seconds at most. */
static void begin(struct job *j, int state, unsigned seconds)
{
	j->state = state;
	j->since = clock_ns();
	j->until = j->since + (seconds + GRACE_S) * 1000000000ULL;
}

static void free_worker(struct crew *c, const struct job *j)
{
	if (j->state == JOB_AT_WORKER)
		c->workers[j->worker].busy = false;
}

static void take_record(struct crew *c, struct job *j, const uint8_t *bytes, size_t len)
{
	struct record r;
	if (!record__decode(bytes, len, &r) || r.pid != j->pid) {
		lose(c, j, false);
		return;
	}
	free_worker(c, j);
	if (c->step != STEP_LOOK && r.unknown) { /* previews are over: why it is unknown now is said at the end */
		free(r.details);
		r.details = xstrdup(r.preview);
		free(r.name);
		r.name = xstrdup(j->record.name);
	}
	record__free(&j->record);
	j->record = r;
	bool kept = j->state != JOB_AT_WORKER && r.pending;
	j->state = JOB_OVER;
	if (!kept)
		close_channel(j);
}

static void hear(struct crew *c, struct job *j)
{
	enum message m;
	uint8_t *bytes;
	size_t len;
	if (!channel__receive(j->channel, &m, &bytes, &len, NULL)) {
		lose(c, j, false);
		return;
	}
	if (m == MESSAGE_RECORD) {
		take_record(c, j, bytes, len);
	} else if (m == MESSAGE_KEPT && j->state == JOB_AT_WORKER && len == sizeof(struct kept)) {
		struct kept k;
		memcpy(&k, bytes, sizeof(k));
		free_worker(c, j);
		j->keeper = k.keeper;
		j->seconds = k.seconds;
		begin(j, JOB_AT_KEEPER, k.seconds);
	} else if (m == MESSAGE_PREPARED) {
		c->prepared++;
		free_worker(c, j); /* what its worker says of it may come later */
		j->state = JOB_PREPARED;
	} else if (m == MESSAGE_NOTHING && len == sizeof(j->left_out)) {
		memcpy(&j->left_out, bytes, sizeof(j->left_out));
		free_worker(c, j);
		j->nothing = true;
		j->state = JOB_OVER;
		close_channel(j);
	}
	free(bytes);
}

/* ---- handing out ---- */

static bool is_tried(const struct job *j)
{
	return j->state == JOB_AT_KEEPER || j->state == JOB_PREPARED;
}

/* May one more process be tried? Those that have been at it for a while wait for something; and one more than there are
 * processors, as they also wait for one another's turns. */
static bool any_room(const struct crew *c)
{
	size_t all = 0, fresh = 0;
	uint64_t now = clock_ns();
	for (size_t i = 0; i < c->jobs->n; i++) {
		const struct job *j = &c->jobs->items[i];
		all += is_tried(j);
		fresh += is_tried(j) && now - j->since < FRESH_MS * 1000000ULL;
	}
	return all < KEEPERS_MAX && fresh < c->n_workers + 1;
}

static struct worker_process *idle_worker(struct crew *c)
{
	for (size_t i = 0; i < c->n_workers; i++)
		if (c->workers[i].pid && !c->workers[i].busy)
			return &c->workers[i];
	return NULL;
}

static bool any_worker(const struct crew *c)
{
	for (size_t i = 0; i < c->n_workers; i++)
		if (c->workers[i].pid)
			return true;
	return false;
}

static void give_to_keeper(struct crew *c, struct job *j)
{
	begin(j, JOB_AT_KEEPER, j->seconds);
	if (!channel__send(j->channel, c->step == STEP_TRY ? MESSAGE_TRY : MESSAGE_GIVE_UP, NULL, 0, -1))
		lose(c, j, false);
}

static void give_to_worker(struct crew *c, struct job *j, struct worker_process *w)
{
	int ends[2];
	enum message m = c->step == STEP_TRY ? MESSAGE_UPDATE : c->is.all ? MESSAGE_LOOK_ALL : MESSAGE_LOOK;
	if (!channel__new(ends)) {
		not_begun(j, errno);
		return;
	}
	/* who is stopped within a message must not stop us: we have him go on */
	const struct timeval patience = {.tv_sec = MESSAGE_S};
	(void)setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	const struct order o = {.pid = j->pid, .start_time = j->record.start_time};
	w->busy = true;
	j->tried = c->step == STEP_TRY;
	j->worker = (size_t)(w - c->workers);
	begin(j, JOB_AT_WORKER, WORK_LOOK_MAX_S);
	j->channel = ends[0];
	bool sent = channel__send(w->control, m, &o, sizeof(o), ends[1]);
	close(ends[1]);
	if (sent)
		return;
	if (c->replaced++ >= REPLACED_MAX) {
		lose(c, j, false);
		return;
	}
	/* it died while it had nothing to do: another one takes the job */
	close_channel(j);
	j->state = JOB_WAITS;
	free(end_worker(w));
	start_worker(c, w);
}

static void hand_out(struct crew *c)
{
	for (size_t i = 0; i < c->jobs->n; i++) {
		struct job *j = &c->jobs->items[i];
		if (j->state != JOB_WAITS)
			continue;
		if (j->channel < 0 && !any_worker(c)) {
			not_begun(j, 0);
			continue;
		}
		struct worker_process *w = idle_worker(c);
		if ((c->step != STEP_LOOK && !any_room(c)) || (j->channel < 0 && !w))
			return;
		if (j->channel >= 0)
			give_to_keeper(c, j);
		else
			give_to_worker(c, j, w);
	}
}

/* ---- a step ---- */

static bool is_out(const struct job *j)
{
	return j->state != JOB_WAITS && j->state != JOB_OVER;
}

/* Somebody may stop processes of ours, or hold them as a debugger does. While one of them stands still, so may the
 * process that it is at work on, and all others wait for its turn: who is stopped goes on at once, and who is held for
 * longer than it may take is ended. (Its own watchdog stands still with it.) */
static void look_after_all(struct crew *c)
{
	uint64_t now = clock_ns();
	if (now - c->looked_after < LOOK_AFTER_MS * 1000000ULL)
		return;
	c->looked_after = now;
	for (size_t i = 0; i < c->n_workers; i++)
		if (c->workers[i].pid)
			child__wake(c->workers[i].pid);
	for (size_t i = 0; i < c->jobs->n; i++) {
		struct job *j = &c->jobs->items[i];
		if (j->keeper && j->channel < 0 && child__reap(j->keeper))
			j->keeper = 0;
		if (j->keeper)
			child__wake(j->keeper);
		if (is_out(j) && now > j->until)
			lose(c, j, true);
	}
}

/* Waits until somebody says something, or a while. */
static void listen_to_all(struct crew *c)
{
	VEC(struct pollfd) fds = {0};
	VEC(size_t) whose = {0};
	int ms = LOOK_AFTER_MS;
	for (size_t i = 0; i < c->jobs->n; i++) {
		const struct job *j = &c->jobs->items[i];
		if (j->state == JOB_WAITS)
			ms = LISTEN_MS;
		if (!is_out(j))
			continue;
		vec__push(&fds, (struct pollfd){.fd = j->channel, .events = POLLIN});
		vec__push(&whose, i);
	}
	int n = poll(fds.items, fds.n, ms);
	for (size_t i = 0; n > 0 && i < fds.n; i++)
		if (fds.items[i].revents)
			hear(c, &c->jobs->items[whose.items[i]]);
	vec__free(&fds);
	vec__free(&whose);
}

static size_t count_over(const struct crew *c, bool halfway)
{
	size_t n = 0;
	for (size_t i = 0; i < c->jobs->n; i++)
		n += c->jobs->items[i].state == JOB_OVER || (halfway && c->jobs->items[i].state == JOB_PREPARED);
	return n;
}

static bool is_stopped(const struct crew *c, const struct crew_watch *watch)
{
	return c->step == STEP_TRY && watch && watch->stop && watch->stop(watch->context);
}

/* Whose turn has not come stays pending. */
static void leave_the_rest(struct crew *c)
{
	for (size_t i = 0; i < c->jobs->n; i++)
		if (c->jobs->items[i].state == JOB_WAITS)
			c->jobs->items[i].state = JOB_OVER;
}

static void run_step(struct crew *c, const struct crew_watch *watch)
{
	uint64_t said = clock_ns();
	bool halfway = false;
	for (size_t over = count_over(c, false); over < c->jobs->n; over = count_over(c, false)) {
		if (is_stopped(c, watch))
			leave_the_rest(c);
		hand_out(c);
		listen_to_all(c);
		look_after_all(c);
		if (!halfway && count_over(c, true) == c->jobs->n) {
			halfway = true;
			if (watch && watch->prepared)
				watch->prepared(watch->context, c->prepared);
		}
		if (clock_ns() - said < TICK_MS * 1000000ULL)
			continue;
		said = clock_ns();
		if (watch && watch->waits)
			watch->waits(watch->context, count_over(c, false), c->jobs->n);
	}
	if (!halfway && watch && watch->prepared)
		watch->prepared(watch->context, c->prepared);
}

/* ---- the caller's own work ---- */

struct telling {
	const struct crew_watch *watch;
	bool told;
};

static void tell_prepared(void *context)
{
	struct telling *t = context;
	t->told = true;
	if (t->watch && t->watch->prepared)
		t->watch->prepared(t->watch->context, 1);
}

static void look_alone(struct crew *c, struct job *j)
{
	j->nothing = work__look(&c->opt, j->pid, c->is.all, &j->target);
	j->left_out = j->target.left_out;
}

static void work_alone(struct crew *c, struct job *j, const struct crew_watch *watch)
{
	struct telling telling = {watch, false};
	j->tried = j->tried || c->step == STEP_TRY;
	if (c->step == STEP_LOOK)
		look_alone(c, j);
	else if (c->step == STEP_TRY)
		work__try(&c->opt, &j->target, tell_prepared, &telling);
	else
		work__give_up(&j->target);
	if (!telling.told && watch && watch->prepared)
		watch->prepared(watch->context, 0);
	record__free(&j->record);
	if (!j->nothing)
		record__make(&j->target, &j->record);
	if (!j->record.pending)
		work__end(&j->target);
}

/* ---- the steps ---- */

/* Whoever waits for another try holds a channel. The soft limit is for programs that use select(2). */
static void allow_files(struct crew *c)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur >= r.rlim_max)
		return;
	c->files = r.rlim_cur;
	r.rlim_cur = r.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &r);
}

/* Unless somebody has changed it meanwhile. */
static void restore_files(const struct crew *c)
{
	struct rlimit r;
	if (!c->files || getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur != r.rlim_max)
		return;
	r.rlim_cur = c->files;
	(void)setrlimit(RLIMIT_NOFILE, &r);
}

struct crew *crew__new(job_list *jobs, const struct crew_options *opt, const struct work_options *work,
		       struct plan_options *plan)
{
	struct crew *c = xcalloc(1, sizeof(*c));
	c->jobs = jobs;
	c->is = *opt;
	c->opt = *work;
	c->plan = plan;
	c->turns = -1;
	for (size_t i = 0; i < jobs->n; i++)
		jobs->items[i].channel = -1;
	c->opt.alone = jobs->n <= 1 && !opt->guest;
	if (c->opt.alone) {
		equip(c);
		return c;
	}
	size_t n = processors();
	allow_files(c);
	c->turns = turns__create();
	c->n_workers = n < WORKERS_MAX ? n : WORKERS_MAX;
	for (size_t i = 0; i < c->n_workers; i++)
		start_worker(c, &c->workers[i]);
	c->opt.alone = !any_worker(c) && !opt->guest;
	if (c->opt.alone)
		equip(c);
	return c;
}

void crew__look(struct crew *c, const struct crew_watch *watch)
{
	c->step = STEP_LOOK;
	for (size_t i = 0; i < c->jobs->n; i++) {
		c->jobs->items[i].state = JOB_WAITS;
		if (c->opt.alone)
			work_alone(c, &c->jobs->items[i], watch);
	}
	if (!c->opt.alone)
		run_step(c, watch);
}

/* The caller wished no more tries before its turn came. */
static void never_tried(struct job *j)
{
	FREE_CLEANUP char *name = xstrdup(j->record.name);
	FREE_CLEANUP char *text =
	    xasprintf("Process %s pid %d: the operation was ended before its turn came", name, j->pid);
	work__end(&j->target);
	record__free(&j->record);
	record__make_lost(j->pid, name, OUTCOME_NOT_UPDATED, text, "run llvupdate again", &j->record);
	close_channel(j);
	j->state = JOB_OVER;
}

static void step_of_pending(struct crew *c, const struct crew_watch *watch)
{
	bool several = c->jobs->n > 1; /* alone: one after the other, and told at the end */
	c->prepared = 0;
	for (size_t i = 0; i < c->jobs->n; i++) {
		struct job *j = &c->jobs->items[i];
		j->state = j->record.pending ? JOB_WAITS : JOB_OVER;
		if (c->step == STEP_GIVE_UP && j->record.pending && !j->tried)
			never_tried(j);
		if (j->state == JOB_OVER || !c->opt.alone || is_stopped(c, watch))
			continue;
		work_alone(c, j, several ? NULL : watch);
		c->prepared += j->record.outcome == OUTCOME_SUCCESS;
	}
	if (!c->opt.alone)
		run_step(c, watch);
	else if (several && watch && watch->prepared)
		watch->prepared(watch->context, c->prepared);
}

void crew__try(struct crew *c, const struct crew_watch *watch)
{
	c->step = STEP_TRY;
	step_of_pending(c, watch);
}

void crew__give_up(struct crew *c)
{
	c->step = STEP_GIVE_UP;
	step_of_pending(c, NULL);
}

void crew__free(struct crew *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->jobs->n; i++) {
		close_channel(&c->jobs->items[i]);
		if (c->jobs->items[i].keeper)
			free(child__end(c->jobs->items[i].keeper));
		work__end(&c->jobs->items[i].target);
	}
	for (size_t i = 0; i < c->n_workers; i++)
		if (c->workers[i].pid)
			free(end_worker(&c->workers[i]));
	if (c->turns >= 0)
		close(c->turns);
	restore_files(c);
	file_memo__free(c->plan->files);
	c->plan->files = NULL;
	scan__free(c->opt.scan);
	packages__free(c->opt.packages);
	free(c);
}

void job_list__left_out(const job_list *l, size_t counts[LEFT_OUT_KINDS])
{
	memset(counts, 0, LEFT_OUT_KINDS * sizeof(*counts));
	counts[LEFT_OUT_SELF] = 1;
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].nothing && l->items[i].left_out < LEFT_OUT_KINDS)
			counts[l->items[i].left_out]++;
}

void job_list__free(job_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		record__free(&l->items[i].record);
	vec__free(l);
}
