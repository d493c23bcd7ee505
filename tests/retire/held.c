/* Old code that stays because it cannot be known, or would be wrong, that it may go: what is said, and nothing
 * happens to the process. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "retire.h"

TestSuite(held, .fini = support__teardown);

static uintptr_t code_of(struct scene *s)
{
	unsigned long code;

	target__say(s->target, "code");
	const char *heard = target__hear(s->target);
	cr_assert_eq(sscanf(heard, "code 0x%lx", &code), 1, "%s", heard);
	return code;
}

/* A debugger's breakpoint, in code that does not run. */
Test(held, code_changed_in_memory)
{
	struct scene s = park__begin();
	uintptr_t last = (code_of(&s) | 0xfff) - 1;
	int fd = open(path_of("/proc/%d/mem", target__pid(s.target)), O_RDWR | O_CLOEXEC);

	cr_assert_eq(pwrite(fd, "\xcc", 1, (off_t)last), 1);
	close(fd);
	update_held(&s, 2, "changed in memory");
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

Test(held, memory_whose_faults_somebody_serves)
{
	struct scene s = park__begin();

	target__ask(s.target, "faults", "done");
	update_held(&s, 2, "userfaultfd");
	target__rounds(s.target, 2, 2);
	target__kill(s.target);
}

/* Is it what calls have left, or a stack in an array? */
Test(held, words_in_a_frame_that_could_hold_a_stack)
{
	struct scene s = park__begin();

	target__ask(s.target, "stale large", "done");
	update_held(&s, 2, "in a large frame of its stack");
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

static void known_to_the_kernel(const char *what)
{
	struct scene s = park__begin();

	target__ask(s.target, path_of("signal %s", what), "done");
	update_held(&s, 2, "signal 12 \\(User defined signal 2\\)");
	target__ask(s.target, "signal none", "done");
	update_gone(&s, 3);
	free(target__finish(s.target));
}

Test(held, handler_of_a_signal)
{
	known_to_the_kernel("handler");
}

Test(held, restorer_of_a_signal)
{
	known_to_the_kernel("restorer");
}

static void forbidden(int nr, const char *reason)
{
	struct scene s = park__begin();

	target__ask(s.target, path_of("forbid %d", nr), "done");
	update_held(&s, 2, reason);
	target__rounds(s.target, 2, 2);
	free(target__finish(s.target));
}

Test(held, filter_forbids_to_ask_for_signal_handlers)
{
	forbidden(SYS_rt_sigaction, "seccomp");
}

Test(held, filter_forbids_to_take_pages_away)
{
	forbidden(SYS_madvise, "seccomp");
}
