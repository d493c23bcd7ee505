/* Is a stopped thread inside, and what can be done about it? (freeze.h) */
#ifndef LLU_FREEZE_JUDGE_H
#define LLU_FREEZE_JUDGE_H

#include "freeze/threads.h"
#include "freeze/unwind.h"

/* A word that leads into the old code, and where it is to lead. */
struct move {
	pid_t tid;
	taddr_t slot; /* of a return address, of what a signal or setjmp(3) saved; {0}: the thread's PC */
	taddr_t from, to;
};

typedef VEC(struct move) move_list;

enum verdict {
	OUTSIDE,
	MOVABLE, /* inside, and may be moved: the moves were added to the list */
	INSIDE,
	NOT_KNOWN, /* cannot be told without an unwinder */
};

struct judgement {
	enum verdict verdict;
	struct err *why; /* INSIDE: ERR_RETRY, the caller's */
	taddr_t slot,
	    back;   /* INSIDE: where the outermost frame inside has its return address, and that; {0}: not known */
	bool runs;  /* INSIDE: it does not wait in a system call, or only for another thread (futex(2)) */
	bool waits; /* INSIDE: it waits in a system call */
};

/* `u` may be NULL. Errors: ERR_GONE, ERR_PERMISSION. */
MUST_CHECK struct err *judge(const struct threads *t, struct thread *th, struct unwinder *u, move_list *moves,
			     struct judgement *out);

/* The function that holds `code`, or NULL. */
const struct freeze_function *functions__at(const struct freeze_options *opt, taddr_t code);

/* "poll(2)", or "system call 999". */
enum { CALL_NAME_MAX = 48 };
const char *call_name(char buf[CALL_NAME_MAX], int64_t nr);

#endif
