/* See error.h. */
#include "base/error.h"

#include "base/alloc.h"
#include "base/printable.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct err {
	enum err_kind kind;
	int errnum;
	char *text;
	char *hint;
	bool passing;
};

static char *vformat(const char *fmt, va_list ap)
{
	char *s = NULL;
	if (vasprintf(&s, fmt, ap) < 0)
		abort();
	return s;
}

struct err *err__new(enum err_kind kind, int errnum, const char *subject, const char *hint, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	FREE_CLEANUP char *why = vformat(fmt, ap);
	va_end(ap);
	struct err *e = xcalloc(1, sizeof(*e));
	e->kind = kind;
	e->errnum = errnum;
	e->text = printable(xasprintf("%s%s%s%s%s", subject ? subject : "", subject ? ": " : "", why,
				      errnum ? ": " : "", errnum ? strerror(errnum) : ""));
	e->hint = hint ? printable__copy(hint) : NULL;
	return e;
}

struct err *err__wrap(struct err *e, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	FREE_CLEANUP char *front = vformat(fmt, ap);
	va_end(ap);
	char *text = printable(xasprintf("%s: %s", front, e->text));
	free(e->text);
	e->text = text;
	return e;
}

struct err *err__as_passing(struct err *e)
{
	e->passing = true;
	return e;
}

bool err__is_passing(const struct err *e)
{
	return e->passing;
}

enum err_kind err__kind(const struct err *e)
{
	return e->kind;
}

int err__errno(const struct err *e)
{
	return e->errnum;
}

const char *err__text(const struct err *e)
{
	return e->text;
}

const char *err__hint(const struct err *e)
{
	return e->hint;
}

const char *err_kind__name(enum err_kind kind)
{
	static const char *const names[] = {
	    [ERR_USAGE] = "usage",     [ERR_UNREADABLE] = "unreadable",
	    [ERR_REFUSED] = "refused", [ERR_PERMISSION] = "permission",
	    [ERR_GONE] = "gone",       [ERR_BUSY] = "busy",
	    [ERR_RETRY] = "retry",     [ERR_SURGERY] = "surgery",
	    [ERR_SYSTEM] = "system",
	};
	return names[kind];
}

void err__free(struct err *e)
{
	if (!e)
		return;
	free(e->text);
	free(e->hint);
	free(e);
}

void err__cleanup(struct err **e)
{
	err__free(*e);
}
