/* See record.h. */
#include "report/record.h"

#include <stdlib.h>
#include <string.h>

#include "report/report.h"

void report_target__free(struct report_target *t)
{
	target__close(t->target);
	err__free(t->error);
	free(t->name);
	whereabouts__free(&t->where);
	for (size_t i = 0; i < t->restart.reasons.n; i++) {
		struct restart_reason *r = &t->restart.reasons.items[i];
		free(r->path);
		free(r->code);
		free(r->text);
		free(r->hint);
	}
	vec__free(&t->restart.reasons);
	for (size_t i = 0; i < t->n_owners; i++) {
		free(t->owners[i].package);
		free(t->owners[i].version);
		free(t->owners[i].old_version);
	}
	free(t->owners);
	*t = (struct report_target){0};
}

typedef void say_fn(struct report *r, const struct report_target *t);

/* What `say` prints. */
static char *words_of(say_fn *say, const struct report_target *t)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		abort();
	struct report r = {.out = f};
	say(&r, t);
	if (fclose(f) != 0)
		abort();
	return text;
}

static bool is_not_permitted(const struct report_target *t)
{
	if (!t->target)
		return t->error && !t->passed_over && err__kind(t->error) == ERR_PERMISSION;
	for (size_t i = 0; i < t->target->libraries.n; i++) {
		const struct result *x = &t->target->results[i];
		if (x->outcome == OUTCOME_NOT_UPDATED && (x->kind == ERR_PERMISSION || x->kind == ERR_BUSY))
			return true;
	}
	return false;
}

void record__make(const struct report_target *t, struct record *out)
{
	bool pending = t->target && target__pending(t->target);
	*out = (struct record){.pid = t->pid,
			       .start_time = t->target ? t->target->start_time : 0,
			       .outcome = report__outcome_now(t),
			       .unknown = !t->target,
			       .concerns = t->target ? target__outdated(t->target) : !t->passed_over,
			       .pending = pending,
			       .passed_over = t->passed_over,
			       .restart = t->restart.reasons.n > 0,
			       .not_permitted = is_not_permitted(t),
			       .name = report__name(t),
			       .preview = words_of(report__preview, t),
			       .validating = words_of(report__validating, t),
			       .details = pending ? xstrdup("") : words_of(report__details, t),
			       .json = report__process_json(t)};
}

void record__make_lost(pid_t pid, const char *name, enum outcome outcome, const char *text, const char *hint,
		       struct record *out)
{
	FREE_CLEANUP char *said = xasprintf("%s%s%s\n", text, hint ? "\n  " : "", hint ? hint : "");
	*out = (struct record){.pid = pid,
			       .outcome = outcome,
			       .unknown = true,
			       .concerns = true,
			       .name = xstrdup(name),
			       .preview = report__sentence(said),
			       .validating = xstrdup(""),
			       .details = xstrdup(said),
			       .json = report__lost_json(pid, name, outcome, text, hint)};
}

void record__free(struct record *r)
{
	free(r->name);
	free(r->preview);
	free(r->validating);
	free(r->details);
	free(r->json);
	*r = (struct record){0};
}

/* ---- as bytes ---- */

struct head {
	uint64_t start_time;
	int32_t pid;
	uint32_t outcome;
	uint8_t unknown, concerns, pending, passed_over, restart, not_permitted;
};

enum { TEXTS = 5 };

/* Each text behind the other, with its final 0. */
void record__encode(const struct record *r, record_bytes *out)
{
	const struct head h = {.start_time = r->start_time,
			       .pid = r->pid,
			       .outcome = r->outcome,
			       .unknown = r->unknown,
			       .concerns = r->concerns,
			       .pending = r->pending,
			       .passed_over = r->passed_over,
			       .restart = r->restart,
			       .not_permitted = r->not_permitted};
	const char *const texts[TEXTS] = {r->name, r->preview, r->validating, r->details, r->json};
	size_t len = sizeof(h);
	for (size_t i = 0; i < TEXTS; i++)
		len += strlen(texts[i]) + 1;
	out->items = xreallocarray(out->items, len, 1);
	out->cap = out->n = len;
	memcpy(out->items, &h, sizeof(h));
	size_t at = sizeof(h);
	for (size_t i = 0; i < TEXTS; i++) {
		size_t n = strlen(texts[i]) + 1;
		memcpy(out->items + at, texts[i], n);
		at += n;
	}
}

bool record__decode(const uint8_t *bytes, size_t len, struct record *out)
{
	struct head h;
	char *texts[TEXTS] = {NULL};
	if (len < sizeof(h) + TEXTS || bytes[len - 1] != 0)
		return false;
	memcpy(&h, bytes, sizeof(h));
	size_t at = sizeof(h), n = 0;
	for (; n < TEXTS && at < len; n++) {
		texts[n] = xstrdup((const char *)bytes + at);
		at += strlen(texts[n]) + 1;
	}
	*out = (struct record){.pid = h.pid,
			       .start_time = h.start_time,
			       .outcome = h.outcome,
			       .unknown = h.unknown,
			       .concerns = h.concerns,
			       .pending = h.pending,
			       .passed_over = h.passed_over,
			       .restart = h.restart,
			       .not_permitted = h.not_permitted,
			       .name = texts[0],
			       .preview = texts[1],
			       .validating = texts[2],
			       .details = texts[3],
			       .json = texts[4]};
	if (n == TEXTS && at == len && h.outcome <= OUTCOME_FAILURE)
		return true;
	record__free(out);
	return false;
}
