/* A busy program on split libraries, tools with fault points (src/base/fault.h), and the question whether it is well.
 *
 * The program is witness_driver, on libstate (a group of its own) and libupper with liblower (one of two). Builds 1 and
 * 2 of all three are split beforehand.
 */
#ifndef LLU_TESTS_FAULTS_BED_H
#define LLU_TESTS_FAULTS_BED_H

#include "scene.h"

struct bed {
	const char *dir;
	struct scene library[3]; /* state, upper, lower */
	const char *build[3][3]; /* the file of library i, build v */
	struct target *target;
	int live; /* the build that the program runs in all three, as far as the test knows */
	unsigned threads, fds;
	/* Where the last tool was killed, or NULL. A thread that it was stopping there may have seen its call end with
	 * EINTR (docs/design.md, law 3), and nobody may elsewhere. */
	const char *killed_at;
	unsigned interrupted; /* calls that ended so, as far as the test knows */
	bool any_interrupted; /* was there one since the tool was killed? */
};

/* Clears away what is left of other tests, and splits everything; no program runs. */
struct bed bed__make(void);
/* The same, with nothing split. */
struct bed bed__make_unprepared(void);
/* Starts a program on build 1. */
void bed__start(struct bed *b);
/* Puts build `v` in place. */
void bed__install(struct bed *b, int v);
/* Ends the program. */
void bed__stop(struct bed *b);

/* Waits until nobody but the program's own threads is in it and nobody traces it, then has it check itself. Both
 * groups must run build `before` or `after`, each as a whole. */
void bed__check(struct bed *b, int before, int after, const char *when);
/* The same, whatever they run; the two of the pair may be apart. */
void bed__well(struct bed *b, const char *when);
/* The same as bed__check(), and both run build `v`, from now on `live`. */
void bed__is(struct bed *b, int v, const char *when);

/* llvupdate -p with fault points; `faults` are settings of the environment ("LLU_FAULT=7"), NULL-terminated. */
struct result bed__update(struct bed *b, const char *const faults[]);
/* Starts one with one setting, and does not wait for it. It is stopped where LLU_FAULT_STOP says. */
pid_t bed__start_update(struct bed *b, const char *name, const char *value);
/* cllvupdate -u likewise. */
struct result bed__clean_up(struct bed *b, const char *const faults[]);
/* cllvupdate -u must succeed. Returns whether there was something to do; afterwards there is nothing more, and
 * neither locks nor journals of a process are left. */
bool bed__cleaned_up(struct bed *b, const char *when);
/* llvupdate must bring the program to build `v`, which is in place. */
void bed__updated(struct bed *b, int v, const char *when);

/* The folder of locks and journals. */
const char *run_folder(void);

/* ---- places ---- */

/* What LLU_FAULT_LIST wrote. */
struct places {
	char **all; /* the place of point i + 1 */
	size_t n;
	char **distinct; /* each place once, in the order of their first points */
	size_t n_distinct;
	char **calls; /* the place of call i + 1 of a hand */
	size_t n_calls;
};
struct places places__read(const char *file);
void places__free(struct places *p);
/* The first place with these words in it, or NULL. */
const char *places__find(const struct places *p, const char *words);

#endif
