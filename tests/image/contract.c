/* Private interfaces between libraries of one package (image/contract.h): libabove moves, libbelow stays, and the other
 * way round. */
#include <criterion/criterion.h>
#include <string.h>

#include "image/contract.h"
#include "image/unprepared.h"
#include "support/support.h"

TestSuite(contract, .fini = support__teardown, .timeout = 60);

#define OK(e)                                                                                                          \
	do {                                                                                                           \
		struct err *err_ = (e);                                                                                \
		cr_assert_null(err_, "%s", err_ ? err__text(err_) : "");                                               \
	} while (0)

static struct elf_file *read_fixture(const char *variant, const char *name)
{
	struct elf_file *e = NULL;
	OK(elf_file__read(path_of(FIXTURE_DIR "/lib/%s/lib%s.so.1", variant, name), &e));
	return e;
}

struct planned {
	struct elf_file *vapi, *next;
	struct plan *plan;
};

static struct planned plan(const char *name, const char *old, const char *new)
{
	struct planned p = {.next = read_fixture(new, name)};
	OK(unprepared__vapi(read_fixture(old, name), &p.vapi));
	OK(plan__make(p.vapi, p.vapi, NULL, p.next, &p.plan));
	return p;
}

static void forget(struct planned *p)
{
	plan__free(p->plan);
	elf_file__free(p->next);
	elf_file__free(p->vapi);
}

/* libabove goes from its first build to `variant`, made for a libbelow of that version; the first one stays. NULL: it
 * may. */
static void uses(const char *variant, const char *below, const char *refusal)
{
	struct planned p = plan("above", "above-1", variant);
	struct elf_file *stays = read_fixture("v1", "below"), *made_for = read_fixture(below, "below");
	struct err *e = contract__check_uses(p.plan, stays, made_for);
	if (refusal)
		cr_expect(e && err__kind(e) == ERR_REFUSED && strstr(err__text(e), refusal), "%s, %s: %s", variant,
			  below, e ? err__text(e) : "no refusal");
	else
		cr_expect_null(e, "%s, %s: %s", variant, below, err__text(e));
	err__free(e);
	elf_file__free(made_for);
	elf_file__free(stays);
	forget(&p);
}

Test(contract, what_changed_code_uses_must_be_the_same)
{
	uses("above-same", "v2", NULL);
	uses("above-changed", "v2",
	     "below_changed of libbelow.so.1, which stays as it is in this process and which new "
	     "code uses, changed");
	uses("above-calls", "v2",
	     "below_calls of libbelow.so.1, which stays as it is in this process and which new code "
	     "uses, calls below_changed, which changed");
	uses("above-table", "v2", "the function at 0x20 in below_table of libbelow.so.1");
	uses("above-object", "v2", NULL);
	uses("above-object", "v3",
	     "below_object of libbelow.so.1, which stays as it is in this process and which new "
	     "code uses, has another size in the new build");
}

Test(contract, nothing_is_asked_of_the_same_build)
{
	uses("above-changed", "v1", NULL);
	uses("above-calls", "v1", NULL);
	uses("above-table", "v1", NULL);
}

/* above_same() did not change: that it calls what did is as it always was. */
Test(contract, what_did_not_change_may_use_anything)
{
	uses("above-1", "v2", NULL);
}

Test(contract, what_changed_must_not_be_used_by_what_stays)
{
	struct planned p = plan("below", "v1", "v2");
	struct elf_file *above = read_fixture("above-1", "above"), *below = read_fixture("v1", "below");
	struct err *e = contract__check_gives(p.plan, above);
	cr_expect(e && strstr(err__text(e), "below_changed changed, and libabove.so.1"), "%s",
		  e ? err__text(e) : "no refusal");
	err__free(e);
	OK(contract__check_gives(p.plan, below));
	elf_file__free(below);
	elf_file__free(above);
	forget(&p);
}

Test(contract, changes_are_counted)
{
	struct elf_file *a = read_fixture("v1", "below"), *b = read_fixture("v2", "below");
	size_t n;
	OK(contract__count_changed(a, b, &n));
	cr_expect_eq(n, 1);
	OK(contract__count_changed(a, a, &n));
	cr_expect_eq(n, 0);
	elf_file__free(a);
	elf_file__free(b);
}
