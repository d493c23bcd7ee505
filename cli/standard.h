/* Standard input, output and error, which a command may be started without. */
#ifndef LLU_CLI_STANDARD_H
#define LLU_CLI_STANDARD_H

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Opens /dev/null in the place of what is missing: else the next file that is opened gets its number, and what is
 * printed goes there, be it a log, a channel or the memory of a process. The first thing that main() does. */
static inline void standard__open(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			abort();
}

#endif
