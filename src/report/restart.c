/* Who needs a restart, and the metrics of a preview: put together from the records' JSON. */
#include <json-c/json.h>
#include <string.h>

#include "base/printable.h"
#include "report/metrics.h"
#include "report/report.h"

static struct json_object *member(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;
	return json_object_object_get_ex(o, key, &v) ? v : NULL;
}

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v = member(o, key);
	const char *text = v ? json_object_get_string(v) : NULL;
	return text ? text : "";
}

/* The elements of an array that may be missing or null. */
static size_t length_of(struct json_object *o, const char *key)
{
	struct json_object *v = member(o, key);
	return v ? json_object_array_length(v) : 0;
}

static struct json_object *element(struct json_object *o, const char *key, size_t i)
{
	return json_object_array_get_idx(member(o, key), i);
}

/* ---- lines: words that are put in order, each with a process ---- */

struct line {
	char *unit; /* "": none */
	char *name, *what;
	pid_t pid;
};

typedef VEC(struct line) line_list;

static void line_list__free(line_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->items[i].unit);
		free(l->items[i].name);
		free(l->items[i].what);
	}
	vec__free(l);
}

/* By unit, those without one last. */
static int compare_units(const char *a, const char *b)
{
	return !*a || !*b ? !*a - !*b : strcmp(a, b);
}

static int compare_words(const struct line *a, const struct line *b)
{
	int by_unit = compare_units(a->unit, b->unit), by_name = strcmp(a->name, b->name);
	return by_unit ? by_unit : by_name ? by_name : strcmp(a->what, b->what);
}

static int compare(const void *a, const void *b)
{
	const struct line *one = a, *other = b;
	int by_words = compare_words(one, other);
	return by_words ? by_words : (one->pid > other->pid) - (one->pid < other->pid);
}

static void sort(line_list *l)
{
	if (l->n)
		qsort(l->items, l->n, sizeof(*l->items), compare);
}

/* ---- text ---- */

/* "PATH (replaced: why)"; like what follows, in words that nobody takes for a part of the report. */
static char *describe(struct json_object *reason)
{
	static const struct {
		const char *code, *words;
	} known[] = {{"program", ""},
		     {"removed", ""},
		     {"loader", ": the dynamic loader is never updated"},
		     {"process", ": llvupdate does not update such a process"},
		     {"split-only", ": it was loaded plain"},
		     {"no-library", ": it is not a library that can be updated"}};
	const char *code = text_of(member(reason, "why"), "code");
	FREE_CLEANUP char *path = printable__word(text_of(reason, "path")), *refused = printable__word(code);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i].code, code) == 0)
			return xasprintf("%s (%s%s)", path, text_of(reason, "how"), known[i].words);
	return xasprintf("%s (refused: %s)", path, refused);
}

static char *unit_of(struct json_object *o)
{
	const char *unit = text_of(o, "unit");
	return *unit ? printable__word(unit) : xstrdup("");
}

static void add_lines(line_list *l, const struct record *r)
{
	struct json_object *o = json_tokener_parse(r->json);
	for (size_t i = 0; i < length_of(o, "restart"); i++)
		vec__push(l, (struct line){.unit = unit_of(o),
					   .name = xstrdup(r->name),
					   .what = describe(element(o, "restart", i)),
					   .pid = r->pid});
	json_object_put(o);
}

void report__restart(struct report *r, const struct record *list, size_t n)
{
	line_list l = {0};
	for (size_t i = 0; i < n; i++)
		if (list[i].restart)
			add_lines(&l, &list[i]);
	sort(&l);
	if (l.n)
		report__say(r, "These processes run old code that needs a restart:\n");
	for (size_t i = 0; i < l.n;) {
		const struct line *x = &l.items[i];
		report__say(r, "  %s%s%s pid %d", x->unit, *x->unit ? ": " : "", x->name, x->pid);
		for (i++; i < l.n && compare_words(x, &l.items[i]) == 0; i++)
			report__say(r, ", %d", l.items[i].pid);
		report__say(r, ": %s\n", x->what);
	}
	line_list__free(&l);
}

/* ---- JSON ---- */

/* One line for each process that needs a restart, with its unit as it is. */
static void list_units(const struct record *list, size_t n, line_list *out)
{
	for (size_t i = 0; i < n; i++) {
		if (!list[i].restart)
			continue;
		struct json_object *o = json_tokener_parse(list[i].json);
		vec__push(out, (struct line){.unit = xstrdup(text_of(o, "unit")),
					     .name = xstrdup(""),
					     .what = xstrdup(""),
					     .pid = list[i].pid});
		json_object_put(o);
	}
	sort(out);
}

struct json_object *report__needs_restart(const struct record *list, size_t n)
{
	struct json_object *all = json_object_new_array();
	line_list l = {0};
	list_units(list, n, &l);
	for (size_t i = 0; i < l.n;) {
		const struct line *x = &l.items[i];
		struct json_object *o = json_object_new_object(), *pids = json_object_new_array();
		json_object_object_add(o, "unit", *x->unit ? json_object_new_string(x->unit) : NULL);
		for (; i < l.n && compare_words(x, &l.items[i]) == 0; i++)
			json_object_array_add(pids, json_object_new_int(l.items[i].pid));
		json_object_object_add(o, "processes", pids);
		json_object_array_add(all, o);
	}
	line_list__free(&l);
	return all;
}

/* ---- metrics ---- */

/* How many lines have the same words as the first, whose place is moved on. */
static size_t count_alike(const line_list *l, size_t *at)
{
	size_t first = *at;
	while (*at < l->n && compare_words(&l->items[first], &l->items[*at]) == 0)
		++*at;
	return *at - first;
}

/* As a reader of the metrics sees it. */
static void add_library(line_list *l, const char *path, pid_t pid)
{
	char *what = printable__copy(path);
	for (size_t i = l->n; i-- > 0 && l->items[i].pid == pid;)
		if (strcmp(l->items[i].what, what) == 0) { /* it has it twice (dlmopen(3)), or it was refused */
			free(what);
			return;
		}
	vec__push(l, (struct line){.unit = xstrdup(""), .name = xstrdup(""), .what = what, .pid = pid});
}

static void add_libraries(line_list *l, const struct record *r)
{
	struct json_object *o = json_tokener_parse(r->json);
	for (size_t i = 0; i < length_of(o, "libraries"); i++) {
		struct json_object *library = element(o, "libraries", i);
		enum outcome outcome;
		if (report__outcome_of(text_of(library, "state"), &outcome) && outcome != OUTCOME_CURRENT)
			add_library(l, text_of(library, "path"), r->pid);
	}
	for (size_t i = 0; i < length_of(o, "restart"); i++) {
		struct json_object *reason = element(o, "restart", i);
		if (strcmp(text_of(reason, "kind"), "library") == 0)
			add_library(l, text_of(reason, "path"), r->pid);
	}
	json_object_put(o);
}

static void put_states(FILE *to, const struct record *list, size_t n)
{
	enum { CURRENT, TO_UPDATE, NOT_UPDATED, UNKNOWN, PASSED_OVER, STATES };
	static const char *const names[] = {[CURRENT] = "current",
					    [TO_UPDATE] = "to_update",
					    [NOT_UPDATED] = "not_updated",
					    [UNKNOWN] = "unknown",
					    [PASSED_OVER] = "passed_over"};
	size_t counts[STATES] = {0};
	for (size_t i = 0; i < n; i++) {
		const struct record *r = &list[i];
		bool current = r->outcome == OUTCOME_CURRENT || r->outcome == OUTCOME_SUCCESS;
		counts[r->passed_over                  ? PASSED_OVER
		       : r->unknown                    ? UNKNOWN
		       : r->outcome == OUTCOME_PENDING ? TO_UPDATE
		       : current                       ? CURRENT
						       : NOT_UPDATED]++;
	}
	metrics__family(to, "llvupdate_processes", METRIC_GAUGE,
			"Processes by what an update would do for their libraries.");
	for (size_t i = 0; i < STATES; i++)
		metrics__sample(to, "llvupdate_processes", &(const struct metric_label){"state", names[i]}, 1,
				(double)counts[i]);
}

static void put_libraries(FILE *to, const struct record *list, size_t n)
{
	line_list l = {0};
	for (size_t i = 0; i < n; i++)
		if (list[i].concerns || list[i].restart)
			add_libraries(&l, &list[i]);
	sort(&l);
	metrics__family(to, "llvupdate_outdated_libraries", METRIC_GAUGE,
			"Processes that run old code of a library, by the path of the library.");
	for (size_t i = 0; i < l.n;) {
		const struct metric_label label = {"library", l.items[i].what};
		metrics__sample(to, "llvupdate_outdated_libraries", &label, 1, (double)count_alike(&l, &i));
	}
	line_list__free(&l);
}

static void put_units(FILE *to, const struct record *list, size_t n)
{
	line_list l = {0};
	list_units(list, n, &l);
	for (size_t i = 0; i < l.n; i++)
		printable(l.items[i].unit); /* before they are compared: no label may come twice */
	sort(&l);
	metrics__family(to, "llvupdate_restart_needed", METRIC_GAUGE,
			"Processes with old code that only a restart replaces, by systemd unit.");
	for (size_t i = 0; i < l.n;) {
		const struct metric_label label = {"unit", l.items[i].unit};
		metrics__sample(to, "llvupdate_restart_needed", &label, 1, (double)count_alike(&l, &i));
	}
	line_list__free(&l);
}

void report__metrics(FILE *to, const struct record *list, size_t n, double seconds, double now)
{
	put_states(to, list, n);
	put_libraries(to, list, n);
	put_units(to, list, n);
	metrics__family(to, "llvupdate_preview_timestamp_seconds", METRIC_GAUGE,
			"When the preview was over, in seconds since 1970.");
	metrics__sample(to, "llvupdate_preview_timestamp_seconds", NULL, 0, now);
	metrics__family(to, "llvupdate_preview_duration_seconds", METRIC_GAUGE, "How long the preview took.");
	metrics__sample(to, "llvupdate_preview_duration_seconds", NULL, 0, seconds);
}
