/* Commands, temporary directories, files, mappings; see support.h. */
#include "support/support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/target.h"

/* Strings that live until the teardown; those that are directories of temp_dir() go from the disk too. */
struct kept {
	struct kept *next;
	bool directory;
	char text[];
};
static struct kept *kept;

static const char *keep(const char *text, bool directory)
{
	size_t len = strlen(text) + 1;
	struct kept *k = malloc(sizeof(*k) + len);

	cr_assert(k != NULL, "no memory");
	k->next = kept;
	k->directory = directory;
	memcpy(k->text, text, len);
	kept = k;
	return k->text;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void support__teardown(void)
{
	targets__kill_all();
	while (kept) {
		struct kept *k = kept;
		kept = k->next;
		if (k->directory)
			nftw(k->text, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
		free(k);
	}
}

int64_t support__now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static pid_t start(const char *const argv[], int out, int err)
{
	pid_t pid = fork();

	cr_assert_neq(pid, -1, "cannot fork");
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(null, STDIN_FILENO);
		dup2(out >= 0 ? out : null, STDOUT_FILENO);
		dup2(err >= 0 ? err : null, STDERR_FILENO);
		execvp(argv[0], (char *const *)argv);
		dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	return pid;
}

static int exit_code_of(int status)
{
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

struct result command__run(const char *const argv[], int seconds)
{
	int64_t deadline = support__now_ms() + seconds * 1000;
	struct result r = {0};
	struct {
		int ours, theirs;
		char **text;
		size_t size;
		FILE *sink;
	} s[2] = {{.text = &r.out}, {.text = &r.err}};

	for (int i = 0; i < 2; i++) {
		int fds[2];
		cr_assert(pipe2(fds, O_CLOEXEC) == 0);
		s[i].ours = fds[0];
		s[i].theirs = fds[1];
		s[i].sink = open_memstream(s[i].text, &s[i].size);
	}
	pid_t pid = start(argv, s[0].theirs, s[1].theirs);
	close(s[0].theirs);
	close(s[1].theirs);
	for (int open_ends = 2; open_ends > 0;) {
		struct pollfd p[2] = {{.fd = s[0].ours, .events = POLLIN}, {.fd = s[1].ours, .events = POLLIN}};
		int64_t left = deadline - support__now_ms();
		if (left <= 0)
			kill(pid, SIGKILL);
		cr_assert_gt(left, 0, "%s does not end within %d s", argv[0], seconds);
		if (poll(p, 2, (int)left) <= 0)
			continue;
		for (int i = 0; i < 2; i++) {
			char buf[4096];
			if (!p[i].revents)
				continue;
			ssize_t n = read(s[i].ours, buf, sizeof(buf));
			if (n > 0) {
				fwrite(buf, 1, (size_t)n, s[i].sink);
			} else if (n == 0 || errno != EINTR) {
				close(s[i].ours);
				s[i].ours = -1;
				open_ends--;
			}
		}
	}
	fclose(s[0].sink);
	fclose(s[1].sink);
	r.exit_code = command__wait(pid, seconds);
	return r;
}

pid_t command__start(const char *const argv[])
{
	return start(argv, -1, -1);
}

int command__wait(pid_t pid, int seconds)
{
	/* An end is seen through the pidfd: no polling with sleeps. */
	int fd = pidfd_open(pid, 0), status = 0;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int ready = fd < 0 ? 1 : poll(&p, 1, seconds * 1000);

	if (fd >= 0)
		close(fd);
	if (ready != 1)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	cr_assert_eq(ready, 1, "pid %d does not end within %d s", pid, seconds);
	return exit_code_of(status);
}

bool command__ended(pid_t pid, int *exit_code)
{
	int status;

	if (waitpid(pid, &status, WNOHANG) != pid)
		return false;
	*exit_code = exit_code_of(status);
	return true;
}

void result__free(struct result *r)
{
	free(r->out);
	free(r->err);
	*r = (struct result){0};
}

/* ---- what a command has made ---- */

static bool has_ended(pid_t pid)
{
	char path[64], state = 'X';
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *f = fopen(path, "re");
	if (f && fscanf(f, "%*[^)]) %c", &state) != 1) /* ours have no such sign in their names */
		state = 'X';
	if (f)
		fclose(f);
	return state == 'X' || state == 'Z';
}

/* `signal` 0: none. */
static unsigned go_through(pid_t pid, int signal)
{
	unsigned n = 0;
	char path[64];
	pid_t child;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	FILE *f = fopen(path, "re");
	while (f && fscanf(f, "%d", &child) == 1) {
		n += go_through(child, signal) + !has_ended(child);
		if (signal)
			kill(child, signal);
	}
	if (f)
		fclose(f);
	return n;
}

void descendants__kill(pid_t pid, int signal)
{
	go_through(pid, signal);
}

unsigned descendants__count(pid_t pid)
{
	return go_through(pid, 0);
}

const char *temp_dir(void)
{
	char path[] = "/tmp/llu-test-XXXXXX";

	cr_assert(mkdtemp(path) != NULL, "cannot make a temporary directory");
	/* For tests in which another user looks in. */
	cr_assert(chmod(path, 0755) == 0);
	return keep(path, true);
}

const char *path_of(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return keep(text, false);
}

void file__copy(const char *from, const char *to)
{
	struct stat st;
	int in = open(from, O_RDONLY | O_CLOEXEC);

	cr_assert(in >= 0 && fstat(in, &st) == 0, "cannot read %s: %s", from, strerror(errno));
	int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	cr_assert_geq(out, 0, "cannot make %s: %s", to, strerror(errno));
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(out, in, NULL, (size_t)left);
		cr_assert_gt(n, 0, "cannot copy %s: %s", from, strerror(errno));
		left -= n;
	}
	close(in);
	close(out);
}

void file__write(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);

	cr_assert(fd >= 0 && write(fd, data, len) == (ssize_t)len, "cannot write %s", path);
	close(fd);
}

void file__patch(const char *path, size_t offset, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	cr_assert(fd >= 0 && pwrite(fd, data, len, (off_t)offset) == (ssize_t)len, "cannot patch %s", path);
	close(fd);
}

size_t file__size(const char *path)
{
	struct stat st;

	cr_assert(stat(path, &st) == 0, "no %s", path);
	return (size_t)st.st_size;
}

void file__truncate(const char *path, size_t len)
{
	cr_assert(truncate(path, (off_t)len) == 0, "cannot truncate %s", path);
}

size_t maps__find(pid_t pid, const char *part, struct map *out, size_t max)
{
	char path[64], line[1024];
	size_t n = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	FILE *f = fopen(path, "re");
	cr_assert(f != NULL, "no process %d", pid);
	while (fgets(line, sizeof(line), f)) {
		struct map m = {0};
		if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %511[^\n]", &m.start, &m.end, m.prot, m.path) < 3 ||
		    !strstr(m.path, part))
			continue;
		if (n < max)
			out[n] = m;
		n++;
	}
	fclose(f);
	return n;
}

bool text__has(const char *text, const char *pattern)
{
	regex_t re;

	cr_assert_eq(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0, "bad pattern %s", pattern);
	bool has = regexec(&re, text, 0, NULL, 0) == 0;
	regfree(&re);
	return has;
}
