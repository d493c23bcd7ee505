/* See worker.h. */
#include "crew/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"
#include "crew/channel.h"

struct worker {
	struct work_options opt;
	struct turns *turns;
	int control, turns_file;
};

/* Not to outlive who asked (prctl(2), PR_SET_PDEATHSIG); it may be gone already. */
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

/* The command is gone: then nobody is to go on. No signal of the worker's death will do, as a worker may die alone. */
static void *watch(void *channel)
{
	struct pollfd p = {.fd = *(int *)channel, .events = POLLRDHUP};
	while (poll(&p, 1, -1) <= 0 || !(p.revents & (POLLRDHUP | POLLHUP | POLLERR)))
		;
	kill(getpid(), SIGKILL);
	return NULL;
}

static _Noreturn void keep(struct worker *w, struct report_target *t, int channel)
{
	enum message m = MESSAGE_TRY;
	uint8_t *bytes = NULL;
	size_t len;
	pthread_t watcher;
	bool more;
	prctl(PR_SET_PDEATHSIG, 0);
	if (!thread__start(&watcher, watch, &channel))
		_exit(1);
	close(w->control);
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
	pid_t pid = fork();
	if (pid == 0)
		keep(w, t, channel);
	if (pid > 0) {
		(void)channel__send(channel, MESSAGE_KEPT, NULL, 0, -1);
		return;
	}
	target__give_up(t->target);
	target__close(t->target);
	t->target = NULL;
	t->error = err__new(ERR_SYSTEM, errno, NULL, NULL, "pid %d: no process could be made for its update", t->pid);
	(void)answer(channel, t);
}

/* ---- taking work ---- */

static void one(struct worker *w, enum message m, pid_t pid, int channel)
{
	struct report_target t;
	bool nothing = work__look(&w->opt, pid, m == MESSAGE_LOOK_ALL, &t);
	if (nothing)
		(void)channel__send(channel, MESSAGE_NOTHING, NULL, 0, -1);
	else if (m == MESSAGE_UPDATE && t.target && target__pending(t.target))
		hand_over(w, &t, channel);
	else
		(void)answer(channel, &t);
	work__end(&t);
}

void worker__run(int control, int turns, pid_t parent, const struct work_options *opt, struct plan_options *plan)
{
	struct worker w = {.opt = *opt, .turns = turns__open(turns), .control = control, .turns_file = turns};
	enum message m;
	uint8_t *bytes;
	size_t len;
	int channel;
	die_with(parent);
	plan_cache__take_turns(plan->plans, w.turns);
	while (channel__receive(control, &m, &bytes, &len, &channel)) {
		pid_t pid;
		if (len == sizeof(pid) && channel >= 0) {
			memcpy(&pid, bytes, sizeof(pid));
			one(&w, m, pid, channel);
		}
		free(bytes);
		if (channel >= 0)
			close(channel);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	_exit(0);
}
