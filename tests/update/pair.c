/* Two libraries of one package; see pair.h. */
#include "pair.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { FAR = 1000000, ROUNDS = 2 }; /* FAR: the lower's files get other names than the upper's */

static struct pair prepare(const char *lower)
{
	struct pair p = {.upper = scene__prepare("libupper.so.1", fixture_library("v1", "libupper.so.1"), BY_RENAME)};

	p.lower = (struct scene){.dir = p.upper.dir, .library = "liblower.so.1", .how = BY_RENAME, .generation = FAR};
	scene__install(&p.lower, lower);
	return p;
}

static void start(struct pair *p, const char *const argv[])
{
	scene__start(&p->upper, argv);
	p->target = p->lower.target = p->upper.target;
	target__rounds(p->target, ROUNDS, 1);
}

struct pair pair__begin(void)
{
	return pair__begin_on("v1");
}

struct pair pair__begin_on(const char *lower)
{
	struct pair p = prepare(lower);

	start(&p, (const char *const[]){FIXTURE_DIR "/pair_driver", NULL});
	return p;
}

struct pair pair__begin_busy(bool apart)
{
	struct pair p = prepare("v1");

	start(&p, (const char *const[]){FIXTURE_DIR "/pair_driver", "2", apart ? "apart" : NULL, NULL});
	return p;
}

struct pair pair__begin_with(struct scene *third, const char *library)
{
	struct pair p = prepare("v1");

	*third = (struct scene){.dir = p.upper.dir, .library = library, .how = BY_RENAME, .generation = 2 * FAR};
	scene__install(third, "v1");
	start(&p, (const char *const[]){"/usr/bin/env", path_of("LD_PRELOAD=%s/lib/%s", third->dir, library),
					FIXTURE_DIR "/pair_driver", NULL});
	third->target = p.target;
	return p;
}

void pair__install(struct pair *p, const char *upper, const char *lower)
{
	if (upper)
		scene__install(&p->upper, upper);
	if (lower)
		scene__install(&p->lower, lower);
}

void pair__update(struct pair *p, int version)
{
	cr_assert(scene__preview_lists(&p->lower), "llvupdate -P does not list liblower");
	scene__update(&p->upper);
	cr_assert(!scene__preview_lists(&p->lower), "llvupdate -P still lists liblower");
	target__rounds(p->target, ROUNDS, version);
}

struct result pair__llvupdate(const struct pair *p, const char *const extra[])
{
	return scene__llvupdate(&p->upper, extra);
}

void pair__refuse(struct pair *p, const char *reason, int version)
{
	scene__refuse(&p->upper, reason);
	target__rounds(p->target, ROUNDS, version);
}

void pair__finish(struct pair *p)
{
	free(target__finish(p->target));
}
