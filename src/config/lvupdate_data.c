/* See lvupdate_data.h. */
#include "config/lvupdate_data.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/trusted.h"

/* Of words that are not understood, messages show this much. */
enum { FILE_MAX = 1 << 16, SHOWN_MAX = 40 };

enum attribute { LLU, RETRIES, TIMEOUT, N_ATTRIBUTES };
static const char *const names[N_ATTRIBUTES] = {[LLU] = "llu", [RETRIES] = "retries", [TIMEOUT] = "timeout"};

struct parser {
	const char *path;
	size_t line;
	size_t stanza_line;           /* where the stanza begins; 0: not yet */
	size_t said_at[N_ATTRIBUTES]; /* the line; 0: not yet */
	struct lvupdate_data *out;
};

__attribute__((format(printf, 2, 3), warn_unused_result)) static struct err *wrong(const struct parser *p,
										   const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	struct err *e = err__new(ERR_USAGE, 0, p->path, "see lvupdate.data(5)", "line %zu: %s", p->line,
				 n < 0 ? "not understood" : text);
	if (n >= 0)
		free(text);
	return e;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Cuts off the blanks at both ends. */
static char *trimmed(char *s)
{
	while (is_blank(*s))
		s++;
	size_t n = strlen(s);
	while (n > 0 && is_blank(s[n - 1]))
		n--;
	s[n] = 0;
	return s;
}

/* Decimal digits and nothing else. */
static bool parse_number(const char *s, unsigned max, unsigned *out)
{
	unsigned n = 0;
	if (!*s)
		return false;
	for (; *s; s++) {
		if (!isdigit((unsigned char)*s))
			return false;
		n = n * 10 + (unsigned)(*s - '0');
		if (n > max)
			return false;
	}
	*out = n;
	return n >= 1;
}

static struct err *set_number(const struct parser *p, enum attribute a, const char *value, unsigned max, unsigned *out)
{
	if (parse_number(value, max, out))
		return NULL;
	return wrong(p, "%s is a number from 1 to %u, not \"%.*s\"", names[a], max, SHOWN_MAX, value);
}

static struct err *set(const struct parser *p, enum attribute a, const char *value)
{
	switch (a) {
	case RETRIES:
		return set_number(p, a, value, 10, &p->out->retries);
	case TIMEOUT:
		return set_number(p, a, value, 300, &p->out->timeout_s);
	default:
		if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
			return wrong(p, "llu is yes or no, not \"%.*s\"", SHOWN_MAX, value);
		p->out->llu = strcmp(value, "yes") == 0;
		return NULL;
	}
}

static struct err *attribute(struct parser *p, char *s)
{
	char *equals = strchr(s, '=');
	if (!equals)
		return wrong(p, "\"%.*s\" is no attribute (NAME = VALUE)", SHOWN_MAX, trimmed(s));
	*equals = 0;
	const char *name = trimmed(s);
	if (!p->stanza_line)
		return wrong(p, "the attribute \"%.*s\" is in no stanza", SHOWN_MAX, name);
	for (enum attribute a = 0; a < N_ATTRIBUTES; a++) {
		if (strcmp(name, names[a]) != 0)
			continue;
		if (p->said_at[a])
			return wrong(p, "%s was said already in line %zu", name, p->said_at[a]);
		p->said_at[a] = p->line;
		return set(p, a, trimmed(equals + 1));
	}
	return wrong(p, "unknown attribute \"%.*s\"", SHOWN_MAX, name);
}

static struct err *stanza(struct parser *p, char *s)
{
	char *name = trimmed(s);
	size_t n = strlen(name);
	if (name[n - 1] != ':')
		return wrong(p, "\"%.*s\" is no stanza (NAME:); attributes are indented", SHOWN_MAX, name);
	name[n - 1] = 0;
	if (strcmp(name, "llvupdate") != 0)
		return wrong(p, "unknown stanza \"%.*s\"", SHOWN_MAX, name);
	if (p->stanza_line)
		return wrong(p, "the stanza %s was there already in line %zu", name, p->stanza_line);
	p->stanza_line = p->line;
	return NULL;
}

/* `s` ends with a zero byte, of which there is no other within its `len` bytes in a text. */
static struct err *parse_line(struct parser *p, char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (((unsigned char)s[i] < ' ' && s[i] != '\t') || s[i] == 127)
			return wrong(p, "it has a control character (code %d)", s[i]);
	const char *first = s + strspn(s, " \t");
	if (!*first || *first == '*' || *first == '#')
		return NULL;
	return first == s ? stanza(p, s) : attribute(p, s);
}

struct err *lvupdate_data__read(const char *path, struct lvupdate_data *out)
{
	FREE_CLEANUP char *text = NULL;
	size_t len = 0;
	struct parser p = {.path = path, .out = out};
	*out = (struct lvupdate_data){.llu = false, .retries = 3, .timeout_s = 30};
	struct err *e = trusted__read(path, FILE_MAX, &text, &len);
	if (e && err__errno(e) == ENOENT) {
		err__free(e);
		return NULL;
	}
	TRY(e);
	for (char *s = text, *end = text + len; s < end;) {
		char *newline = memchr(s, '\n', (size_t)(end - s));
		size_t n = (size_t)((newline ? newline : end) - s);
		s[n] = 0;
		p.line++;
		TRY(parse_line(&p, s, n));
		s += n + 1;
	}
	return NULL;
}
