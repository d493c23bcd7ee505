/* The threads of a process, looked at through /proc without stopping them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/vec.h"
#include "inject/proc.h"

enum { PF_IO_WORKER = 0x00000010 }; /* include/linux/sched.h */

struct err *process__threads(const struct process *p, pid_t **tids_out, size_t *n_out)
{
	int fd = openat(p->dirfd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		TRY(process__alive(p));
		return process__err(p, 0, ERR_UNREADABLE, errno, NULL, "its list of threads cannot be read");
	}
	DIR *d = fdopendir(fd);
	if (!d) {
		int e = errno;
		close(fd);
		return process__err(p, 0, ERR_SYSTEM, e, NULL, "its list of threads cannot be read");
	}
	VEC(pid_t) tids = {0};
	for (;;) {
		errno = 0;
		struct dirent *e = readdir(d);
		if (!e)
			break;
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
			vec__push(&tids, (pid_t)strtol(e->d_name, NULL, 10));
	}
	int err = errno;
	closedir(d);
	struct err *e = NULL;
	if (tids.n == 0) {
		e = process__alive(p);
		if (!e)
			e = process__err(p, 0, ERR_GONE, 0, NULL, "it has no threads any more");
	} else if (err) {
		e = process__err(p, 0, ERR_UNREADABLE, err, NULL, "its list of threads cannot be read");
	}
	if (e) {
		vec__free(&tids);
		return e;
	}
	*tids_out = tids.items;
	*n_out = tids.n;
	return NULL;
}

static enum thread_state state_of(char c)
{
	switch (c) {
	case 'S':
		return THREAD_SLEEPING;
	case 'D':
	case 'I':
		return THREAD_BLOCKED;
	case 'T':
	case 't':
		return THREAD_STOPPED;
	case 'Z':
	case 'X':
		return THREAD_DEAD;
	default:
		return THREAD_RUNNING;
	}
}

/* "NR ARG0 ... ARG5 SP PC", "-1 SP PC" or "running" (proc(5); fs/proc/base.c, proc_pid_syscall).
 * The kernel takes this snapshot only of a thread that is off its CPU, and makes sure that it
 * stayed so meanwhile (lib/syscall.c, task_current_syscall). */
static bool parse_syscall(const char *s, struct thread_view *v)
{
	char *end = NULL;
	long long nr = strtoll(s, &end, 10);
	if (end == s)
		return false;
	uint64_t w[8];
	size_t n = 0;
	while (n < 8 && *end == ' ') {
		char *next = NULL;
		w[n] = strtoull(end + 1, &next, 16);
		if (next == end + 1)
			return false;
		end = next;
		n++;
	}
	size_t args = nr < 0 ? 0 : 6;
	if (n != args + 2)
		return false;
	v->nr = nr < 0 ? -1 : nr;
	memcpy(v->arg, w, args * sizeof(w[0]));
	v->sp = taddr(w[args]);
	v->pc = taddr(w[args + 1]);
	return true;
}

static bool gone(int r)
{
	return r == -ESRCH || r == -ENOENT;
}

struct err *process__look(const struct process *p, pid_t tid, struct thread_view *out)
{
	*out = (struct thread_view){.tid = tid, .state = THREAD_DEAD, .nr = -1};
	char path[64];
	snprintf(path, sizeof(path), "task/%d/stat", tid);
	struct proc_stat st;
	int r = proc_stat(p->dirfd, path, &st);
	if (gone(r))
		return NULL;
	if (r < 0)
		return process__err(p, tid, ERR_UNREADABLE, -r, NULL, "its state cannot be read");
	out->state = state_of(st.state);
	out->traced = st.state == 't';
	out->io_worker = (st.flags & PF_IO_WORKER) != 0;
	if (out->state != THREAD_SLEEPING && out->state != THREAD_BLOCKED)
		return NULL;

	char buf[256];
	snprintf(path, sizeof(path), "task/%d/syscall", tid);
	ssize_t n = proc_read(p->dirfd, path, buf, sizeof(buf));
	if (gone((int)n)) {
		out->state = THREAD_DEAD;
		return NULL;
	}
	if (n == -EACCES || n == -EPERM)
		return process__err(p, tid, ERR_PERMISSION, (int)-n, "run as root or as the owner of the process",
				    "its threads may not be looked at");
	if (n < 0)
		return process__err(p, tid, ERR_UNREADABLE, (int)-n, NULL, "its state cannot be read");
	out->at_rest = parse_syscall(buf, out);
	if (!out->at_rest)
		out->state = THREAD_RUNNING;
	return NULL;
}

/* "NSpid: 4711 12": outermost namespace first (proc(5)) */
static pid_t innermost(const char *numbers)
{
	pid_t tid = 0;
	char *end = NULL;
	for (long v = strtol(numbers, &end, 10); end != numbers; v = strtol(numbers, &end, 10)) {
		tid = (pid_t)v;
		if (*end != '\t' && *end != ' ')
			break;
		numbers = end;
	}
	return tid;
}

struct err *process__status(const struct process *p, pid_t tid, struct thread_status *out)
{
	*out = (struct thread_status){0};
	char path[64];
	char buf[8192];
	snprintf(path, sizeof(path), "task/%d/status", tid);
	ssize_t n = proc_read(p->dirfd, path, buf, sizeof(buf));
	if (gone((int)n))
		return NULL;
	if (n < 0)
		return process__err(p, tid, ERR_UNREADABLE, (int)-n, NULL, "its status cannot be read");
	const char *own = proc_field(buf, "NSpid"), *caught = proc_field(buf, "SigCgt"),
		   *ignored = proc_field(buf, "SigIgn");
	const char *vol = proc_field(buf, "voluntary_ctxt_switches");
	const char *invol = proc_field(buf, "nonvoluntary_ctxt_switches");
	if (!own || !caught || !ignored || !vol || !invol)
		return process__err(p, tid, ERR_UNREADABLE, 0, NULL,
				    "its status has no context-switch counters, or no signals");
	out->own_tid = innermost(own);
	out->handled = strtoull(caught, NULL, 16) | strtoull(ignored, NULL, 16);
	out->switches = strtoull(vol, NULL, 10) + strtoull(invol, NULL, 10);
	return NULL;
}

struct err *process__tracer(const struct process *p, pid_t *out)
{
	*out = 0;
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0;
	TRY(process__threads(p, &tids, &n));
	for (size_t i = 0; i < n && *out == 0; i++) {
		char path[64];
		char buf[8192];
		snprintf(path, sizeof(path), "task/%d/status", tids[i]);
		ssize_t r = proc_read(p->dirfd, path, buf, sizeof(buf));
		if (gone((int)r))
			continue;
		const char *v = r < 0 ? NULL : proc_field(buf, "TracerPid");
		if (!v)
			return process__err(p, tids[i], ERR_UNREADABLE, r < 0 ? (int)-r : 0, NULL,
					    "its status cannot be read");
		*out = (pid_t)strtol(v, NULL, 10);
	}
	return NULL;
}
