/* See watchdog.h: a thread that waits. */
#include "base/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/thread.h"

struct watchdog {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool called_off;
	struct timespec end;
	char *last_words;
	int exit_code;
};

static void *watch(void *arg)
{
	struct watchdog *w = arg;
	int r = 0;
	pthread_mutex_lock(&w->lock);
	while (!w->called_off && r != ETIMEDOUT)
		r = pthread_cond_clockwait(&w->cond, &w->lock, CLOCK_MONOTONIC, &w->end);
	if (!w->called_off) {
		(void)!write(STDERR_FILENO, w->last_words, strlen(w->last_words));
		_exit(w->exit_code);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

struct watchdog *watchdog__start(unsigned seconds, const char *last_words, int exit_code)
{
	struct watchdog *w = xcalloc(1, sizeof(*w));
	w->last_words = xasprintf("%s\n", last_words);
	w->exit_code = exit_code;
	clock_gettime(CLOCK_MONOTONIC, &w->end);
	w->end.tv_sec += seconds;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	if (thread__start(&w->thread, watch, w))
		return w;
	/* without one the operation goes on: it is no worse than it was */
	free(w->last_words);
	free(w);
	return NULL;
}

void watchdog__call_off(struct watchdog *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->called_off = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_cond_destroy(&w->cond);
	pthread_mutex_destroy(&w->lock);
	free(w->last_words);
	free(w);
}
