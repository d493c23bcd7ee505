/* Frames of the signal code are known by their looks, and little else is. */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "inject/arch.h"

enum { LOOKED_AT = 256, UC_STRICT = 6, EFLAGS = 22, CS = 23 }; /* words of struct ucontext */

static uint64_t words[LOOKED_AT], interrupted, at;

/* The context that the kernel wrote is what rt_sigreturn(2) will read. */
static void handler(int signal, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;
	(void)signal, (void)info;
	memcpy(words, context, sizeof(words));
	at = (uint64_t)context;
	interrupted = (uint64_t)uc->uc_mcontext.gregs[REG_RSP];
}

/* On a stack of its own, so that what was interrupted is on another one: here, below it. */
static void take_a_signal(void)
{
	static uint8_t stack[65536] __attribute__((aligned(64)));
	stack_t alternative = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	cr_assert_eq(sigaltstack(&alternative, NULL), 0);
	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	cr_assert_eq(raise(SIGUSR1), 0);
}

static bool spot(uint64_t from)
{
	taddr_t sp;
	return arch_sigframe__spot(words, LOOKED_AT, taddr(from), &sp);
}

Test(sigframe, one_of_the_kernel_is_spotted)
{
	take_a_signal();
	/* the stack of a program lies above its data: the frame is looked at as if it lay above that */
	cr_assert(interrupted > at);
	cr_expect(spot(interrupted + 4096));
	cr_expect(!spot(at), "what was interrupted lies above: it is looked at anyway");
}

/* A list of six, and what follows, is none. */
Test(sigframe, data_is_not)
{
	static const size_t changed[] = {0, 1, CS, EFLAGS};
	take_a_signal();
	cr_assert((words[0] & ~1ull) == UC_STRICT);
	for (size_t i = 0; i < sizeof(changed) / sizeof(changed[0]); i++) {
		uint64_t was = words[changed[i]];
		words[changed[i]] = i == 3 ? was | 1ull << 40 : i == 2 ? 0 : was + 0x100;
		cr_expect(!spot(interrupted + 4096), "word %zu", changed[i]);
		words[changed[i]] = was;
	}
	cr_expect(spot(interrupted + 4096));
}
