/* See sleepers.h. */
#include "freeze/sleepers.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "inject/proc.h"

enum { THREADS_MAX = 8 };

struct sleeper {
	struct thread_view view;
	uint64_t switches;
};

/* Asleep, or stopped, as a hand is between two calls (inject/hand.h). Not while a vfork child runs in its memory. */
static bool rests(const struct thread_view *v)
{
	return (v->at_rest || v->state == THREAD_STOPPED) && !thread_view__waits_for_vfork(v);
}

static bool same_rest(const struct thread_view *a, const struct thread_view *b)
{
	return rests(b) && a->state == b->state && a->nr == b->nr && a->sp.v == b->sp.v && a->pc.v == b->pc.v;
}

/* The count first: to rest again it has to be switched out again. */
static bool note(const struct process *p, pid_t tid, struct sleeper *out)
{
	struct thread_status status;
	ERR_CLEANUP struct err *e = process__status(p, tid, &status);
	if (!e)
		e = process__look(p, tid, &out->view);
	out->switches = e ? 0 : status.switches;
	return !e && rests(&out->view);
}

/* A thread that is not in a list may have been made while that was read. */
static bool are_all(const struct process *p, size_t n)
{
	char buf[8192];
	const char *threads = proc_read(p->dirfd, "status", buf, sizeof(buf)) > 0 ? proc_field(buf, "Threads") : NULL;
	return threads && strtoul(threads, NULL, 10) == n;
}

void sleepers__note(const struct process *p, struct sleepers *out)
{
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0;
	*out = (struct sleepers){0};
	ERR_CLEANUP struct err *e = process__threads(p, &tids, &n);
	if (e || n > THREADS_MAX)
		return;
	out->items = xcalloc(n, sizeof(*out->items));
	for (size_t i = 0; i < n; i++)
		if (!note(p, tids[i], &out->items[i]))
			return;
	out->n = are_all(p, n) ? n : 0;
}

void sleepers__free(struct sleepers *s)
{
	free(s->items);
	*s = (struct sleepers){0};
}

bool sleepers__slept_on(const struct process *p, const struct sleepers *s)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct sleeper *x = &s->items[i];
		struct thread_view now;
		struct thread_status status;
		ERR_CLEANUP struct err *e = process__look(p, x->view.tid, &now);
		if (!e)
			e = process__status(p, x->view.tid, &status);
		if (e || !same_rest(&x->view, &now) || status.switches != x->switches)
			return false;
	}
	return s->n > 0;
}
