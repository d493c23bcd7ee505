/* See journal.h. */
#include "report/journal.h"

#include <json-c/json.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/printable.h"
#include "report/report.h"

enum { VALUE_MAX = 2048 }; /* of a value: a datagram is to fit into any socket's buffer */

static const char identifier[] = "llvupdate";

/* ---- sockets ---- */

static bool send_to(const char *path, const char *bytes, size_t n)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	CLOSE_CLEANUP int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || strlen(path) >= sizeof(a.sun_path))
		return false;
	memcpy(a.sun_path, path, strlen(path) + 1);
	return sendto(fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&a, sizeof(a)) == (ssize_t)n;
}

/* ---- the native protocol ---- */

typedef VEC(char) bytes;

static void put(bytes *b, const void *data, size_t n)
{
	for (size_t i = 0; i < n; i++)
		vec__push(b, ((const char *)data)[i]);
}

/* "KEY=value\n"; where the value has a newline: "KEY\n", its length as 64 bits, little-endian, the value, "\n". */
static void put_field(bytes *b, const char *key, const char *value)
{
	size_t n = value ? strnlen(value, VALUE_MAX) : 0;
	if (!value)
		return;
	put(b, key, strlen(key));
	if (memchr(value, '\n', n)) {
		put(b, "\n", 1);
		for (int i = 0; i < 8; i++)
			vec__push(b, (char)((uint64_t)n >> 8 * i));
	} else {
		put(b, "=", 1);
	}
	put(b, value, n);
	put(b, "\n", 1);
}

static void put_number(bytes *b, const char *key, long value)
{
	FREE_CLEANUP char *text = xasprintf("%ld", value);
	put_field(b, key, text);
}

static bool to_journald(const char *path, const struct journal_entry *e)
{
	bytes b = {0};
	put_field(&b, "MESSAGE", e->message);
	put_number(&b, "PRIORITY", e->priority);
	put_number(&b, "SYSLOG_FACILITY", LOG_FAC(LOG_DAEMON));
	put_field(&b, "SYSLOG_IDENTIFIER", identifier);
	put_number(&b, "SYSLOG_PID", getpid());
	put_number(&b, "LLU_PID", e->pid);
	put_field(&b, "LLU_STATE", e->state);
	put_field(&b, "LLU_LIBRARY", e->library);
	put_field(&b, "LLU_OLD_BUILD_ID", e->old_build_id);
	put_field(&b, "LLU_NEW_BUILD_ID", e->new_build_id);
	bool sent = send_to(path, b.items, b.n);
	vec__free(&b);
	return sent;
}

/* ---- syslog ---- */

/* The month's name as in C, whatever the locale. */
static void to_syslog(const char *path, const struct journal_entry *e)
{
	char when[32];
	struct tm tm;
	time_t now = time(NULL);
	strftime(when, sizeof(when), "%b %e %H:%M:%S", localtime_r(&now, &tm));
	FREE_CLEANUP char *words = printable__copy(e->message ? e->message : "");
	FREE_CLEANUP char *line =
	    xasprintf("<%d>%s %s[%d]: %.*s", LOG_DAEMON | e->priority, when, identifier, getpid(), VALUE_MAX, words);
	(void)send_to(path, line, strlen(line));
}

void report__journal_entry(const struct journal_sockets *s, const struct journal_entry *e)
{
	const char *native = s && s->native ? s->native : "/run/systemd/journal/socket";
	const char *syslog_path = s && s->syslog ? s->syslog : "/dev/log";
	if (!to_journald(native, e))
		to_syslog(syslog_path, e);
}

/* ---- outcomes ---- */

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;
	return json_object_object_get_ex(o, key, &v) ? json_object_get_string(v) : NULL;
}

static const char *reason_of(struct json_object *o)
{
	struct json_object *v = NULL;
	const char *text = json_object_object_get_ex(o, "reason", &v) && v ? text_of(v, "text") : NULL;
	return text ? text : "";
}

static int priority_of(enum outcome o)
{
	return o == OUTCOME_SUCCESS ? LOG_NOTICE : o == OUTCOME_FAILURE ? LOG_ERR : LOG_WARNING;
}

static void library_entry(const struct journal_sockets *s, const struct record *r, struct json_object *library)
{
	enum outcome outcome;
	if (!report__outcome_of(text_of(library, "state"), &outcome) || outcome == OUTCOME_CURRENT)
		return;
	const char *state = report__outcome(outcome), *path = text_of(library, "path");
	const char *from = text_of(library, "old_build_id"), *to = text_of(library, "new_build_id");
	FREE_CLEANUP char *printable_path = printable__copy(path ? path : "?");
	FREE_CLEANUP char *words = outcome == OUTCOME_SUCCESS
				       ? xasprintf("%s: process %s pid %d: %s runs build %s (was %s)", state, r->name,
						   r->pid, printable_path, to ? to : "?", from ? from : "?")
				       : xasprintf("%s: process %s pid %d: %s: %s", state, r->name, r->pid,
						   printable_path, reason_of(library));
	const struct journal_entry e = {.priority = priority_of(outcome),
					.pid = r->pid,
					.state = state,
					.library = path,
					.old_build_id = from,
					.new_build_id = to,
					.message = words};
	report__journal_entry(s, &e);
}

void report__journal(const struct journal_sockets *s, const struct record *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct record *r = &list[i];
		struct json_object *o = r->concerns ? json_tokener_parse(r->json) : NULL, *libraries = NULL;
		if (!o)
			continue;
		if (json_object_object_get_ex(o, "libraries", &libraries) && !r->unknown)
			for (size_t k = 0; k < json_object_array_length(libraries); k++)
				library_entry(s, r, json_object_array_get_idx(libraries, k));
		if (r->unknown) {
			FREE_CLEANUP char *words = xasprintf("%s: %s", report__outcome(r->outcome), reason_of(o));
			const struct journal_entry e = {.priority = priority_of(r->outcome),
							.pid = r->pid,
							.state = report__outcome(r->outcome),
							.message = words};
			report__journal_entry(s, &e);
		}
		json_object_put(o);
	}
}
