/* POSIX message queues whose process waits for a notification (mq_notify(3)).
 *
 * The request ends when the process that made it closes a descriptor of the queue: any one, also in a table of
 * descriptors that one of its threads alone has (kernel ipc/mqueue.c, mqueue_flush_file, asks for the thread group).
 * The hand has such a table and closes it when it ends, so a process with such a request is left alone. */
#ifndef LLU_INJECT_MQUEUE_H
#define LLU_INJECT_MQUEUE_H

#include "inject/process.h"

/* ERR_REFUSED if a request of the process is there, or if it cannot be told. Queues are known by the names that
 * mq_open(3) and the usual place of the file system, /dev/mqueue, give their descriptors. */
MUST_CHECK struct err *mqueue__check(const struct process *p);

#endif
