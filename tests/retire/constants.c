/* Constants of older builds that a program still knows: they stay readable when room gets scarce. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "retire.h"

TestSuite(constants, .fini = support__teardown);

/* So many that every place of the window has been used, all by other builds. */
enum { UPDATES = 24 };

static void kept(const char *where)
{
	struct scene s = park__begin();

	target__rounds(s.target, 1, 1);
	update_gone(&s, 2);
	target__ask(s.target, path_of("keep %s", where), "done");
	for (int i = 0; i < UPDATES; i++) {
		free(update_to(&s, i % 2 ? 1 : 3, 0));
		if (!strcmp(where, "heap"))
			target__ask(s.target, "kept", "text of build 2");
	}
	target__ask(s.target, "kept", "text of build 2");
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}

Test(constants, known_to_the_heap)
{
	kept("heap");
}

Test(constants, known_to_the_stack_of_a_sleeping_thread)
{
	kept("stack");
}

Test(constants, known_to_a_register_of_a_sleeping_thread)
{
	kept("register");
}
