/* What the functions of llu.h share. This room is the outside of the engine: it converts handles and options, and
 * decides nothing.
 *
 * Handles of llu.h are structures of the engine under another name, where one fits: `struct llu_error` is `struct err`,
 * `struct llu_plan` is `struct plan`. */
#ifndef LLU_API_API_H
#define LLU_API_API_H

#include <llu.h>
#include <locale.h>
#include <string.h>

#include "base/error.h"

/* What libllu.so exports; all else is hidden. */
#define LLU_API __attribute__((visibility("default")))

static inline struct llu_error *api__error(struct err *e)
{
	return (struct llu_error *)e;
}

enum llu_error_kind api__kind(enum err_kind k);

/* Copies the options of a caller who may be older than we are, or newer: what he does not know is zero. ERR_USAGE: he
 * has set what we do not know, or no size. `given` may be NULL: all zero. */
MUST_CHECK struct err *api__options(const void *given, void *out, size_t size);

/* Numbers and messages are those of the C locale until the end of the scope, in this thread and in what it forks:
 * `LOCALE_SCOPE;` */
struct api_locale {
	locale_t c, before;
};
struct api_locale api__enter_locale(void);
void api__leave_locale(struct api_locale *l);
#define LOCALE_SCOPE                                                                                                   \
	__attribute__((cleanup(api__leave_locale), unused)) struct api_locale locale_scope_ = api__enter_locale()

#endif
