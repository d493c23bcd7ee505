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

static long most(long a, long b)
{
	return a > b ? a : b;
}

/* What is kept for lack of proof goes when its room is needed, so the size goes up and down: the most that it was. */
static void add_size(struct size *largest, struct size now)
{
	largest->vm = most(largest->vm, now.vm);
	largest->rss = most(largest->rss, now.rss);
	largest->mappings = (size_t)most((long)largest->mappings, (long)now.mappings);
	largest->files = (size_t)most((long)largest->files, (long)now.files);
	largest->threads = (size_t)most((long)largest->threads, (long)now.threads);
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
	struct size early = {0}, late = {0};

	target__rounds(s.target, 2, 1);
	for (int i = 1; i <= updates; i++) {
		update(&s, i % versions + 1, gone);
		add_size(i <= updates / 2 ? &early : &late, size_of(&s));
	}
	target__rounds(s.target, 2, updates % versions + 1);
	cr_expect_leq(late.mappings, early.mappings + 4, "%zu mappings, %zu before", late.mappings, early.mappings);
	cr_expect_leq(late.vm, early.vm + 256, "%ld KB, %ld before", late.vm, early.vm);
	cr_expect_leq(late.rss, early.rss + 512, "%ld KB resident, %ld before", late.rss, early.rss);
	cr_expect_leq(late.files, early.files, "%zu files, %zu before", late.files, early.files);
	cr_expect_leq(late.threads, early.threads, "%zu threads, %zu before", late.threads, early.threads);
	free(target__finish(s.target));
}

Test(many, updates_back_and_forth)
{
	many("state", 2, SANITIZED ? 24 : 200, true);
}

Test(many, updates_of_three_builds)
{
	many("park", 3, SANITIZED ? 24 : 200, true);
}

/* Builds that bring objects of their own; functions that only one of them has hold its code. */
Test(many, updates_with_objects_that_come_and_go)
{
	many("statics", 2, SANITIZED ? 24 : 80, false);
}
