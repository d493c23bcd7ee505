/* Programs that a test starts and talks to; see target.h. */
#include "support/target.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/support.h"

enum { HEAR_SECONDS = 30 };

struct target {
	pid_t pid;
	int in, out; /* our ends */
	char *name;
	bool ended;
	int status;
	char buf[8192]; /* what was read and not yet heard: [at, len) */
	size_t at, len;
	char line[4096];
	struct target *next;
};

static struct target *all;

struct target *target__start(const char *const argv[], const char *const env[])
{
	int in[2], out[2];
	struct target *t = calloc(1, sizeof(*t));

	cr_assert(t && pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0, "cannot make pipes");
	t->name = strdup(argv[0]);
	t->pid = fork();
	cr_assert_neq(t->pid, -1, "cannot fork");
	if (t->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		for (; env && *env; env++)
			putenv((char *)*env);
		execv(argv[0], (char *const *)argv);
		fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	t->in = in[1];
	t->out = out[0];
	t->next = all;
	all = t;
	return t;
}

pid_t target__pid(const struct target *t)
{
	return t->pid;
}

void target__say(struct target *t, const char *line)
{
	char text[256];
	int len = snprintf(text, sizeof(text), "%s\n", line);

	cr_assert_eq(write(t->in, text, (size_t)len), len, "cannot say '%s' to %s", line, t->name);
}

static void reap(struct target *t, int options)
{
	if (!t->ended && waitpid(t->pid, &t->status, options) == t->pid)
		t->ended = true;
}

static const char *how_ended(struct target *t)
{
	static char text[128];

	reap(t, 0);
	if (WIFSIGNALED(t->status))
		snprintf(text, sizeof(text), "killed by signal %d (%s)", WTERMSIG(t->status),
			 strsignal(WTERMSIG(t->status)));
	else
		snprintf(text, sizeof(text), "exit code %d", WEXITSTATUS(t->status));
	return text;
}

/* Reads more into the buffer; false at the end of the output. */
static bool read_more(struct target *t, int64_t deadline)
{
	memmove(t->buf, t->buf + t->at, t->len - t->at);
	t->len -= t->at;
	t->at = 0;
	cr_assert_lt(t->len, sizeof(t->buf), "%s says a line without an end", t->name);

	for (;;) {
		struct pollfd p = {.fd = t->out, .events = POLLIN};
		int64_t left = deadline - support__now_ms();
		cr_assert_gt(left, 0, "%s (pid %d) says nothing within %d s", t->name, t->pid, HEAR_SECONDS);
		if (poll(&p, 1, (int)left) <= 0)
			continue;
		ssize_t n = read(t->out, t->buf + t->len, sizeof(t->buf) - t->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		t->len += (size_t)n;
		return true;
	}
}

const char *target__hear(struct target *t)
{
	int64_t deadline = support__now_ms() + HEAR_SECONDS * 1000;

	for (;;) {
		char *start = t->buf + t->at, *end = memchr(start, '\n', t->len - t->at);
		if (end) {
			size_t n = (size_t)(end - start);
			cr_assert_lt(n, sizeof(t->line), "%s says a long line", t->name);
			memcpy(t->line, start, n);
			t->line[n] = '\0';
			t->at += n + 1;
			return t->line;
		}
		cr_assert(read_more(t, deadline), "%s (pid %d) ended: %s", t->name, t->pid, how_ended(t));
	}
}

void target__expect(struct target *t, const char *line)
{
	const char *heard = target__hear(t);

	cr_assert_str_eq(heard, line, "%s said '%s', not '%s'", t->name, heard, line);
}

void target__ask(struct target *t, const char *line, const char *answer)
{
	target__say(t, line);
	target__expect(t, answer);
}

int target__round(struct target *t)
{
	unsigned n;
	int version;

	target__say(t, "round");
	const char *heard = target__hear(t);
	cr_assert_eq(sscanf(heard, "ok %u version=%d", &n, &version), 2, "%s: %s", t->name, heard);
	return version;
}

void target__rounds(struct target *t, unsigned n, int version)
{
	for (unsigned i = 0; i < n; i++) {
		int got = target__round(t);
		cr_assert_eq(got, version, "%s runs version %d, not %d", t->name, got, version);
	}
}

char *target__finish(struct target *t)
{
	int64_t deadline = support__now_ms() + HEAR_SECONDS * 1000;
	char *text = NULL;
	size_t size = 0;
	FILE *rest = open_memstream(&text, &size);

	close(t->in);
	t->in = -1;
	do {
		fwrite(t->buf + t->at, 1, t->len - t->at, rest);
		t->at = t->len;
	} while (read_more(t, deadline));
	fclose(rest);
	reap(t, 0);
	cr_assert(WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0, "%s ended with %s: %s", t->name, how_ended(t),
		  text);
	return text;
}

void target__kill(struct target *t)
{
	if (!t->ended)
		kill(t->pid, SIGKILL);
	reap(t, 0);
}

bool target__alive(struct target *t)
{
	reap(t, WNOHANG);
	return !t->ended;
}

void targets__kill_all(void)
{
	while (all) {
		struct target *t = all;
		all = t->next;
		target__kill(t);
		if (t->in >= 0)
			close(t->in);
		close(t->out);
		free(t->name);
		free(t);
	}
}
