/* Opening a process and staying with it.
 *
 * PIDs are used again. A handle keeps a pidfd and an open /proc/PID, both of which stay with the
 * process they were opened for (pidfd_open(2); fs/proc/base.c, get_proc_task). The calls that take a
 * number (process_vm_readv, ptrace) are covered by asking the pidfd afterwards: a process that is
 * still there now has had its PID all the time.
 */
#include "inject/process.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "inject/proc.h"

enum { PF_KTHREAD = 0x00200000 }; /* include/linux/sched.h */

ssize_t proc_read(int dirfd, const char *path, char *buf, size_t size)
{
	CLOSE_CLEANUP int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	size_t have = 0;
	while (have < size - 1) {
		ssize_t n = read(fd, buf + have, size - 1 - have);
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		have += (size_t)n;
	}
	buf[have] = '\0';
	return (ssize_t)have;
}

int proc_slurp(int dirfd, const char *path, char **text, size_t *len)
{
	CLOSE_CLEANUP int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	size_t cap = 65536;
	size_t have = 0;
	char *buf = xmalloc(cap);
	for (;;) {
		ssize_t n = read(fd, buf + have, cap - 1 - have);
		if (n < 0) {
			int e = errno;
			free(buf);
			return -e;
		}
		if (n == 0)
			break;
		have += (size_t)n;
		if (cap - have < 8192) {
			cap *= 2;
			buf = xreallocarray(buf, cap, 1);
		}
	}
	buf[have] = '\0';
	*text = buf;
	*len = have;
	return 0;
}

int proc_stat(int dirfd, const char *path, struct proc_stat *out)
{
	char buf[1024];
	ssize_t n = proc_read(dirfd, path, buf, sizeof(buf));
	if (n < 0)
		return (int)n;
	/* the name may hold anything, also ')' and blanks: the last ')' ends it */
	char *s = strrchr(buf, ')');
	if (!s || s[1] != ' ')
		return -EIO;
	char *save = NULL;
	int field = 3;
	*out = (struct proc_stat){0};
	for (char *w = strtok_r(s + 2, " ", &save); w; w = strtok_r(NULL, " ", &save), field++) {
		switch (field) {
		case 3:
			out->state = w[0];
			break;
		case 4:
			out->ppid = (pid_t)strtol(w, NULL, 10);
			break;
		case 9:
			out->flags = strtoul(w, NULL, 10);
			break;
		case 20:
			out->threads = strtoul(w, NULL, 10);
			break;
		case 22:
			out->start_time = strtoull(w, NULL, 10);
			break;
		case 23:
			out->vsize = strtoull(w, NULL, 10);
			break;
		case 28:
			out->stack = strtoull(w, NULL, 10);
			return 0;
		default:
			break;
		}
	}
	return -EIO;
}

const char *proc_field(const char *status, const char *key)
{
	size_t len = strlen(key);
	for (const char *line = status; line; line = strchr(line, '\n')) {
		if (*line == '\n')
			line++;
		if (strncmp(line, key, len) == 0 && line[len] == ':')
			return line + len + 1 + strspn(line + len + 1, " \t");
	}
	return NULL;
}

struct err *process__err(const struct process *p, pid_t tid, enum err_kind kind, int errnum, const char *hint,
			 const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	char why[512];
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	FREE_CLEANUP char *who =
	    tid && tid != p->pid ? xasprintf("pid %d thread %d", p->pid, tid) : xasprintf("pid %d", p->pid);
	return err__new(kind, errnum, who, hint, "%s", why);
}

/* The dynamic loader that the program asks for (gABI, "Program Interpreter"); "" for none. */
static void read_interpreter(int fd, const Elf64_Ehdr *h, char name[PATH_MAX])
{
	Elf64_Phdr ph;
	name[0] = '\0';
	for (unsigned i = 0; i < h->e_phnum && h->e_phentsize == sizeof(ph); i++) {
		if (pread(fd, &ph, sizeof(ph), (off_t)(h->e_phoff + i * sizeof(ph))) != (ssize_t)sizeof(ph))
			return;
		if (ph.p_type != PT_INTERP || ph.p_filesz >= PATH_MAX)
			continue;
		ssize_t n = pread(fd, name, ph.p_filesz, (off_t)ph.p_offset);
		name[n > 0 ? n : 0] = '\0';
		return;
	}
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* Programs of glibc alone: of others, and of those without any library, nothing is known. One that was started through
 * the dynamic loader by name has that for an executable. */
static struct err *check_interpreter(const struct process *p, int fd, const Elf64_Ehdr *h)
{
	char name[PATH_MAX], exe[PATH_MAX];
	read_interpreter(fd, h, name);
	if (strcmp(base_name(name), "ld-linux-x86-64.so.2") == 0)
		return NULL;
	if (*name)
		return process__err(p, 0, ERR_REFUSED, 0, NULL,
				    "its dynamic loader is %s, not that of glibc, which alone is supported", name);
	ssize_t n = readlinkat(p->dirfd, "exe", exe, sizeof(exe) - 1);
	exe[n > 0 ? n : 0] = '\0';
	return n > 0 && strncmp(base_name(exe), "ld-", 3) != 0
		   ? process__err(p, 0, ERR_REFUSED, 0, "restart it with its new build",
				  "its program is linked statically: it has no libraries")
		   : NULL;
}

/* Says ELFCLASS64 for this machine, or why not. */
static struct err *check_executable(const struct process *p)
{
	CLOSE_CLEANUP int fd = openat(p->dirfd, "exe", O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		if (errno == EACCES || errno == EPERM)
			return process__err(p, 0, ERR_PERMISSION, errno, "run as root or as the owner of the process",
					    "its executable may not be read");
		if (errno == ESRCH || errno == ENOENT) {
			/* or its first thread alone: then /proc/PID shows nothing of the memory that the others use */
			TRY(process__alive(p));
			return process__err(p, 0, ERR_REFUSED, 0, NULL,
					    "its first thread has ended, without which it cannot be looked at");
		}
		return process__err(p, 0, ERR_UNREADABLE, errno, NULL, "its executable cannot be opened");
	}
	Elf64_Ehdr h;
	ssize_t n = pread(fd, &h, sizeof(h), 0);
	if (n < 0)
		return process__err(p, 0, ERR_UNREADABLE, errno, NULL, "its executable cannot be read");
	if (n < EI_NIDENT || memcmp(h.e_ident, ELFMAG, SELFMAG) != 0)
		return process__err(p, 0, ERR_REFUSED, 0, NULL, "its executable is not an ELF file");
	if (h.e_ident[EI_CLASS] != ELFCLASS64)
		return process__err(p, 0, ERR_REFUSED, 0, NULL, "it is a 32-bit process, which is not supported");
	if (n < (ssize_t)sizeof(h) || h.e_machine != EM_X86_64)
		return process__err(p, 0, ERR_REFUSED, 0, NULL, "its executable is not for x86-64");
	return check_interpreter(p, fd, &h);
}

struct err *process__check_proc(void)
{
	char self[16];
	ssize_t n = readlink("/proc/self", self, sizeof(self) - 1);
	self[n > 0 ? n : 0] = '\0';
	return strtol(self, NULL, 10) == getpid() ? NULL
						  : err__new(ERR_PERMISSION, 0, "/proc", "mount it (proc(5))",
							     "it is not mounted, or for another PID namespace");
}

static struct err *open_parts(struct process *p)
{
	TRY(process__check_proc());
	p->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
	if (p->pidfd < 0) {
		/* EINVAL: a thread that is not the leader of its group (pidfd_open(2)) */
		if (errno == EINVAL)
			return process__err(p, 0, ERR_USAGE, 0, NULL, "this is not a process but one thread of one");
		if (errno == ESRCH)
			return process__err(p, 0, ERR_GONE, 0, NULL, "no such process");
		return process__err(p, 0, ERR_SYSTEM, errno, NULL, "pidfd_open failed");
	}
	char path[32];
	snprintf(path, sizeof(path), "/proc/%d", p->pid);
	p->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->dirfd < 0) {
		int why = errno;
		TRY(process__alive(p));
		if (why == ENOENT) /* mounted with hidepid=, or for another PID namespace (proc(5)) */
			return process__err(p, 0, ERR_PERMISSION, 0,
					    "run as root, with /proc mounted for all processes", "/proc hides it");
		return process__err(p, 0, why == EACCES ? ERR_PERMISSION : ERR_SYSTEM, why, NULL, "cannot open %s",
				    path);
	}

	struct proc_stat st;
	int r = proc_stat(p->dirfd, "stat", &st);
	if (r < 0)
		return process__err(p, 0, r == -EACCES ? ERR_PERMISSION : ERR_GONE, -r, NULL, "cannot read %s/stat",
				    path);
	p->start_time = st.start_time;
	char name[64];
	ssize_t n = proc_read(p->dirfd, "comm", name, sizeof(name));
	if (n > 0 && name[n - 1] == '\n')
		name[n - 1] = '\0';
	p->name = xstrdup(n > 0 ? name : "?");
	if (st.flags & PF_KTHREAD)
		return process__err(p, 0, ERR_REFUSED, 0, NULL, "it is a kernel thread");
	TRY(process__alive(p));
	return check_executable(p);
}

struct err *process__open(pid_t pid, struct process **out)
{
	FREE_CLEANUP char *who = xasprintf("pid %d", pid);
	if (pid <= 0)
		return err__new(ERR_USAGE, 0, who, NULL, "this is not a process id");
	if (pid == getpid())
		return err__new(ERR_REFUSED, 0, who, NULL, "it is this tool itself");
	struct process *p = xcalloc(1, sizeof(*p));
	p->pid = pid;
	p->pidfd = p->dirfd = -1;
	struct err *e = open_parts(p);
	if (e) {
		process__close(p);
		return e;
	}
	*out = p;
	return NULL;
}

void process__close(struct process *p)
{
	if (!p)
		return;
	close_cleanup(&p->pidfd);
	close_cleanup(&p->dirfd);
	free(p->name);
	free(p);
}

pid_t process__pid(const struct process *p)
{
	return p->pid;
}

uint64_t process__start_time(const struct process *p)
{
	return p->start_time;
}

taddr_t process__stack_start(const struct process *p)
{
	struct proc_stat st;
	return taddr(proc_stat(p->dirfd, "stat", &st) == 0 ? st.stack : 0);
}

const char *process__name(const struct process *p)
{
	return p->name;
}

int process__dirfd(const struct process *p)
{
	return p->dirfd;
}

void process__trace_to(struct process *p, struct trace *t)
{
	p->trace = t;
}

struct trace *process__trace(const struct process *p)
{
	return p->trace;
}

void process__keep_files_in(struct process *p, struct file_memo *m)
{
	p->files = m;
}

struct file_memo *process__files(const struct process *p)
{
	return p->files;
}

void process__know_others(struct process *p, const struct census *c)
{
	p->census = c;
}

void process__did(const struct process *p, const char *what, uint64_t since, const struct err *e, struct trace_arg more)
{
	trace__step(p->trace, p->pid, what, since, e, more);
}

struct err *process__alive(const struct process *p)
{
	/* readable once the whole thread group has ended (pidfd_open(2)) */
	struct pollfd f = {.fd = p->pidfd, .events = POLLIN};
	int n = poll(&f, 1, 0);
	if (n == 0)
		return NULL;
	if (n < 0)
		return process__err(p, 0, ERR_SYSTEM, errno, NULL, "poll failed");
	return process__err(p, 0, ERR_GONE, 0, NULL, "the process ended");
}
