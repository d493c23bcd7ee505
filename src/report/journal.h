/* Outcomes for the machine's log: one entry for each library of each process that was to be updated.
 *
 *     systemd-journald   its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): fields, so that
 *                        `journalctl LLU_STATE=FAILURE` finds them; no library of systemd's is needed
 *     else               /dev/log, one line in the form of RFC 3164 as syslog(3) sends it
 *     else               nothing is said
 *
 * Facility daemon, not authpriv: nothing in it is for few eyes (a process's name and libraries are in /proc for all),
 * and it should be where administrators look for what services did. Priority: notice for a success, warning for NOT
 * UPDATED, error for FAILURE.
 *
 * Nobody is waited for: where the log's reader is slow, or stands still itself, the entry is lost. Not syslog(3) for
 * that reason: it waits, and it keeps state of its own in the process.
 */
#ifndef LLU_REPORT_JOURNAL_H
#define LLU_REPORT_JOURNAL_H

#include <stddef.h>
#include <sys/types.h>

struct record;

/* The sockets; NULL: the usual ones. */
struct journal_sockets {
	const char *native; /* /run/systemd/journal/socket */
	const char *syslog; /* /dev/log */
};

/* Values may hold anything, and may be NULL: then there is no such field. */
struct journal_entry {
	int priority; /* of syslog(3) */
	pid_t pid;
	const char *state;
	const char *library, *old_build_id, *new_build_id;
	const char *message;
};

void report__journal_entry(const struct journal_sockets *s, const struct journal_entry *e);
/* Of an operation that is over. */
void report__journal(const struct journal_sockets *s, const struct record *list, size_t n);

#endif
