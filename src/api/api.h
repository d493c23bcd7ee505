/* What the functions of llu.h share. This room is the outside of the engine: it converts handles and options, and
 * decides nothing.
 *
 * `struct llu_error` is `struct err`; all other handles are structures of this room. */
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

/* May this program use the engine? ERR_REFUSED: it runs with more rights than who started it, whose environment we
 * would follow; or the decoder that it has brought is not the one that we were compiled for. */
MUST_CHECK struct err *api__check_program(void);
/* And may it have processes forked, which trace others? ERR_REFUSED: it has several threads, or no files 0 to 2. */
MUST_CHECK struct err *api__check_forking(void);

/* Copies the options of a caller who may be older than we are, or newer: what he does not know is zero. ERR_USAGE: he
 * has set what we do not know, or `size` is none. `given` may be NULL: all zero. */
MUST_CHECK struct err *api__options(const void *given, void *out, size_t size);

/* Is what is reserved zero? Else ERR_USAGE. */
MUST_CHECK struct err *api__reserved(const unsigned char *reserved, size_t n);

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
