/* See overrule.h. */
#include "image/overrule.h"

#include <errno.h>
#include <string.h>

#include "base/printable.h"
#include "base/trusted.h"

/* Shorter ones than lld's 8 bytes are the beginning of one, not a build-id. */
enum { FILE_MAX = 1 << 20, BUILD_ID_MIN = 8 };

struct build_id {
	uint8_t bytes[VAPI_BUILD_ID_MAX];
	uint32_t len;
};

struct overrule {
	struct build_id old, new;
	size_t line;
	const char *reason;
};

struct overrules {
	char *path;
	char *text; /* what reasons point into */
	char *unusable;
	VEC(struct overrule) items;
};

/* ---- reading ---- */

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static char *behind_blanks(char *p)
{
	while (is_blank(*p))
		p++;
	return p;
}

/* Reads a build-id and the blanks behind it; NULL, or what is wrong with it. */
static const char *read_build_id(char **p, struct build_id *out)
{
	size_t n = 0;
	for (; (*p)[n] && !is_blank((*p)[n]); n++) {
		int digit = hex((*p)[n]);
		if (digit < 0)
			return "a build-id is not in hex";
		if (n / 2 >= sizeof(out->bytes))
			return "a build-id is too long";
		out->bytes[n / 2] = (uint8_t)(n % 2 ? out->bytes[n / 2] | digit : digit << 4);
	}
	if (n == 0)
		return "a build-id is missing";
	if (n % 2 || n / 2 < BUILD_ID_MIN)
		return "a build-id is not complete";
	out->len = (uint32_t)(n / 2);
	*p = behind_blanks(*p + n);
	return NULL;
}

static const char *read_line(char *p, struct overrule *out)
{
	for (const char *c = p; *c; c++)
		if (((unsigned char)*c < ' ' && *c != '\t') || *c == 127)
			return "it has a control character";
	const char *wrong = read_build_id(&p, &out->old);
	if (!wrong)
		wrong = read_build_id(&p, &out->new);
	out->reason = p;
	return wrong ? wrong : *p ? NULL : "the reason (who, why) is missing";
}

/* Whatever is not understood may have meant something: then no line counts. */
static void parse(struct overrules *o, size_t len)
{
	size_t line = 1;
	if (memchr(o->text, 0, len)) {
		o->unusable = xasprintf("the overrule file is not used: %s: not a text file", o->path);
		return;
	}
	for (char *p = o->text, *next; p; p = next, line++) {
		next = strchr(p, '\n');
		if (next)
			*next++ = 0;
		p = behind_blanks(p);
		if (!*p || *p == '#')
			continue;
		struct overrule x = {.line = line};
		const char *wrong = read_line(p, &x);
		if (wrong) {
			o->unusable =
			    xasprintf("the overrule file is not used: %s: line %zu: %s", o->path, line, wrong);
			return;
		}
		vec__push(&o->items, x);
	}
}

struct overrules *overrules__read(const char *path, bool asked_for)
{
	struct overrules *o = xcalloc(1, sizeof(*o));
	size_t len = 0;
	o->path = xstrdup(path);
	ERR_CLEANUP struct err *e = trusted__read(path, FILE_MAX, &o->text, &len);
	if (!e)
		parse(o, len);
	else if (asked_for || err__errno(e) != ENOENT)
		o->unusable = xasprintf("the overrule file is not used: %s", err__text(e));
	return o;
}

void overrules__free(struct overrules *o)
{
	if (!o)
		return;
	vec__free(&o->items);
	free(o->path);
	free(o->text);
	free(o->unusable);
	free(o);
}

void overrules__cleanup(struct overrules **o)
{
	overrules__free(*o);
}

/* ---- applying ---- */

/* What the gate for objects in the heap says, and nothing else: state, interface and code are not for
 * anybody to overrule, nor is somebody's wish for proof. */
static bool can_be_overruled(const struct reason *r)
{
	return strcmp(r->code, "layout-changed") == 0 || strcmp(r->code, "layout-unclear") == 0;
}

static bool any_can_be(const struct plan *p)
{
	for (size_t i = 0; i < p->refusals.n; i++)
		if (can_be_overruled(&p->refusals.items[i]))
			return true;
	return false;
}

static bool is(const struct build_id *x, const struct elf_file *e)
{
	return e->build_id_len && build_id__equal(x->bytes, x->len, e->build_id, e->build_id_len);
}

static bool begins(const struct build_id *x, const struct elf_file *e)
{
	return x->len <= e->build_id_len && memcmp(x->bytes, e->build_id, x->len) == 0;
}

static const struct overrule *find(const struct overrules *o, const struct plan *p)
{
	for (size_t i = 0; i < o->items.n; i++)
		if (is(&o->items.items[i].old, p->live) && is(&o->items.items[i].new, p->next))
			return &o->items.items[i];
	return NULL;
}

/* A line that was meant for this pair, but gives less than a build-id. */
static const struct overrule *find_incomplete(const struct overrules *o, const struct plan *p)
{
	for (size_t i = 0; i < o->items.n; i++)
		if (begins(&o->items.items[i].old, p->live) && begins(&o->items.items[i].new, p->next))
			return &o->items.items[i];
	return NULL;
}

/* Takes over `sentence`. */
static void say(struct plan *p, char *sentence)
{
	p->overrule = printable(sentence);
	vec__push(&p->remarks, xstrdup(sentence));
}

static void make_remarks(struct plan *p)
{
	size_t kept = 0;
	for (size_t i = 0; i < p->refusals.n; i++) {
		struct reason *r = &p->refusals.items[i];
		if (!can_be_overruled(r)) {
			p->refusals.items[kept++] = *r;
			continue;
		}
		vec__push(&p->remarks, xasprintf("overruled (%s): %s", r->code, r->text));
		free(r->text);
	}
	p->refusals.n = kept;
}

void overrules__apply(const struct overrules *o, struct plan *p)
{
	if (!any_can_be(p))
		return;
	if (o->unusable) {
		say(p, xstrdup(o->unusable));
		return;
	}
	const struct overrule *x = find(o, p);
	if (x) {
		say(p, xasprintf("overruled by %s line %zu: %s", o->path, x->line, x->reason));
		make_remarks(p);
		p->layout = LAYOUT_OVERRULED;
	} else if ((x = find_incomplete(o, p))) {
		say(p, xasprintf("%s line %zu does not count: its build-ids are not complete", o->path, x->line));
	}
}
