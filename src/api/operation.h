/* An operation as its steps (operation.c) and its words (say.c) see it. */
#ifndef LLU_API_OPERATION_H
#define LLU_API_OPERATION_H

#include "api/api.h"
#include "crew/crew.h"
#include "report/report.h"

struct llu_operation {
	struct llu_options opt; /* without the lists */
	job_list jobs;
	struct overrules *overrules;
	struct plan_cache *plans;
	struct trace *trace;
	struct plan_options plan;
	struct crew *crew;             /* from the look on */
	VEC(struct record) records;    /* as of the last step; they are the jobs' */
	VEC(struct llu_process) views; /* of them */
	struct report report;
	unsigned n_try, of_tries; /* of_tries 0: not known */
	uint64_t since;           /* clock.h */
	bool stopped;             /* opt.stop has said so */
	bool over;
};

bool operation__any_concern(const struct llu_operation *x);

/* What llvupdate says around a try. */
void say__try_begins(struct llu_operation *x);
void say__prepared(struct llu_operation *x, size_t pending);
void say__try_ended(struct llu_operation *x, size_t success_before);
void say__end(struct llu_operation *x);

#endif
