/* Takes turns among the processes of one operation, at what does not go any faster side by side.
 *
 * A turn is a lock on a byte of a file without a name (fcntl(2), F_OFD_SETLKW), so it ends with the process that has
 * it, whatever becomes of that. Each process opens the file for itself: a lock belongs to an open file description. */
#ifndef LLU_BASE_TURN_H
#define LLU_BASE_TURN_H

enum turn_of {
	TURN_FREEZE, /* who freezes a process, which then stands still for as long as if it were the only one */
	TURN_PLAN,   /* who makes a plan: those that need the same one find it made */
};

struct turns;

/* The file, close-on-exec; -1 with errno. */
int turns__create(void);
/* For this process: `file` is what turns__create() gave it, or the process that it was forked from. The caller releases
 * it with turns__close(), and keeps `file`. NULL with errno. */
struct turns *turns__open(int file);
void turns__close(struct turns *t);

/* Waits for the turn. NULL: there is nobody to take turns with. Not to be taken twice. */
void turn__take(const struct turns *t, enum turn_of what);
void turn__give(const struct turns *t, enum turn_of what);

#endif
