/* A process of ours, known by its PID: a child of the command (or was one, and somebody else has waited for it; then
 * nothing is done). Nobody waits for any child here: who uses this code may have others. */
#ifndef LLU_CREW_CHILD_H
#define LLU_CREW_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

/* Forks a process that is a child of this one's parent; to be called while there is one thread. As fork(2), but for
 * what pthread_atfork(3) has set up. */
pid_t child__fork_sibling(void);

/* Whoever has stopped it (SIGSTOP): it goes on. */
void child__wake(pid_t pid);
/* Has it ended? Then it is gone for good. */
bool child__reap(pid_t pid);
/* Ends it, if it has not ended by itself, and says for people how it ended. The caller frees that. */
char *child__end(pid_t pid);

#endif
