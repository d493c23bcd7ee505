/* Messages between the processes of one operation: over a stream socket, a head and bytes, and maybe a file. */
#ifndef LLU_CREW_CHANNEL_H
#define LLU_CREW_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum message {
	/* to a worker, each with an order and a channel for the answers */
	MESSAGE_LOOK,     /* look, and answer with a record */
	MESSAGE_LOOK_ALL, /* the same; the answer may be that there is nothing to say */
	MESSAGE_UPDATE,   /* look, and try */
	/* to who keeps a process (worker.h) */
	MESSAGE_TRY,     /* once more */
	MESSAGE_GIVE_UP, /* no more tries */
	/* from them */
	MESSAGE_NOTHING,  /* there is nothing to say (enum left_out) */
	MESSAGE_KEPT,     /* the worker is free: somebody else keeps the process from now on (struct kept) */
	MESSAGE_PREPARED, /* the first half of a try is over */
	MESSAGE_RECORD,   /* what is to be said now: a record's bytes */
	/* from who cleans up (clean_up.c) */
	MESSAGE_RECOVERED, /* something that was found */
	MESSAGE_OVER,      /* that was all */
};

struct order {
	pid_t pid;
	uint64_t start_time; /* of the process that was looked at before (record.h); 0: whoever has the PID */
};

struct kept {
	pid_t keeper;
	unsigned seconds; /* within which each of its answers is to be expected */
};

/* Both ends, close-on-exec. False with errno. */
bool channel__new(int ends[2]);

/* Sends a message; `fd` -1: without a file. False: the other end is gone, or there is no memory. */
bool channel__send(int channel, enum message m, const void *bytes, size_t len, int fd);

/* Waits for a message. The caller frees *bytes and closes *fd (-1: none came; NULL: none is expected). False: the other
 * end is gone, or says what makes no sense. */
bool channel__receive(int channel, enum message *m, uint8_t **bytes, size_t *len, int *fd);

#endif
