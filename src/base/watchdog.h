/* Ends the tool when something takes far too long.
 *
 * Reading another process's memory waits for whoever provides its pages: userfaultfd(2), FUSE, a server. Somebody who
 * never does would hold us for good, and with us all other processes of the operation. Such a wait ends with the
 * death of the tool and with nothing else (mm/gup.c, faultin_page: only a fatal signal), which law 1
 * (docs/design.md) makes harmless to every target. Likewise for files that are made to be slow to judge. */
#ifndef LLU_BASE_WATCHDOG_H
#define LLU_BASE_WATCHDOG_H

struct watchdog;

/* Unless it is called off in time, prints `last_words` and a newline on standard error and ends the process with
 * `exit_code`. The text is copied. */
struct watchdog *watchdog__start(unsigned seconds, const char *last_words, int exit_code);
void watchdog__call_off(struct watchdog *w);

#endif
