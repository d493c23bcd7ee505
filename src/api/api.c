/* See api.h. */
#include "api/api.h"

#include <Zydis/Zydis.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inject/clock.h"
#include "report/report.h"

enum {
	LEAVING_MS = 50,
	SIZE_MAX_ = 4096, /* of options, however many there will be */
};

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

/* ---- the program ---- */

struct err *api__check_program(void)
{
	if (getauxval(AT_SECURE))
		return err__new(ERR_REFUSED, 0, NULL, "have a service manager or sudo(8) start it",
				"this program has more rights than who has started it (set-user-ID, set-group-ID or "
				"file capabilities)");
	/* its symbols have no versions: the first library that has them wins, or the program itself */
	if (ZydisGetVersion() != ZYDIS_VERSION)
		return err__new(ERR_REFUSED, 0, NULL, "link this program with the same Zydis as libllu",
				"the decoder in this program is another one than libllu was made with");
	return NULL;
}

/* The links of a folder of threads are theirs and two more (fs/proc/base.c, proc_task_getattr()). */
static bool has_threads(void)
{
	struct stat st;
	return stat("/proc/self/task", &st) == 0 && st.st_nlink > 3;
}

struct err *api__check_forking(void)
{
	/* a thread that was joined is listed for a moment still (kernel/exit.c: its memory is told before it is
	 * unhashed) */
	for (unsigned ms = 0; has_threads(); ms++) {
		if (ms == LEAVING_MS)
			return err__new(ERR_REFUSED, 0, NULL,
					"start a program that has one thread, or llvupdate --json",
					"this program has several threads, and processes would be forked from it");
		clock_pause(1);
	}
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			return err__new(ERR_REFUSED, 0, NULL, "open /dev/null in its place",
					"file descriptor %d of this program is closed", fd);
	return NULL;
}

/* ---- options ---- */

struct err *api__options(const void *given, void *out, size_t size)
{
	size_t theirs = 0;
	memset(out, 0, size);
	if (!given)
		return NULL;
	memcpy(&theirs, given, sizeof(theirs));
	if (theirs < sizeof(theirs) || theirs > SIZE_MAX_)
		return err__new(ERR_USAGE, 0, NULL, NULL, "the options do not say their size");
	memcpy(out, given, theirs < size ? theirs : size);
	for (size_t i = size; i < theirs; i++)
		if (((const char *)given)[i])
			return err__new(ERR_USAGE, 0, NULL, "use a newer libllu",
					"an option is set that libllu " LLU_VERSION " does not have");
	return NULL;
}

struct err *api__reserved(const unsigned char *reserved, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (reserved[i])
			return err__new(ERR_USAGE, 0, NULL, NULL, "what is reserved is not zero");
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
