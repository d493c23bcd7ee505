/* A process of ours, known by its PID: a child of the command, or of the program that uses the library. Nobody here
 * waits for any child, as that program may have others; and it does not see ours: they tell it of their end by no
 * signal, so that wait(2) passes them over unless it is asked for __WALL or __WCLONE. So their PIDs are theirs until we
 * have waited.
 */
#ifndef LLU_CREW_CHILD_H
#define LLU_CREW_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

/* Forks such a process; to be called while there is one thread. As fork(2), but for what pthread_atfork(3) has set up.
 */
pid_t child__fork(void);
/* From one of them: another one, of the same parent. */
pid_t child__fork_sibling(void);

/* Whoever has stopped it (SIGSTOP): it goes on. */
void child__wake(pid_t pid);
/* Has it ended? Then it is gone for good. */
bool child__reap(pid_t pid);
/* Ends it, if it has not ended by itself, and says for people how it ended. The caller frees that. */
char *child__end(pid_t pid);

#endif
