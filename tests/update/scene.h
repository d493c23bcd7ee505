/* A scene of an update: a directory with split libraries, a driver that runs on them, and llvupdate.
 *
 *     scene__begin("state", "v1")      splits lib/v1/libstate.so.1 into DIR/lib and starts state_driver on it
 *     scene__install(s, "v2", how)     splits the new build (--like the first) and puts it in place
 *     scene__update(s)                 llvupdate -P must list the process, llvupdate -p must succeed
 *
 * The commands are used as a user uses them: argument lists in, exit codes and text out.
 */
#ifndef LLU_TESTS_UPDATE_SCENE_H
#define LLU_TESTS_UPDATE_SCENE_H

#include "support/support.h"
#include "support/target.h"

/* How a new file arrives. */
enum arrival {
	BY_RENAME,   /* over the old name, as dpkg does */
	BY_SYMLINK,  /* libNAME.so.1 is a symbolic link to a file with a longer name, and is switched */
	BY_DIRECTORY /* the directory on LD_LIBRARY_PATH is a symbolic link, and is switched */
};

struct scene {
	const char *dir;     /* temporary */
	const char *library; /* "libstate.so.1" */
	const char *first;   /* the first split build, what --like gets */
	enum arrival how;
	unsigned generation;
	struct target *target;
};

/* Splits `in` to `out`; like may be NULL. Fails the test if llusplit does. */
void llusplit(const char *in, const char *out, const char *like);

/* A scene without a target: `file` is the build that is split and put in place as `library`. */
struct scene scene__prepare(const char *library, const char *file, enum arrival how);
/* Starts a program on the scene's library and expects `ready`. */
void scene__start(struct scene *s, const char *const argv[]);
/* Both, for libNAME.so.1 of fixtures/lib/VARIANT and its driver. */
struct scene scene__begin(const char *name, const char *variant);
struct scene scene__begin_by(const char *name, const char *variant, enum arrival how);

/* The same with a library as it is, which nobody split: that of fixtures/lib/VARIANT, and a program of the fixtures. */
struct scene scene__begin_plain(const char *library, const char *variant, const char *program);

/* Puts a new build in place: splits `file` first. */
void scene__install_file(struct scene *s, const char *file);
/* Puts `file` in place as it is. */
void scene__install_raw(struct scene *s, const char *file);
/* Splits and installs the scene's library of fixtures/lib/VARIANT. */
void scene__install(struct scene *s, const char *variant);

/* The path of a fixture's library: fixtures/lib/VARIANT/LIBRARY. */
const char *fixture_library(const char *variant, const char *library);

/* llvupdate -P: is the process listed, with the scene's library? */
bool scene__preview_lists(const struct scene *s);
/* llvupdate -p PID with what `extra` says (NULL-terminated, may be NULL). */
struct result scene__llvupdate(const struct scene *s, const char *const extra[]);
/* The state that the report of `text` gives for `pid` ("SUCCESS", "NOT UPDATED", ...), or "": to be freed. */
char *report_state(const char *text, pid_t pid);

/* The whole way: listed, updated, reported, no longer listed. */
void scene__update(struct scene *s);
/* llvupdate must leave the process as it is and say why: exit code 3, NOT UPDATED, `reason` (an extended
 * regular expression) in the output. */
void scene__refuse(struct scene *s, const char *reason);

/* Replaces the library and updates, along v1, v2, v3, v1 of a variant ("" or "-NAME"), with rounds between. */
void scene__walk(struct scene *s, const char *variant);

/* Has the driver seal the pages of a library's VAPI part ("VAPI table"), so that nothing can be moved there. Skips the
 * test where the kernel cannot. */
void scene__seal(struct target *t, const char *library, const char *part);

#endif
