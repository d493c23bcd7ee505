/* What the tests of retiring share: an update and what became of the old code. */
#ifndef LLU_TESTS_RETIRE_H
#define LLU_TESTS_RETIRE_H

#include "scene.h"

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* The scene of libpark. */
struct scene park__begin(void);

/* Installs fixtures/lib/vVERSION, updates the scene's target (or `pid`, if not 0), which must succeed. The report's
 * text; to be freed. */
char *update_to(struct scene *s, int version, pid_t pid);

/* The same, and the old code must be gone: the report says so, and /proc/PID/maps. A round follows. */
void update_gone(struct scene *s, int version);
/* The same, and it must stay, with `reason` (an extended regular expression). A round follows. */
void update_held(struct scene *s, int version, const char *reason);

/* How many executable mappings of the scene's library the process has whose file is not what has that name now. */
size_t replaced_code(const struct scene *s, pid_t pid);

/* The number behind `key` in a file of /proc/PID, in its own units. */
long proc_number(pid_t pid, const char *file, const char *key);
size_t proc_entries(pid_t pid, const char *folder);
size_t proc_mappings(pid_t pid);

#endif
