/* See worker.h. */
#include "crew/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "crew/channel.h"
#include "crew/child.h"
#include "crew/guest.h"
#include "inject/census.h"

/* For so few updates it is not worth while to look at all processes beforehand (inject/census.h). */
enum { CENSUS_AFTER = 8 };

struct worker {
	struct work_options opt;
	struct turns *turns;
	struct plan_options *plan; /* opt.plan */
	unsigned updates;          /* so far */
	int control, turns_file;
	pid_t parent;
};

/* Not to outlive who asked (prctl(2), PR_SET_PDEATHSIG), not even where somebody has stopped us: SIGKILL reaches who is
 * stopped. It may be gone already. */
static void die_with(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(1);
}

/* What is over is let go before: who gets the answer may go on with the same process at once. True: there is more to be
 * tried. */
static bool answer(int channel, struct report_target *t)
{
	struct record r;
	record_bytes bytes = {0};
	record__make(t, &r);
	record__encode(&r, &bytes);
	bool more = r.pending;
	if (!more)
		work__end(t);
	(void)channel__send(channel, MESSAGE_RECORD, bytes.items, bytes.n, -1);
	vec__free(&bytes);
	record__free(&r);
	return more;
}

static void say_prepared(void *channel)
{
	(void)channel__send(*(int *)channel, MESSAGE_PREPARED, NULL, 0, -1);
}

/* ---- keeping a process ---- */

/* Nothing was begun: the process is as it was. `e` is the callee's. */
static void answer_not_begun(struct report_target *t, int channel, struct err *e)
{
	target__close(t->target);
	*t = (struct report_target){.pid = t->pid, .error = e};
	(void)answer(channel, t);
}

static struct err *no_process(pid_t pid, int errnum)
{
	return err__new(ERR_SYSTEM, errnum, NULL, NULL, "pid %d: no process could be made for its update", pid);
}

/* Nothing is begun before the command knows who does it: `go` says so, or ends with the worker. */
static _Noreturn void keep(struct worker *w, struct report_target *t, int channel, int go)
{
	enum message m = MESSAGE_TRY;
	uint8_t *bytes = NULL, word;
	size_t len;
	bool more;
	die_with(w->parent);
	close(w->control);
	if (read(go, &word, 1) != 1)
		_exit(1);
	close(go);
	turns__close(w->turns); /* the worker's: a turn is not shared */
	w->opt.update.turns = turns__open(w->turns_file);
	do {
		free(bytes);
		if (m == MESSAGE_TRY)
			work__try(&w->opt, t, say_prepared, &channel);
		else
			work__give_up(t);
		more = answer(channel, t);
	} while (more && channel__receive(channel, &m, &bytes, &len, NULL));
	_exit(0);
}

static void hand_over(struct worker *w, struct report_target *t, int channel)
{
	int go[2];
	if (pipe2(go, O_CLOEXEC) < 0) {
		answer_not_begun(t, channel, no_process(t->pid, errno));
		return;
	}
	struct kept k = {.seconds = work__try_max_s(&w->opt, t->target)};
	k.keeper = child__fork_sibling();
	if (k.keeper == 0) {
		close(go[1]);
		keep(w, t, channel, go[0]);
	}
	if (k.keeper < 0) {
		answer_not_begun(t, channel, no_process(t->pid, errno));
	} else {
		(void)channel__send(channel, MESSAGE_KEPT, &k, sizeof(k), -1);
		(void)!write(go[1], "", 1);
	}
	close(go[0]);
	close(go[1]);
}

/* ---- taking work ---- */

static bool is_another(const struct report_target *t, const struct order *o)
{
	return t->target && o->start_time && t->target->start_time != o->start_time;
}

static void one(struct worker *w, enum message m, const struct order *o, int channel)
{
	struct report_target t = {.pid = o->pid};
	bool nothing = false;
	w->plan->foresee = m == MESSAGE_UPDATE;
	if (m == MESSAGE_UPDATE && ++w->updates == CENSUS_AFTER)
		w->plan->census = census__take();
	if (o->pid == w->parent) /* the command; of itself a worker's process__open() says so */
		t.error = err__new(ERR_REFUSED, 0, NULL, NULL, "pid %d: it is this tool itself", o->pid);
	else
		nothing = work__look(&w->opt, o->pid, m == MESSAGE_LOOK_ALL, &t);
	if (nothing)
		(void)channel__send(channel, MESSAGE_NOTHING, &t.left_out, sizeof(t.left_out), -1);
	else if (is_another(&t, o))
		answer_not_begun(
		    &t, channel,
		    err__new(ERR_GONE, 0, NULL, NULL, "pid %d: it has ended, and another process has its PID", o->pid));
	else if (m == MESSAGE_UPDATE && t.target && target__pending(t.target))
		hand_over(w, &t, channel);
	else
		(void)answer(channel, &t);
	work__end(&t);
}

void worker__run(int control, int turns, pid_t parent, const struct work_options *opt, struct plan_options *plan)
{
	struct worker w = {.opt = *opt,
			   .plan = plan,
			   .turns = turns__open(turns),
			   .control = control,
			   .turns_file = turns,
			   .parent = parent};
	enum message m;
	uint8_t *bytes;
	size_t len;
	int channel;
	die_with(parent);
	guest__ignore_signals();
	signal(SIGCHLD, SIG_DFL); /* ignored, which is inherited, it would not wake who waits for a target */
	plan_cache__take_turns(plan->plans, w.turns);
	while (channel__receive(control, &m, &bytes, &len, &channel)) {
		struct order o;
		if (len == sizeof(o) && channel >= 0) {
			memcpy(&o, bytes, sizeof(o));
			one(&w, m, &o, channel);
		}
		free(bytes);
		if (channel >= 0)
			close(channel);
	}
	_exit(0);
}
