/* See lock.h. */
#include "remap/lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fault.h"
#include "inject/proc.h"

struct lock {
	int operation, target;
};

struct err *lock__folder(char **out)
{
	const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
	char *where = geteuid() == 0               ? xstrdup("/run/llu")
		      : runtime && *runtime == '/' ? xasprintf("%s/llu", runtime)
						   : xasprintf("/tmp/llu-%u", geteuid());
	struct stat st;
	struct err *e = NULL;
	if ((mkdir(where, 0700) < 0 && errno != EEXIST) || lstat(where, &st) < 0)
		e = err__new(ERR_SYSTEM, errno, where, NULL, "cannot make the folder for locks and journals");
	else if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		e = err__new(ERR_REFUSED, 0, where, NULL,
			     "the folder for locks and journals could be changed by another user");
	if (e)
		free(where);
	else
		*out = where;
	return e;
}

/* `how` of flock(2). *taken: nobody else has it in a way that excludes this. */
static struct err *operation_lock(int how, int *fd, bool *taken)
{
	FREE_CLEANUP char *where = NULL;
	TRY(lock__folder(&where));
	FREE_CLEANUP char *path = xasprintf("%s/operation.lock", where);
	fault__point("open of operation.lock");
	*fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (*fd < 0)
		return err__new(ERR_SYSTEM, errno, path, NULL, "cannot make the lock file");
	*taken = flock(*fd, how | LOCK_NB) == 0;
	if (!*taken)
		close_cleanup(fd);
	return NULL;
}

struct err *lock__all(int *fd)
{
	bool taken = false;
	TRY(operation_lock(LOCK_EX, fd, &taken));
	return taken ? NULL : err__new(ERR_BUSY, 0, NULL, "wait for it to end", "a live update operation is under way");
}

struct err *lock__one(pid_t pid, int *fd)
{
	FREE_CLEANUP char *path = xasprintf("/proc/%d/mem", pid);
	FREE_CLEANUP char *who = xasprintf("pid %d", pid);
	*fd = open(path, O_RDONLY | O_CLOEXEC);
	int e = errno;
	if (*fd < 0)
		return err__new(e == ENOENT || e == ESRCH   ? ERR_GONE
				: e == EACCES || e == EPERM ? ERR_PERMISSION
							    : ERR_SYSTEM,
				e, who, NULL, "its memory cannot be opened");
	if (flock(*fd, LOCK_EX | LOCK_NB) == 0)
		return NULL;
	close_cleanup(fd);
	return err__new(ERR_BUSY, 0, NULL, "wait for it to end", "another operation on process %d is under way", pid);
}

struct err *lock__take(pid_t pid, struct lock **out)
{
	bool taken = false;
	struct lock l = {-1, -1};
	TRY(operation_lock(LOCK_SH, &l.operation, &taken));
	if (!taken)
		return err__new(ERR_BUSY, 0, NULL, "wait for it to end", "cllvupdate is at work");
	struct err *e = lock__one(pid, &l.target);
	if (e) {
		close(l.operation);
		return e;
	}
	*out = xmemdup(&l, sizeof(l));
	return NULL;
}

void lock__drop(struct lock *l)
{
	if (!l)
		return;
	close(l->target);
	close(l->operation);
	free(l);
}

/* ---- the owner in a header ---- */

/* The inode of the first PID namespace (include/linux/proc_ns.h, PROC_PID_INIT_INO). */
enum { FIRST_PIDNS = 0xeffffffc };

static uint64_t pidns_of(const char *process)
{
	FREE_CLEANUP char *path = xasprintf("/proc/%s/ns/pid", process);
	struct stat st;
	return stat(path, &st) == 0 ? st.st_ino : 0;
}

/* Start time of a process that is no zombie, or 0. `process` is its name in /proc. */
static int start_of(const char *process, uint64_t *start)
{
	FREE_CLEANUP char *path = xasprintf("/proc/%s/stat", process);
	struct proc_stat st;
	int r = proc_stat(AT_FDCWD, path, &st);
	if (r == 0)
		*start = st.state == 'Z' || st.state == 'X' ? 0 : st.start_time;
	return r;
}

void owner__set(struct vapi_header *h)
{
	h->owner = (uint32_t)getpid();
	h->owner_pidns = pidns_of("self");
	h->owner_start = 0;
	(void)start_of("self", &h->owner_start);
}

void owner__clear(struct vapi_header *h)
{
	h->owner = 0;
	h->owner_start = h->owner_pidns = 0;
}

bool owner__is_me(const struct vapi_header *h)
{
	struct vapi_header me;
	owner__set(&me);
	return h->owner == me.owner && h->owner_start == me.owner_start && h->owner_pidns == me.owner_pidns;
}

/* Is the process with this name in /proc the owner, who has its PID in another namespace? */
static bool is_owner_elsewhere(const struct vapi_header *h, const char *process)
{
	FREE_CLEANUP char *path = xasprintf("/proc/%s/status", process);
	char status[8192];
	uint64_t start = 0;
	if (start_of(process, &start) < 0 || start != h->owner_start || pidns_of(process) != h->owner_pidns ||
	    proc_read(AT_FDCWD, path, status, sizeof(status)) < 0)
		return false;
	const char *pids = proc_field(status, "NSpid"); /* one for each namespace, its own last */
	size_t len = pids ? strcspn(pids, "\n") : 0;
	while (len && isdigit((unsigned char)pids[len - 1]))
		len--;
	return pids && strtoul(pids + len, NULL, 10) == h->owner;
}

static bool any_owner_elsewhere(const struct vapi_header *h)
{
	DIR *d = opendir("/proc");
	bool found = false;
	for (struct dirent *e; d && !found && (e = readdir(d));)
		found = isdigit((unsigned char)e->d_name[0]) && is_owner_elsewhere(h, e->d_name);
	if (d)
		closedir(d);
	return found;
}

bool owner__is_alive(const struct vapi_header *h)
{
	uint64_t mine = pidns_of("self"), start = 0;
	if (!h->owner || owner__is_me(h))
		return false;
	if (h->owner_pidns != mine)
		return mine != FIRST_PIDNS || geteuid() != 0 || any_owner_elsewhere(h);
	if (h->owner > INT32_MAX || (kill((pid_t)h->owner, 0) < 0 && errno == ESRCH))
		return false;
	FREE_CLEANUP char *process = xasprintf("%u", h->owner);
	return start_of(process, &start) < 0 || start == h->owner_start; /* hidden from us (hidepid): alive */
}
