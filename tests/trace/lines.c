/* See lines.h. */
#include "lines.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct json_object *member(struct json_object *e, const char *key)
{
	struct json_object *o = NULL;
	json_object_object_get_ex(e, key, &o);
	return o;
}

static void check(struct json_object *e, const char *line)
{
	cr_assert(e && json_object_is_type(e, json_type_object), "not an event: %s", line);
	const char *phase = json_object_get_string(member(e, "ph"));
	cr_assert(phase && member(e, "name") && member(e, "pid") && member(e, "tid"), "%s", line);
	cr_assert(strcmp(phase, "M") == 0 || member(e, "ts"), "no time: %s", line);
	cr_assert(strcmp(phase, "X") != 0 || (member(e, "dur") && event__number(e, "dur") >= 0), "%s", line);
	cr_assert(strchr("XiM", *phase) && !phase[1], "unknown phase: %s", line);
}

static void check_whole(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = NULL;
	size_t size = 0;
	cr_assert_not_null(f);
	ssize_t n = getdelim(&text, &size, '\0', f);
	fclose(f);
	cr_assert(n > 4 && strcmp(text + n - 2, ",\n") == 0);
	text[n - 2] = ']';
	struct json_object *o = json_tokener_parse(text);
	cr_assert(json_object_is_type(o, json_type_array), "%s: not an array", path);
	json_object_put(o);
	free(text);
}

struct lines lines__read(const char *path)
{
	struct lines l = {0};
	FILE *f = fopen(path, "r");
	char *line = NULL;
	size_t size = 0;
	cr_assert_not_null(f, "no trace %s", path);
	cr_assert(getline(&line, &size, f) == 2 && line[0] == '[', "%s", line);
	for (ssize_t n; (n = getline(&line, &size, f)) > 0;) {
		cr_assert(n > 2 && strcmp(line + n - 2, ",\n") == 0, "line without its end: %s", line);
		line[n - 2] = '\0';
		l.items = reallocarray(l.items, l.n + 1, sizeof(*l.items));
		l.items[l.n] = json_tokener_parse(line);
		check(l.items[l.n++], line);
	}
	free(line);
	fclose(f);
	check_whole(path);
	return l;
}

void lines__free(struct lines *l)
{
	for (size_t i = 0; i < l->n; i++)
		json_object_put(l->items[i]);
	free(l->items);
}

static bool is_named(struct json_object *e, const char *name)
{
	return strcmp(json_object_get_string(member(e, "name")), name) == 0;
}

struct json_object *lines__find(const struct lines *l, const char *name, int tid)
{
	for (size_t i = 0; i < l->n; i++)
		if (is_named(l->items[i], name) && (!tid || json_object_get_int(member(l->items[i], "tid")) == tid))
			return l->items[i];
	return NULL;
}

size_t lines__count(const struct lines *l, const char *name)
{
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++)
		n += is_named(l->items[i], name);
	return n;
}

double event__number(struct json_object *e, const char *key)
{
	return json_object_get_double(member(e, key));
}

const char *event__arg(struct json_object *e, const char *key)
{
	struct json_object *args = member(e, "args"), *o = args ? member(args, key) : NULL;
	return o ? json_object_get_string(o) : "";
}

bool event__within(struct json_object *inner, struct json_object *outer)
{
	double from = event__number(outer, "ts"), to = from + event__number(outer, "dur");
	double start = event__number(inner, "ts"), end = start + event__number(inner, "dur");
	return start >= from - 0.002 && end <= to + 0.002;
}
