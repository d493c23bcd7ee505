/* A process in difficult surroundings: surroundings_driver on a split libstate, and llvupdate.
 *
 *     struct place p = place__begin();      v1, in surroundings like the test's
 *     place__tell(&p, "limit nofile");      the driver makes them difficult (see the driver)
 *     place__update(&p, 2);                 the whole update succeeds, the answers are those of v2
 *     place__refuse(&p, 3, 3, "REASON");    it is refused with that exit code; the answers go on as before
 */
#ifndef LLU_TESTS_SURROUNDINGS_PLACE_H
#define LLU_TESTS_SURROUNDINGS_PLACE_H

#include "update/scene.h"

struct place {
	struct scene s; /* s.dir has lib/ and bin/, which everybody may read */
	pid_t pid;      /* of the driver: not s.target's when something stands between */
	int version;    /* that it runs */
};

/* A place without a process: v1 in DIR/lib, the driver and llvupdate in DIR/bin. */
struct place place__make(enum arrival how);
/* Starts argv[0], which ends up as the driver in the same process or in a child. `path`: LD_LIBRARY_PATH, or NULL. */
void place__start(struct place *p, const char *const argv[], const char *path);
/* Both, without anything between. */
struct place place__begin(void);

/* In a root directory with no more than the program needs; DIR/lib is /lib there, and /linked an absolute link to it.
 * `options` of chroot(1), NULL at the end; `path` as above. The process is not started when `options` is NULL. */
struct place place__chroot(enum arrival how, const char *path, const char *const options[]);
void place__start_chroot(struct place *p, const char *path, const char *const options[]);

/* Says a line to the driver; false when it answers that the kernel cannot. */
bool place__try(struct place *p, const char *line);
/* The same, and fails the test then. */
void place__tell(struct place *p, const char *line);

/* llvupdate -p PID, from the test's own surroundings. */
struct result place__llvupdate(const struct place *p, const char *const extra[]);
/* Installs that version and updates. */
void place__update(struct place *p, int version);
/* What `r` says of process `pid`, as the tool sees it, must be SUCCESS, and the answers those of `version`. */
void place__updated(struct place *p, struct result *r, pid_t pid, int version);
/* Installs that version; llvupdate must leave the process as it is, with this exit code and a reason that the extended
 * regular expression describes. */
void place__refuse(struct place *p, int version, int exit_code, const char *reason);
void place__refused(struct place *p, struct result *r, int exit_code, const char *reason);

/* Lets the driver end in order. */
void place__end(struct place *p);

/* Fails or skips what only root can do. */
void place__want_root(void);

#endif
