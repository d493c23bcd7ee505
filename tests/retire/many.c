/* Hundreds of updates in one process leave nothing behind. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "retire.h"

TestSuite(many, .fini = support__teardown);

struct size {
	long vm, rss;
	size_t mappings, files, threads;
};

static struct size size_of(const struct scene *s)
{
	pid_t pid = target__pid(s->target);

	return (struct size){proc_number(pid, "status", "VmSize:"), proc_number(pid, "status", "VmRSS:"),
			     proc_mappings(pid), proc_entries(pid, "fd"), proc_entries(pid, "task")};
}

static void update(struct scene *s, int version, bool gone)
{
	if (gone)
		update_gone(s, version);
	else
		free(update_to(s, version, 0));
}

static void many(const char *name, int versions, int updates, bool gone)
{
	struct scene s = scene__begin(name, "v1");
	struct size early, late;

	target__rounds(s.target, 2, 1);
	for (int i = 1; i <= 2 * versions; i++)
		update(&s, i % versions + 1, gone);
	early = size_of(&s);
	for (int i = 2 * versions + 1; i <= updates; i++)
		update(&s, i % versions + 1, gone);
	late = size_of(&s);
	target__rounds(s.target, 2, updates % versions + 1);
	cr_expect_leq(late.mappings, early.mappings + 4, "%zu mappings, %zu before", late.mappings, early.mappings);
	cr_expect_leq(late.vm, early.vm + 256, "%ld KB, %ld before", late.vm, early.vm);
	cr_expect_leq(late.rss, early.rss + 512, "%ld KB resident, %ld before", late.rss, early.rss);
	cr_expect_eq(late.files, early.files, "%zu files, %zu before", late.files, early.files);
	cr_expect_eq(late.threads, early.threads, "%zu threads, %zu before", late.threads, early.threads);
	free(target__finish(s.target));
}

Test(many, updates_back_and_forth)
{
	many("state", 2, SANITIZED ? 20 : 100, true);
}

Test(many, updates_of_three_builds)
{
	many("park", 3, SANITIZED ? 20 : 100, true);
}

/* Builds that bring objects of their own; functions that only one of them has hold its code. */
Test(many, updates_with_objects_that_come_and_go)
{
	many("statics", 2, SANITIZED ? 20 : 60, false);
}
