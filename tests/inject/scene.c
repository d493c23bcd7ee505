/* See scene.h. */
#include "scene.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "support/support.h"

enum { PATIENCE_MS = 10000 };

static void nap(void)
{
	nanosleep(&(struct timespec){0, 200000}, NULL);
}

struct scene scene__start(const char *name, ...)
{
	const char *argv[16] = {path_of("%s/%s", FIXTURE_DIR, name)};
	va_list ap;
	va_start(ap, name);
	for (size_t i = 1; i < 15 && (argv[i] = va_arg(ap, const char *)); i++)
		;
	va_end(ap);

	struct scene s = {.target = target__start(argv, NULL)};
	const char *line = target__hear(s.target);
	unsigned long pads = 0;
	unsigned long scratch = 0;
	cr_assert_eq(sscanf(line, "pads=%lx scratch=%lx", &pads, &scratch), 2, "the target says: %s", line);
	s.place = (struct hand_place){.pads = {pads}, .scratch = {scratch}, .scratch_len = HAND_SCRATCH_MIN};
	OK(process__open(target__pid(s.target), &s.p));

	uint8_t code[ARCH_PADS_SIZE];
	const struct arch_pads_args args = {.table = pads, .record = hand_place__record(&s.place).v};
	arch_pads__write(code, pads, &args);
	OK(process__write(s.p, s.place.pads, code, sizeof(code)));
	return s;
}

void scene__close(struct scene *s)
{
	process__close(s->p);
	s->p = NULL;
}

struct thread_view scene__wait_asleep(const struct scene *s, pid_t tid, int64_t not_in)
{
	int64_t deadline = support__now_ms() + PATIENCE_MS;
	struct thread_view v;
	do {
		OK(process__look(s->p, tid ? tid : process__pid(s->p), &v));
		if (v.at_rest && v.state == THREAD_SLEEPING && v.nr >= 0 && v.nr != not_in)
			return v;
		nap();
	} while (support__now_ms() < deadline);
	cr_assert_fail("the thread does not fall asleep");
	return v;
}

size_t scene__threads(const struct scene *s)
{
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0;
	OK(process__threads(s->p, &tids, &n));
	return n;
}

void scene__wait_threads(const struct scene *s, size_t n)
{
	int64_t deadline = support__now_ms() + PATIENCE_MS;
	size_t have = 0;
	pid_t tracer = 0;
	do {
		have = scene__threads(s);
		OK(process__tracer(s->p, &tracer));
		if (have == n && !tracer)
			return;
		nap();
	} while (support__now_ms() < deadline);
	cr_assert_fail("the process has %zu threads instead of %zu, its tracer is %d", have, n, tracer);
}

void scene__ok(struct err *e, const char *file, int line)
{
	if (!e)
		return;
	cr_assert_fail("%s:%d: %s", file, line, err__text(e));
}

void scene__refused(struct err *e, enum err_kind kind, const char *words, const char *file, int line)
{
	cr_assert(e, "%s:%d: no error, but it should be refused: %s", file, line, words);
	cr_assert_eq(err__kind(e), kind, "%s:%d: is '%s', should be '%s': %s", file, line, err_kind__name(err__kind(e)),
		     err_kind__name(kind), err__text(e));
	cr_assert(strstr(err__text(e), words), "%s:%d: '%s' is not in: %s", file, line, words, err__text(e));
	err__free(e);
}
