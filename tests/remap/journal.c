/* Journals: whatever is written can be read again, and what could not is not written. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "remap/journal.h"
#include "support/support.h"

enum { PAGE = 4096, TARGET = 4194304 /* above every PID (proc(5), pid_max) */, MOVES = 4096 };

static void remove_it(void)
{
	journal__remove(TARGET);
	support__teardown();
}

TestSuite(journal, .fini = remove_it, .timeout = 60);

/* An exchange of `n` pages, `each` of them long. */
static struct journal *exchange(size_t n, size_t each)
{
	struct journal *j = journal__new(TARGET, 7, "a program");
	struct journal_library l = {.path = xstrdup("/lib/lib\n%s.so"),
				    .bias = taddr(0x7f0000000000),
				    .header = taddr(0x7f0000400000),
				    .generation = 3,
				    .image = 0x500000,
				    .image_len = PAGE,
				    .shadows = 0x600000,
				    .shadows_len = n * each};
	for (size_t i = 0; i < n; i++) {
		struct journal_move m = {
		    .at = 0x600000 + i * each, .to = i * each, .len = each, .hash = i, .before = xcalloc(1, each)};
		memset(m.before, (int)i, each);
		vec__push(&l.moves, m);
	}
	vec__push(&j->libraries, l);
	struct journal_annex a = {{taddr(0x10000), taddr(0x20000)}, taddr(0x7f0000000000)};
	vec__push(&j->annexes, a);
	j->step = JOURNAL_EXCHANGE;
	return j;
}

static void comes_back(size_t n, size_t each)
{
	struct journal *j = exchange(n, each), *k;
	struct err *e = journal__write(j);
	cr_assert_null(e, "%s", err__text(e));
	k = journal__of(TARGET, 7);
	cr_assert(k, "it cannot be read again");
	cr_assert_eq(k->step, JOURNAL_EXCHANGE);
	cr_assert_eq(k->libraries.n, 1);
	cr_assert_str_eq(k->libraries.items[0].path, j->libraries.items[0].path);
	cr_assert_eq(k->libraries.items[0].moves.n, n);
	for (size_t i = 0; i < n; i++)
		cr_assert_arr_eq(k->libraries.items[0].moves.items[i].before,
				 j->libraries.items[0].moves.items[i].before, each);
	cr_assert_eq(k->annexes.n, 1);
	cr_assert_eq(k->annexes.items[0].range.end.v, 0x20000);
	cr_assert_eq(k->annexes.items[0].bias.v, 0x7f0000000000);
	journal__free(k);
	journal__free(j);
}

Test(journal, comes_back)
{
	comes_back(1, PAGE);
	comes_back(300, PAGE);
}

static void is_refused(size_t n, size_t each)
{
	struct journal *j = exchange(n, each), *before = journal__of(TARGET, 7);
	struct err *e = journal__write(j);
	cr_assert(e && err__kind(e) == ERR_REFUSED, "%zu pages were written", n);
	cr_assert(strstr(err__text(e), "too large to be written down"), "%s", err__text(e));
	err__free(e);
	struct journal *after = journal__of(TARGET, 7);
	cr_assert(before && after, "the journal that was there is gone");
	journal__free(after);
	journal__free(before);
	journal__free(j);
}

/* The process is left alone, then, before anything is exchanged. */
Test(journal, refuses_what_could_not_be_read)
{
	comes_back(1, PAGE);
	is_refused(MOVES + 1, 8);
	is_refused(1, 32 << 20);
}
