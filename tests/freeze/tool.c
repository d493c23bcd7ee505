/* See tool.h. */
#include "tool.h"

#include <signal.h>
#include <stdio.h>

#include "remap/update.h"

int tool__update(pid_t pid, const char *plans)
{
	struct plan_options plan = {.plans = plan_cache__open(plans)};
	struct update_options opt = {.timeout_s = 20};
	struct target *t = NULL;
	struct err *e = target__open(pid, &plan, &t);
	if (e) {
		fprintf(stderr, "%s\n", err__text(e));
		return 2;
	}
	target__prepare(t, &opt);
	raise(SIGSTOP);
	target__commit(t, &opt);
	enum outcome outcome = target__outcome(t);
	if (outcome == OUTCOME_SUCCESS)
		return 0;
	for (size_t i = 0; i < t->libraries.n; i++)
		fprintf(stderr, "outcome %d: %s\n", outcome, t->results[i].reason ? t->results[i].reason : "");
	return 3;
}
