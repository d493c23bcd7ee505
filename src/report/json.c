/* JSON output; the schema is docs/json.md. */
#include <json-c/json.h>
#include <string.h>

#include "base/printable.h"
#include "image/gate.h"
#include "report/report.h"

enum { SCHEMA = 1 };

/* JSON is UTF-8 (RFC 8259, section 8.1): one name that is not must not cost a reader the whole document. */
static struct json_object *new_text(const char *text)
{
	FREE_CLEANUP char *utf8 = printable__utf8(text);
	return json_object_new_string(utf8);
}

static void add_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, text ? new_text(text) : NULL);
}

static void add_number(struct json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_uint64(n));
}

static void add_build_id(struct json_object *o, const char *key, const struct elf_file *e)
{
	FREE_CLEANUP char *id = e ? elf_file__build_id(e) : NULL;
	add_text(o, key, id);
}

static struct json_object *reason(const char *code, const char *text, const char *hint)
{
	struct json_object *o = json_object_new_object();
	add_text(o, "code", code);
	add_text(o, "text", text);
	add_text(o, "hint", hint);
	return o;
}

static void add_plan(struct json_object *o, const struct plan *p)
{
	struct json_object *f = json_object_new_object(), *refusals = json_object_new_array(),
			   *remarks = json_object_new_array();
	add_number(f, "same_instructions", p->counts.identical);
	add_number(f, "changed", p->counts.changed);
	add_number(f, "new", p->counts.added);
	add_number(f, "gone", p->counts.removed);
	json_object_object_add(o, "functions", f);
	add_number(o, "new_exports", p->counts.new_exports);
	add_number(o, "references_rebound", p->counts.rebound);
	add_number(o, "constants_kept", p->counts.kept_constants);
	add_text(o, "object_layout", layout_verdict__name(p->layout));
	add_text(o, "overrule", p->overrule);
	for (size_t i = 0; i < p->refusals.n; i++)
		json_object_array_add(refusals, reason(p->refusals.items[i].code, p->refusals.items[i].text, NULL));
	for (size_t i = 0; i < p->remarks.n; i++)
		json_object_array_add(remarks, new_text(p->remarks.items[i]));
	json_object_object_add(o, "refusals", refusals);
	json_object_object_add(o, "remarks", remarks);
}

static const char *const names[] = {
    [OUTCOME_CURRENT] = "current",         [OUTCOME_PENDING] = "to update", [OUTCOME_SUCCESS] = "success",
    [OUTCOME_NOT_UPDATED] = "not updated", [OUTCOME_FAILURE] = "failure",
};

static const char *state_of(enum outcome o)
{
	return names[o];
}

bool report__outcome_of(const char *word, enum outcome *out)
{
	for (size_t i = 0; word && i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], word) == 0) {
			*out = (enum outcome)i;
			return true;
		}
	return false;
}

static struct json_object *library(const struct report_target *of, const struct result *r)
{
	const struct target *target = of->target;
	const struct report_owner *owner = of->owners ? &of->owners[r - target->results] : NULL;
	struct json_object *o = json_object_new_object();
	add_text(o, "path", r->library->path);
	add_text(o, "new_file", r->library->now);
	add_text(o, "kind", loaded__is_plain(r->library) ? "unprepared" : "split");
	add_text(o, "state", state_of(r->outcome));
	add_build_id(o, "old_build_id", r->library->live);
	add_build_id(o, "new_build_id", r->library->next);
	add_text(o, "package", owner ? owner->package : NULL);
	add_text(o, "new_version", owner ? owner->version : NULL);
	add_text(o, "old_version", owner ? owner->old_version : NULL);
	json_object_object_add(o, "reason", r->reason ? reason(r->code, r->reason, r->hint) : NULL);
	if (r->group)
		add_number(o, "group", (uint64_t)(r->group - target->groups.items) + 1);
	add_number(o, "tries", r->tries);
	add_number(o, "total_ns", r->total_ns);
	if (r->outcome == OUTCOME_SUCCESS) {
		struct json_object *t = json_object_new_object(), *i = json_object_new_object();
		add_number(o, "frozen_ns", r->frozen_ns);
		add_number(t, "all", r->threads.threads);
		add_number(t, "stopped", r->threads.stopped);
		add_number(t, "asleep", r->threads.asleep);
		json_object_object_add(o, "threads", t);
		FREE_CLEANUP char *at = xasprintf("0x%lx", loaded__at(r->library, r->places.image).v);
		add_text(i, "address", at);
		add_number(i, "size", r->places.image_len);
		json_object_object_add(i, "shared", json_object_new_boolean(r->places.shared));
		add_number(i, "pages_replaced", r->places.pages_replaced);
		if (loaded__is_plain(r->library)) {
			add_number(i, "functions_moved", r->plan->n_moved);
			add_number(i, "entries", r->plan->jumps.n);
			add_number(i, "code_pages", r->plan->pages.n);
		}
		json_object_object_add(o, "image", i);
		add_text(o, "old_code", r->old_code == OLD_CODE_HELD ? "mapped" : "gone");
		add_text(o, "old_code_held_by", r->held_by);
		add_number(o, "retire_frozen_ns", r->retire_frozen_ns);
	}
	if (r->plan) {
		json_object_object_add(o, "plan_cached", json_object_new_boolean(r->plan_cached));
		add_plan(o, r->plan);
	}
	return o;
}

static void add_where(struct json_object *o, const struct whereabouts *w)
{
	struct json_object *c = w->container ? json_object_new_object() : NULL;
	add_text(o, "unit", w->unit);
	add_text(o, "user_unit", w->user_unit);
	if (c) {
		add_text(c, "engine", container_engine__name(w->engine));
		add_text(c, "name", w->container);
	}
	json_object_object_add(o, "container", c);
}

static void add_restart(struct json_object *o, const struct report_restart *restart)
{
	static const char *const kinds[] = {
	    [OUTDATED_PROGRAM] = "program", [OUTDATED_LIBRARY] = "library", [OUTDATED_OTHER] = "other"};
	if (restart->state == RESTART_NOT_ASKED)
		return;
	struct json_object *list = restart->state == RESTART_KNOWN ? json_object_new_array() : NULL;
	for (size_t i = 0; list && i < restart->reasons.n; i++) {
		const struct restart_reason *r = &restart->reasons.items[i];
		struct json_object *x = json_object_new_object();
		add_text(x, "path", r->path);
		add_text(x, "kind", kinds[r->kind]);
		add_text(x, "how", r->how == OUTDATED_DELETED ? "removed" : "replaced");
		json_object_object_add(x, "why", reason(r->code, r->text, r->hint));
		json_object_array_add(list, x);
	}
	json_object_object_add(o, "restart", list);
}

static char *as_text(struct json_object *o)
{
	char *text = xstrdup(json_object_to_json_string(o));
	json_object_put(o);
	return text;
}

char *report__process_json(const struct report_target *t)
{
	struct json_object *o = json_object_new_object(), *libraries = json_object_new_array();
	json_object_object_add(o, "pid", json_object_new_int(t->pid));
	add_text(o, "name", t->target ? t->target->name : t->name);
	if (t->target)
		add_number(o, "start_time", t->target->start_time);
	add_where(o, &t->where);
	add_text(o, "state", state_of(report__outcome_now(t)));
	json_object_object_add(
	    o, "reason",
	    t->error ? reason(err_kind__name(err__kind(t->error)), err__text(t->error), err__hint(t->error)) : NULL);
	for (size_t i = 0; t->target && i < t->target->libraries.n; i++)
		json_object_array_add(libraries, library(t, &t->target->results[i]));
	json_object_object_add(o, "libraries", libraries);
	add_restart(o, &t->restart);
	return as_text(o);
}

char *report__lost_json(pid_t pid, const char *name, enum outcome outcome, const char *text, const char *hint)
{
	struct json_object *o = json_object_new_object();
	json_object_object_add(o, "pid", json_object_new_int(pid));
	add_text(o, "name", name);
	add_text(o, "state", state_of(outcome));
	json_object_object_add(o, "reason", reason(err_kind__name(ERR_SYSTEM), text, hint));
	json_object_object_add(o, "libraries", json_object_new_array());
	return as_text(o);
}

static void print(FILE *to, struct json_object *o)
{
	fprintf(to, "%s\n",
		json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

void report__json(FILE *to, const char *operation, const struct record *list, size_t n, size_t passed_over,
		  int exit_code)
{
	struct json_object *o = json_object_new_object(), *processes = json_object_new_array(),
			   *s = json_object_new_object();
	struct report_summary summary = report__summarise(list, n);
	add_number(o, "schema", SCHEMA);
	add_text(o, "operation", operation);
	for (size_t i = 0; i < n; i++)
		json_object_array_add(processes, json_tokener_parse(list[i].json));
	json_object_object_add(o, "processes", processes);
	if (strcmp(operation, "preview") == 0)
		json_object_object_add(o, "needs_restart", report__needs_restart(list, n));
	add_number(s, "success", summary.success);
	add_number(s, "not_updated", summary.not_updated);
	add_number(s, "failure", summary.failure);
	add_number(s, "to_update", summary.to_do);
	add_number(s, "passed_over", passed_over);
	json_object_object_add(o, "summary", s);
	json_object_object_add(o, "exit_code", json_object_new_int(exit_code));
	print(to, o);
}

void report__plan_json(FILE *to, const struct plan *p)
{
	struct json_object *o = json_object_new_object();
	add_number(o, "schema", SCHEMA);
	add_text(o, "operation", "check");
	add_text(o, "old_file", p->live->path);
	add_text(o, "new_file", p->next->path);
	add_build_id(o, "old_build_id", p->live);
	add_build_id(o, "new_build_id", p->next);
	json_object_object_add(o, "fit", json_object_new_boolean(p->refusals.n == 0));
	add_plan(o, p);
	print(to, o);
}

void report__refused_json(FILE *to, const struct err *e)
{
	struct json_object *o = json_object_new_object(), *refusals = json_object_new_array();
	add_number(o, "schema", SCHEMA);
	add_text(o, "operation", "check");
	json_object_object_add(o, "fit", json_object_new_boolean(false));
	json_object_array_add(refusals, reason(err_kind__name(err__kind(e)), err__text(e), err__hint(e)));
	json_object_object_add(o, "refusals", refusals);
	print(to, o);
}
