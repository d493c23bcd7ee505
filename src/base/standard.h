/* Standard input, output and error, which a command may be started without. */
#ifndef LLU_BASE_STANDARD_H
#define LLU_BASE_STANDARD_H

/* Opens /dev/null in the place of what is missing: else the next file that is opened gets its number, and what is
 * printed goes there, be it a log, a channel or the memory of a process. The first thing that main() does. */
void standard__open(void);

#endif
