/* A process of ours that was forked from a program, maybe not ours (llu.h): what it must not have of that. */
#ifndef LLU_CREW_GUEST_H
#define LLU_CREW_GUEST_H

#include <stddef.h>

/* Signals do what they do by default, or are ignored still, and none is blocked: a handler of the program's would run
 * here, and one for SIGCHLD could take what waitpid(2) says of a target. All files are closed but the first three and
 * those of `keep` (-1: none), so that a connection which the program closes is closed. */
void guest__enter(const int *keep, size_t n);

/* Whoever ends the program by a signal that goes to all of them (a terminal, pkill) reaches us, too, and it is the
 * program's to say what ends; and nobody stops, with a process that stands still for it. */
void guest__ignore_signals(void);

#endif
