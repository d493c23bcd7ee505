/* Threads beside the one that does the work. They take no signals: a SIGCHLD that announces a stop must not be lost to
 * one that has no use for it (inject/tracee.c waits for them). */
#ifndef LLU_BASE_THREAD_H
#define LLU_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* False: there is none, for want of memory or processes. */
bool thread__start(pthread_t *out, void *(*run)(void *arg), void *arg);

#endif
