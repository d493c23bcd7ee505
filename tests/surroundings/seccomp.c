/* Processes with seccomp filters: updated where the filter plainly allows what an update does, else refused before
 * anything is touched. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "place.h"

TestSuite(seccomp, .init = place__want_root, .fini = support__teardown);

static void refuse(const char *filter, const char *call)
{
	struct place p = place__begin();

	place__tell(&p, filter);
	place__refuse(&p, 2, 3, path_of("its seccomp filter does not allow the system call %s", call));
	/* what the process may still do, an update has not spoilt */
	target__rounds(p.s.target, 3, 1);
	target__kill(p.s.target);
	support__teardown();
}

static void allow(const char *filter)
{
	struct place p = place__begin();

	place__tell(&p, filter);
	place__update(&p, 2);
	place__update(&p, 1);
	place__end(&p);
	support__teardown();
}

Test(seccomp, every_call_of_an_update_is_asked_for)
{
	static const char *const calls[] = {"clone",  "openat", "mmap", "mprotect",    "mremap",
					    "munmap", "close",  "exit", "rt_sigreturn"};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		refuse(path_of("filter errno %s", calls[i]), calls[i]);
}

/* To try whether a call is allowed would kill the process, or leave it waiting for a listener's answer. */
Test(seccomp, no_action_but_allowing_will_do)
{
	static const char *const actions[] = {"kill", "thread", "trap", "notify", "trace"};

	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
		refuse(path_of("filter %s mremap", actions[i]), "mremap");
}

Test(seccomp, a_call_that_is_logged_is_allowed)
{
	allow("filter log mremap");
}

Test(seccomp, a_list_without_what_is_needed)
{
	refuse("filter little", "clone");
}

Test(seccomp, a_list_with_what_is_needed)
{
	allow("filter hand");
}

Test(seccomp, a_filter_that_allows_all)
{
	allow("filter allow");
}

Test(seccomp, the_default_profile_of_containers)
{
	allow("filter docker");
}

/* Arguments decide: an update never asks for memory that is writable and executable, nor makes any executable. */
Test(seccomp, memory_deny_write_execute)
{
	allow("filter mdwe");
}

Test(seccomp, no_new_executable_memory_at_all)
{
	refuse("filter noexec", "mmap");
}

Test(seccomp, several_filters)
{
	struct place p = place__begin();

	place__tell(&p, "filter docker");
	place__tell(&p, "filter mdwe");
	place__tell(&p, "filter hand");
	place__update(&p, 2);
	place__end(&p);
}

Test(seccomp, one_of_several_forbids)
{
	struct place p = place__begin();

	place__tell(&p, "filter allow");
	place__tell(&p, "filter errno mmap");
	place__tell(&p, "filter log mremap");
	place__refuse(&p, 2, 3, "its seccomp filter does not allow the system call mmap");
	place__end(&p);
}

Test(seccomp, strict_mode)
{
	struct place p = place__begin();

	place__tell(&p, "strict");
	place__refuse(&p, 2, 3, "strict seccomp mode");
	target__kill(p.s.target);
}

/* The hand is a child of the thread that is borrowed, and has its filter. */
Test(seccomp, a_thread_without_a_filter_is_chosen)
{
	struct place p = place__begin();

	place__tell(&p, "thread kill clone");
	place__update(&p, 2);
	place__update(&p, 1);
	place__end(&p);
}

Test(seccomp, the_first_thread_has_a_filter_and_another_has_not)
{
	struct place p = place__begin();

	place__tell(&p, "thread allow");
	place__tell(&p, "filter kill clone");
	place__update(&p, 2);
	place__update(&p, 1);
	place__end(&p);
}

Test(seccomp, all_threads_have_different_filters_and_none_will_do)
{
	struct place p = place__begin();

	place__tell(&p, "thread kill mremap");
	place__tell(&p, "thread trap exit");
	place__tell(&p, "filter kill mmap");
	place__refuse(&p, 2, 3, "its seccomp filter does not allow the system call (mmap|mremap|exit)");
	place__end(&p);
}
