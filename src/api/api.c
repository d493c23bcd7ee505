/* See api.h. */
#include "api/api.h"

#include "base/printable.h"
#include "report/report.h"

LLU_API const char *llu_version(void)
{
	return LLU_VERSION;
}

/* ---- errors ---- */

static const struct err *inside(const struct llu_error *e)
{
	return (const struct err *)e;
}

enum llu_error_kind api__kind(enum err_kind k)
{
	static const enum llu_error_kind kinds[] = {
	    [ERR_USAGE] = LLU_ERROR_USAGE,     [ERR_UNREADABLE] = LLU_ERROR_UNREADABLE,
	    [ERR_REFUSED] = LLU_ERROR_REFUSED, [ERR_PERMISSION] = LLU_ERROR_PERMISSION,
	    [ERR_GONE] = LLU_ERROR_GONE,       [ERR_BUSY] = LLU_ERROR_BUSY,
	    [ERR_RETRY] = LLU_ERROR_RETRY,     [ERR_SURGERY] = LLU_ERROR_SURGERY,
	    [ERR_SYSTEM] = LLU_ERROR_SYSTEM,
	};
	return kinds[k];
}

LLU_API enum llu_error_kind llu_error__kind(const struct llu_error *e)
{
	return api__kind(err__kind(inside(e)));
}

LLU_API const char *llu_error__text(const struct llu_error *e)
{
	return err__text(inside(e));
}

LLU_API const char *llu_error__hint(const struct llu_error *e)
{
	return err__hint(inside(e));
}

LLU_API void llu_error__print(const struct llu_error *e, const char *command, FILE *to)
{
	report__error(to, command, inside(e));
}

LLU_API void llu_error__free(struct llu_error *e)
{
	err__free((struct err *)e);
}

/* ---- options ---- */

struct err *api__options(const void *given, void *out, size_t size)
{
	size_t theirs = 0;
	memset(out, 0, size);
	if (!given)
		return NULL;
	memcpy(&theirs, given, sizeof(theirs));
	if (theirs < sizeof(theirs))
		return err__new(ERR_USAGE, 0, NULL, NULL, "the options do not say their size");
	memcpy(out, given, theirs < size ? theirs : size);
	for (size_t i = size; i < theirs; i++)
		if (((const char *)given)[i])
			return err__new(ERR_USAGE, 0, NULL, "use a newer libllu",
					"an option is set that libllu " LLU_VERSION " does not have");
	return NULL;
}

/* ---- locale ---- */

struct api_locale api__enter_locale(void)
{
	struct api_locale l = {.c = newlocale(LC_ALL_MASK, "C", (locale_t)0)};
	l.before = l.c ? uselocale(l.c) : (locale_t)0;
	return l;
}

void api__leave_locale(struct api_locale *l)
{
	if (!l->c)
		return;
	uselocale(l->before);
	freelocale(l->c);
}
