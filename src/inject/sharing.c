/* Does another process run in the same memory?
 *
 * CLONE_VM without CLONE_THREAD makes one: vfork(2) and posix_spawn(3) until their exec, some
 * runtimes for longer. Its threads are in no /proc/PID/task of the target, and would be missed by
 * the freeze. kcmp(2) KCMP_VM tells.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "inject/census.h"
#include "inject/proc.h"

/* /proc/PID/task/TID/children of every thread (CONFIG_PROC_CHILDREN). */
static struct err *children(const struct process *p, pid_list *out)
{
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0;
	TRY(process__threads(p, &tids, &n));
	for (size_t i = 0; i < n; i++) {
		char path[64];
		FREE_CLEANUP char *text = NULL;
		size_t len = 0;
		snprintf(path, sizeof(path), "task/%d/children", tids[i]);
		int r = proc_slurp(p->dirfd, path, &text, &len);
		if (r == -ESRCH)
			continue;
		if (r == -ENOENT && faccessat(p->dirfd, "stat", R_OK, 0) == 0 && tids[i] == p->pid)
			return process__err(p, 0, ERR_UNREADABLE, 0, NULL,
					    "this kernel does not list children (CONFIG_PROC_CHILDREN)");
		if (r < 0)
			continue;
		char *save = NULL;
		for (char *w = strtok_r(text, " \n", &save); w; w = strtok_r(NULL, " \n", &save))
			vec__push(out, (pid_t)strtol(w, NULL, 10));
	}
	return NULL;
}

int proc_list(pid_list *out)
{
	DIR *d = opendir("/proc");
	if (!d)
		return -errno;
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
			vec__push(out, (pid_t)strtol(e->d_name, NULL, 10));
	closedir(d);
	return 0;
}

/* A first thread that has ended has no memory, like all kernel threads, while others of its process run on. Fills `out`
 * with the other threads of such a process, and adds nothing where the first one has memory or is the last. 0 or
 * -errno. */
static int other_threads(pid_t pid, pid_list *out)
{
	char path[32], exe[1];
	struct proc_stat first;
	/* without memory there is no program (fs/proc/base.c, proc_exe_link); with it, this is quicker */
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (readlink(path, exe, sizeof(exe)) > 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	int r = proc_stat(-1, path, &first);
	if (r < 0 || first.vsize || first.threads <= 1)
		return r;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *d = opendir(path);
	if (!d)
		return -errno;
	for (struct dirent *e = readdir(d); e; e = readdir(d)) {
		pid_t tid = (pid_t)strtol(e->d_name, NULL, 10);
		if (tid > 0 && tid != pid)
			vec__push(out, tid);
	}
	closedir(d);
	return 0;
}

/* A thread of it that has memory. Where that is not the first one, the census knows nothing of its process. */
static struct err *living_thread(const struct process *p, pid_t *out)
{
	pid_list tids = {0};
	struct proc_stat s;
	char path[32];
	int r = other_threads(p->pid, &tids);
	*out = p->pid;
	for (size_t i = 0; r >= 0 && i < tids.n && *out == p->pid; i++) {
		snprintf(path, sizeof(path), "task/%d/stat", tids.items[i]);
		if (proc_stat(p->dirfd, path, &s) == 0 && s.vsize)
			*out = tids.items[i];
	}
	bool none = tids.n && *out == p->pid;
	vec__free(&tids);
	if (r < 0 || none)
		return process__err(p, 0, ERR_GONE, 0, NULL, "it ended");
	return NULL;
}

/* But for those who are known to share nothing with `own`. */
static struct err *everyone(const struct process *p, pid_t own, pid_list *out)
{
	int r = proc_list(out);
	if (r < 0)
		return process__err(p, 0, ERR_SYSTEM, -r, NULL, "/proc cannot be read");
	if (own == p->pid && out->n)
		out->n = census__may_share(p->census, p->pid, out->items, out->n);
	return NULL;
}

/* 1: the same memory, 0: another, negative: cannot be told. */
static int compare(pid_t own, pid_t tid)
{
	long r = syscall(SYS_kcmp, own, tid, KCMP_VM, 0, 0);
	return r == 0 ? 1 : r > 0 || errno == ESRCH ? 0 : -errno;
}

/* The same of a process: 1 shares, 0 does not. `own` is a thread of p's. */
static int shares(const struct process *p, pid_t own, pid_t other)
{
	pid_list tids = {0};
	int r = compare(own, other);
	if (r == 1)
		return 1;
	if (r == -EPERM || r == -EACCES) {
		/* Not ours to compare (another user's). The same memory has the same size, which all may read. */
		char path[32], own_path[32];
		struct proc_stat mine;
		struct proc_stat theirs;
		snprintf(path, sizeof(path), "/proc/%d/stat", other);
		snprintf(own_path, sizeof(own_path), "task/%d/stat", own);
		if (proc_stat(-1, path, &theirs) < 0 || proc_stat(p->dirfd, own_path, &mine) < 0)
			return 0;
		bool unclear = mine.vsize == theirs.vsize || (!theirs.vsize && theirs.threads > 1);
		return unclear ? r : 0;
	}
	if (r < 0)
		return r;
	int listed = other_threads(other, &tids);
	if (listed < 0 && listed != -ESRCH && listed != -ENOENT)
		r = listed;
	for (size_t i = 0; r == 0 && i < tids.n; i++)
		r = compare(own, tids.items[i]);
	vec__free(&tids);
	return r;
}

/* A thread that waits for its vfork child sleeps uninterruptibly in the call that made it. */
static bool waits_for_vfork(const struct process *p)
{
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0;
	ERR_CLEANUP struct err *e = process__threads(p, &tids, &n);
	for (size_t i = 0; !e && i < n; i++) {
		struct thread_view v;
		e = process__look(p, tids[i], &v);
		if (!e && thread_view__waits_for_vfork(&v))
			return true;
	}
	return false;
}

bool thread_view__waits_for_vfork(const struct thread_view *v)
{
	if (v->state != THREAD_BLOCKED)
		return false;
#ifdef SYS_vfork
	if (v->nr == SYS_vfork)
		return true;
#endif
	return v->nr == SYS_clone || v->nr == SYS_clone3;
}

/* Do some of those that shared its memory a moment ago do so still? */
static bool any_still_shares(const struct process *p, pid_t own, const pid_list *pids)
{
	for (size_t i = 0; i < pids->n; i++)
		if (shares(p, own, pids->items[i]) != 0)
			return true;
	return false;
}

struct err *process__shares_memory(const struct process *p, bool children_only)
{
	pid_list pids = {0}, sharing = {0};
	VEC(char) found = {0};
	pid_t own;
	TRY(living_thread(p, &own));
	struct err *e = children_only ? children(p, &pids) : everyone(p, own, &pids);
	for (size_t i = 0; !e && i < pids.n; i++) {
		if (pids.items[i] == p->pid)
			continue;
		int r = shares(p, own, pids.items[i]);
		if (r < 0) {
			e = process__err(p, 0, ERR_REFUSED, -r, NULL,
					 "it cannot be told whether process %d shares its memory", pids.items[i]);
		} else if (r > 0) {
			char word[16];
			int len = snprintf(word, sizeof(word), " %d", pids.items[i]);
			for (int k = 0; k < len; k++)
				vec__push(&found, word[k]);
			vec__push(&sharing, pids.items[i]);
		}
	}
	if (!e && found.n) {
		vec__push(&found, '\0');
		/* a vfork child may have gone its own way since */
		if (waits_for_vfork(p) || !any_still_shares(p, own, &sharing))
			e = process__err(p, 0, ERR_RETRY, 0, NULL, "a vfork child shares its memory: pid%s",
					 found.items);
		else
			e = process__err(p, 0, ERR_REFUSED, 0, NULL, "other processes share its memory: pid%s",
					 found.items);
	}
	vec__free(&found);
	vec__free(&sharing);
	vec__free(&pids);
	return e;
}
