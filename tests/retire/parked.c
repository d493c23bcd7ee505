/* Old code that somebody will come back to: frames and contexts of the library on stacks that no thread is on. The
 * update succeeds, the old code stays for them and is named, they end right, and the next update clears it away. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "retire.h"

TestSuite(parked, .fini = support__teardown);

static void parked_on(const char *place, const char *reason)
{
	struct scene s = park__begin();

	target__rounds(s.target, 1, 1);
	target__ask(s.target, path_of("park %s", place), "done");
	update_held(&s, 2, reason);
	target__rounds(s.target, 2, 2);
	target__ask(s.target, "resume", "resumed 1");
	target__rounds(s.target, 2, 2);
	update_gone(&s, 3);
	free(target__finish(s.target));
}

Test(parked, on_the_heap)
{
	parked_on("malloc", "\\[heap\\]");
}

Test(parked, in_anonymous_memory)
{
	parked_on("mmap", "anonymous memory");
}

Test(parked, in_shared_memory)
{
	parked_on("shared", "/dev/zero");
}

Test(parked, in_a_memfd)
{
	parked_on("memfd", "/memfd:stacks");
}

Test(parked, in_private_memory_of_a_file)
{
	parked_on("file", "/tmp/");
}

Test(parked, in_thread_local_memory)
{
	parked_on("tls", "parked");
}

Test(parked, in_a_static_array)
{
	parked_on("static", "park_driver|anonymous");
}

/* The array is part of a live frame of a thread. */
Test(parked, on_the_stack_of_the_main_thread)
{
	parked_on("local", "stack");
}

Test(parked, on_the_stack_of_another_thread)
{
	parked_on("thread-local", "");
}

Test(parked, in_thread_local_memory_of_another_thread)
{
	parked_on("thread-tls", "");
}

Test(parked, by_another_thread_on_the_heap)
{
	parked_on("thread-malloc", "");
}

Test(parked, in_what_setjmp_saved)
{
	parked_on("setjmp", "mangled as by setjmp");
}

Test(parked, in_what_the_compilers_setjmp_saved)
{
	parked_on("builtin", "");
}

Test(parked, by_a_switch_of_its_own)
{
	parked_on("switch", "anonymous memory");
}

/* Over several updates the code that is parked in stays, what nobody is in goes. */
Test(parked, over_several_updates)
{
	struct scene s = park__begin();

	target__ask(s.target, "park mmap", "done");
	update_held(&s, 2, "anonymous memory");
	update_held(&s, 3, "anonymous memory");
	update_held(&s, 2, "anonymous memory");
	target__ask(s.target, "resume", "resumed 1");
	update_gone(&s, 3);
	free(target__finish(s.target));
}

/* In an image, not in the file's own code. */
Test(parked, in_code_that_an_update_brought)
{
	struct scene s = park__begin();

	update_gone(&s, 2);
	target__ask(s.target, "park mmap", "done");
	update_held(&s, 3, "anonymous memory");
	target__ask(s.target, "resume", "resumed 2");
	update_gone(&s, 1);
	free(target__finish(s.target));
}
