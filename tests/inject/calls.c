/* A thread asleep in a call that only the kernel can continue is watched, in vain, and left. What becomes of calls in
 * whole updates, also of those whose thread is borrowed, is in tests/law3. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/syscall.h>

#include "scene.h"
#include "support/support.h"

TestSuite(calls, .fini = support__teardown, .timeout = 100);

/* It is sent back to sleep for the time that is left. */
Test(calls, given_up_end_at_their_time)
{
	static const char *const names[] = {"poll_time", "nanosleep", "futex_time"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct scene s = scene__start("one_call", names[i], NULL);
		struct hand *h = NULL;
		scene__wait_asleep(&s, 0, SYS_write);
		for (int k = 0; k < 3; k++)
			REFUSED(hand__raise(s.p, &s.place, 20, &h), ERR_RETRY, "timeout");
		const char *line = target__hear(s.target);
		cr_expect_str_eq(line, "ok", "%s: %s", names[i], line);
		scene__close(&s);
	}
}
