/* One error type from bottom to top.
 *
 * An error says what failed, on what, why, and what the user can do. Every function that can fail
 * returns `struct err *`: NULL is success, anything else belongs to the caller, who hands it on or
 * releases it with err__free(). Nobody prints an error but src/report and cli/.
 */
#ifndef LLU_BASE_ERROR_H
#define LLU_BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

/* What kind of failure it is; decides the outcome (and so the exit code) of an operation. */
enum err_kind {
	ERR_USAGE,      /* the command line, or an argument of a function, makes no sense */
	ERR_UNREADABLE, /* a file or a process cannot be read, or is not what it should be */
	ERR_REFUSED,    /* readable, understood, and not safe or not supported: nothing was touched */
	ERR_PERMISSION, /* the caller may not do this */
	ERR_GONE,       /* the process ended */
	ERR_BUSY,       /* somebody else (a debugger, another llvupdate) holds the process */
	ERR_RETRY,      /* not now: a thread is inside, or cannot be stopped; may work later */
	ERR_SURGERY,    /* something went wrong after the target was touched */
	ERR_SYSTEM,     /* the machine refused: no memory, disk full, ... */
};

struct err;

/* Makes an error. `subject` is what it is about (a path, "pid 42 thread 43"); `hint` is what the
 * user can do, or NULL. `errnum` is an errno to be spelled out after the text, or 0. All strings
 * are copied, and made printable (printable.h). */
struct err *err__new(enum err_kind kind, int errnum, const char *subject, const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 5, 6), returns_nonnull, warn_unused_result));

/* The same error with words in front ("words: text"); takes over `e`. */
struct err *err__wrap(struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), returns_nonnull, warn_unused_result));

/* Says of `e` that it is about the moment (a machine that is busy) and not about its subject; where attempts have
 * failed for several reasons, the others are worth more. Returns `e`. */
struct err *err__as_passing(struct err *e) __attribute__((returns_nonnull));
bool err__is_passing(const struct err *e);

enum err_kind err__kind(const struct err *e);
int err__errno(const struct err *e);
/* "subject: text: strerror", one line, no newline; lives as long as the error. */
const char *err__text(const struct err *e);
/* What the user can do, or NULL; lives as long as the error. */
const char *err__hint(const struct err *e);
/* Short stable name of a kind ("refused", "busy", ...), for JSON and logs. */
const char *err_kind__name(enum err_kind kind);
void err__free(struct err *e);

/* Releases an error at the end of a scope: `ERR_CLEANUP struct err *e = ...;` */
void err__cleanup(struct err **e);
#define ERR_CLEANUP __attribute__((cleanup(err__cleanup)))

/* Hands an error up at once. */
#define TRY(expr)                                                                                                      \
	do {                                                                                                           \
		struct err *try_err_ = (expr);                                                                         \
		if (try_err_)                                                                                          \
			return try_err_;                                                                               \
	} while (0)

#define MUST_CHECK __attribute__((warn_unused_result))

#endif
