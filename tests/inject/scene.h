/* A target program of fixtures/targets, its process handle, and a place for the hand in it. */
#ifndef LLU_TESTS_INJECT_SCENE_H
#define LLU_TESTS_INJECT_SCENE_H

#include "inject/hand.h"
#include "inject/process.h"
#include "support/target.h"

struct scene {
	struct target *target;
	struct process *p;
	struct hand_place place;
};

/* Starts fixtures/NAME with arguments (NULL-terminated) and opens it; reads "pads=... scratch=..." and writes
 * the pads there. Fails the test if anything goes wrong. */
struct scene scene__start(const char *name, ...) __attribute__((sentinel));
void scene__close(struct scene *s);

/* Waits until thread `tid` (0: the process's first) sleeps in a system call other than `not_in`. */
struct thread_view scene__wait_asleep(const struct scene *s, pid_t tid, int64_t not_in);
/* Waits until the process has exactly `n` threads and none of them is traced. */
void scene__wait_threads(const struct scene *s, size_t n);
size_t scene__threads(const struct scene *s);

/* Fails the test with the error's text unless there is no error. */
void scene__ok(struct err *e, const char *file, int line);
#define OK(expr) scene__ok((expr), __FILE__, __LINE__)
/* Fails the test unless the error is there, of this kind and with these words. */
void scene__refused(struct err *e, enum err_kind kind, const char *words, const char *file, int line);
#define REFUSED(expr, kind, words) scene__refused((expr), (kind), (words), __FILE__, __LINE__)

#endif
