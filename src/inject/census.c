/* See census.h. */
#include "inject/census.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/vec.h"
#include "inject/proc.h"

enum {
	PIVOTS = 31,
	ANSWER_MS = 1000,
	NO_PLACE = -1,
	KERNEL = PIVOTS + 2, /* a kernel thread, which shares with nobody who can be asked for */
};

struct known {
	pid_t pid;
	int place; /* NO_PLACE: anybody may share its memory, for all that is known */
};

struct census {
	VEC(struct known) all; /* by PID */
	VEC(struct pollfd) fds;
};

/* ---- pivots ---- */

struct pivots {
	pid_t pids[PIVOTS + 1]; /* in the order of their memories */
	pid_t gone; /* one of them has ended and has none: who is like it may have other threads that have */
	size_t n;
	int go[2], answer[2]; /* pipes */
};

/* kcmp(2): 0 the same, 1 less, 2 greater; negative: it cannot be told. */
static long compare(pid_t a, pid_t b)
{
	return syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0);
}

static _Noreturn void be_pivot(const struct pivots *v, pid_t parent)
{
	char byte = 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(v->go[1]);
	if (getppid() == parent && read(v->go[0], &byte, 1) == 0)
		(void)!write(v->answer[1], &byte, 1);
	_exit(0);
}

/* Puts a pivot into the order. */
static bool enter(struct pivots *v, pid_t pid)
{
	size_t at = 0;
	bool told = true;
	for (; at < v->n; at++) {
		long r = compare(pid, v->pids[at]);
		told = told && (r == 1 || r == 2);
		if (r != 2)
			break;
	}
	memmove(&v->pids[at + 1], &v->pids[at], (v->n - at) * sizeof(pid_t));
	v->pids[at] = pid;
	v->n++;
	return told;
}

static bool make_pivots(struct pivots *v)
{
	pid_t self = getpid();
	*v = (struct pivots){.go = {-1, -1}, .answer = {-1, -1}};
	if (pipe2(v->go, O_CLOEXEC) < 0 || pipe2(v->answer, O_CLOEXEC) < 0)
		return false;
	v->gone = _Fork();
	if (v->gone == 0)
		_exit(0);
	siginfo_t ended;
	if (v->gone < 0 || waitid(P_PID, (id_t)v->gone, &ended, WEXITED | WNOWAIT) < 0 || !enter(v, v->gone))
		return false;
	while (v->n < PIVOTS + 1) {
		pid_t pid = _Fork();
		if (pid == 0)
			be_pivot(v, self);
		if (pid < 0 || !enter(v, pid))
			return false;
	}
	return true;
}

/* Have all of them lived up to now? Who has ended, or is about to, has no memory to be compared with. */
static bool all_answer(struct pivots *v)
{
	char bytes[PIVOTS];
	size_t n = 0;
	struct pollfd p = {.fd = v->answer[0], .events = POLLIN};
	close_cleanup(&v->go[1]);
	close_cleanup(&v->answer[1]);
	while (n < PIVOTS && poll(&p, 1, ANSWER_MS) > 0) {
		ssize_t got = read(v->answer[0], bytes, sizeof(bytes));
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	return n == PIVOTS;
}

static void end_pivots(struct pivots *v)
{
	for (size_t i = 0; i < v->n; i++) {
		kill(v->pids[i], SIGKILL);
		waitpid(v->pids[i], NULL, 0);
	}
	for (size_t i = 0; i < 2; i++) {
		close_cleanup(&v->go[i]);
		close_cleanup(&v->answer[i]);
	}
}

static bool is_kernel_thread(pid_t pid)
{
	enum { KTHREAD = 0x00200000 }; /* include/linux/sched.h, PF_KTHREAD */
	char path[32];
	struct proc_stat s;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	return proc_stat(-1, path, &s) == 0 && (s.flags & KTHREAD);
}

static int place_of(const struct pivots *v, pid_t pid)
{
	size_t lo = 0, hi = v->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		long r = compare(pid, v->pids[mid]);
		if (r == 1)
			hi = mid;
		else if (r == 2)
			lo = mid + 1;
		else
			return r == 0 && v->pids[mid] == v->gone && is_kernel_thread(pid) ? KERNEL : NO_PLACE;
	}
	return (int)lo;
}

/* ---- the census ---- */

/* Half of the files that the process may have open are for others. */
static size_t files_max(void)
{
	struct rlimit r;
	return getrlimit(RLIMIT_NOFILE, &r) == 0 ? (size_t)r.rlim_cur / 2 : 0;
}

static int by_pid(const void *a, const void *b)
{
	return *(const pid_t *)a - *(const pid_t *)b;
}

/* All processes, each held. One that is not has no place, as who comes later. */
static bool open_all(struct census *c)
{
	pid_list pids = {0};
	size_t max = files_max();
	bool listed = proc_list(&pids) == 0;
	if (pids.n)
		qsort(pids.items, pids.n, sizeof(pid_t), by_pid);
	for (size_t i = 0; listed && i < pids.n && c->all.n < max; i++) {
		int fd = (int)syscall(SYS_pidfd_open, pids.items[i], 0);
		if (fd < 0)
			continue;
		vec__push(&c->all, (struct known){pids.items[i], NO_PLACE});
		vec__push(&c->fds, (struct pollfd){.fd = fd, .events = POLLIN});
	}
	vec__free(&pids);
	return listed;
}

struct census *census__take(void)
{
	struct census *c = xcalloc(1, sizeof(*c));
	struct pivots v;
	bool good = make_pivots(&v) && open_all(c);
	for (size_t i = 0; good && i < c->all.n; i++)
		c->all.items[i].place = place_of(&v, c->all.items[i].pid);
	good = good && all_answer(&v);
	end_pivots(&v);
	if (good)
		return c;
	census__free(c);
	return NULL;
}

void census__free(struct census *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->fds.n; i++)
		close(c->fds.items[i].fd);
	vec__free(&c->all);
	vec__free(&c->fds);
	free(c);
}

/* ---- asking ---- */

/* Where this process was placed, if it is the same still. */
static int known_place(const struct census *c, const struct pollfd *fds, pid_t pid)
{
	size_t lo = 0, hi = c->all.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->all.items[mid].pid < pid)
			lo = mid + 1;
		else
			hi = mid;
	}
	bool known = lo < c->all.n && c->all.items[lo].pid == pid && !fds[lo].revents;
	return known ? c->all.items[lo].place : NO_PLACE;
}

size_t census__may_share(const struct census *c, pid_t pid, pid_t *pids, size_t n)
{
	size_t kept = 0;
	if (!c || !c->all.n)
		return n;
	/* who has not ended by now had its PID when `pids` was read */
	FREE_CLEANUP struct pollfd *fds = xmemdup(c->fds.items, c->fds.n * sizeof(*fds));
	if (poll(fds, c->fds.n, 0) < 0)
		return n;
	int own = known_place(c, fds, pid);
	for (size_t i = 0; i < n; i++) {
		int other = own == NO_PLACE ? NO_PLACE : known_place(c, fds, pids[i]);
		if (other == NO_PLACE || other == own)
			pids[kept++] = pids[i];
	}
	return kept;
}
