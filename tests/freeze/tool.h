/* An update without the command around it, for tests that kill it. */
#ifndef LLU_TESTS_FREEZE_TOOL_H
#define LLU_TESTS_FREEZE_TOOL_H

#include <sys/types.h>

/* Updates process `pid`, with plans kept in the folder `plans`; stops itself (SIGSTOP) when all is prepared. 0, or
 * what is to be the exit code. */
int tool__update(pid_t pid, const char *plans);

#endif
