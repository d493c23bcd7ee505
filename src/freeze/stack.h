/* The cheap sound test: is there any word on a thread's stacks that could be an address in the code
 * that must be left?
 *
 * A thread will return into a range only if a return address, or the program counter in a signal
 * frame, is on one of its stacks. Every word there that lies in a range counts (also one that is
 * just behind its end: a call that never returns may be the last instruction). None: outside. Some: perhaps
 * stale, and unwinding has to tell.
 *
 * Which memory is a thread's stacks:
 *
 *     home stack      of the first thread the mapping [stack]; of the others the mapping that holds the
 *                     thread control block, which C libraries put at the top of the thread's stack
 *                     (glibc nptl/allocatestack.c; musl src/thread/pthread_create.c)
 *     SP in it        everything from SP to the top (the control block)
 *     SP elsewhere    (alternate signal stack, coroutine) everything from SP to the end of the
 *                     mappings there, and the whole home stack, as where it was left is not known
 *     signal frames   on any of these lead to what they interrupted, and everything above that
 */
#ifndef LLU_FREEZE_STACK_H
#define LLU_FREEZE_STACK_H

#include "base/vec.h"
#include "inject/process.h"

enum stack_verdict {
	STACK_CLEAN,   /* no such word */
	STACK_WORDS,   /* words found, or too much memory to look at */
	STACK_UNKNOWN, /* only without a thread pointer: the home stack is not known */
};

typedef VEC(taddr_t) taddr_list;

struct stack_query {
	bool first; /* it is the first thread of its process */
	taddr_t sp;
	taddr_t thread_pointer; /* {0} if not known: the thread was not stopped */
	pid_t own_tid;          /* then: thread_status.own_tid, to know the control block by */
	const struct mappings *maps;
	const struct trange *inside;
	size_t n_inside;
	const struct trange *suspects; /* words that lead there count as well */
	size_t n_suspects;
	taddr_list *words;      /* where words are that lead inside is added to this list; may be NULL */
	taddr_list *mangled;    /* the same of what setjmp(3) saved; NULL: that is not looked for */
	uint64_t pointer_guard; /* to know it by (holders.h); 0: not known */
};

struct stack_answer {
	enum stack_verdict verdict;
	taddr_t word_at;       /* STACK_WORDS: where the first one was, or {0} */
	bool unseen;           /* STACK_WORDS: there is memory that was not looked at */
	bool sp_at_home;       /* SP is in the home stack */
	struct trange home[2]; /* the home stacks, as far as known */
};

/* Errors: ERR_GONE, ERR_PERMISSION. What cannot be read counts as STACK_WORDS. */
MUST_CHECK struct err *stack__scan(const struct process *p, const struct stack_query *q, struct stack_answer *out);

/* Is `a` in one of the ranges? */
bool ranges__have(const struct trange *r, size_t n, taddr_t a);

#endif
