/* Reading a trace, line by line, as the Trace Event Format has it. */
#ifndef LLU_TESTS_TRACE_LINES_H
#define LLU_TESTS_TRACE_LINES_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

struct lines {
	struct json_object **items; /* one event each */
	size_t n;
};

/* Fails the test unless it is "[" and events, each of which has what its phase wants, with the closing bracket
 * missing; and unless it is one JSON array when that is put there. */
struct lines lines__read(const char *path);
void lines__free(struct lines *l);

/* The first event of that name (and of that thread, if not 0), or NULL. */
struct json_object *lines__find(const struct lines *l, const char *name, int tid);
size_t lines__count(const struct lines *l, const char *name);

double event__number(struct json_object *e, const char *key);
/* A text of its `args`, or "". */
const char *event__arg(struct json_object *e, const char *key);
/* Does `inner` lie within `outer` in time? */
bool event__within(struct json_object *inner, struct json_object *outer);

#endif
