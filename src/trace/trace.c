/* See trace.h. */
#include "trace/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/printable.h"
#include "base/trusted.h"

enum {
	KEPT_MAX = 1024,   /* events between trace__hold() and trace__let_go() */
	LINE_MAX_ = 1536,  /* all texts escaped, and the rest */
	END_ROOM = 256,    /* for the line that says that it ended */
	CREATE_TRIES = 10, /* when others begin traces at the same time */
	COMM_MAX = 64,
};

/* An event with copies of its texts, one behind the other; the last byte is 0. */
struct kept {
	struct trace_event e;
	char text[TRACE_TEXT_MAX + 1];
};

struct trace {
	int fd;
	uint64_t limit;
	/* Of the whole file: in memory that processes share which are forked from here. */
	_Atomic uint64_t *bytes;
	unsigned held;
	struct kept *kept; /* KEPT_MAX */
	size_t n_kept, n_lost;
	/* Tracks that have their name: PID << 32 | TID, 0 is free; a hash table with a power of two entries. */
	uint64_t *named;
	size_t n_named, named_size;
};

uint64_t trace__now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- lines ---- */

struct line {
	char s[LINE_MAX_];
	size_t n;
};

static void add(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct line *l, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(l->s + l->n, sizeof(l->s) - l->n, fmt, ap);
	va_end(ap);
	l->n += n > 0 ? (size_t)n : 0;
	if (l->n >= sizeof(l->s))
		l->n = sizeof(l->s) - 1; /* never: LINE_MAX_ */
}

/* `s` is printable. */
static void add_string(struct line *l, const char *s)
{
	add(l, "\"");
	for (; *s; s++)
		if (*s == '\t')
			add(l, "\\t");
		else
			add(l, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
	add(l, "\"");
}

/* Whoever brings it over the limit says so, and nobody else. */
static void write_line(struct trace *t, const struct line *l)
{
	static const char end[] =
	    "{\"name\":\"the trace ends here: it is as large as it may become\",\"ph\":\"i\",\"s\":\"g\","
	    "\"ts\":%" PRIu64 ",\"pid\":%d,\"tid\":%d},\n";
	if (atomic_load(t->bytes) > t->limit)
		return;
	uint64_t before = atomic_fetch_add(t->bytes, l->n);
	if (before > t->limit)
		return;
	if (before + l->n > t->limit) {
		dprintf(t->fd, end, trace__now() / 1000, getpid(), getpid());
		return;
	}
	if (write(t->fd, l->s, l->n) != (ssize_t)l->n)
		atomic_store(t->bytes, t->limit + 1); /* a full disk: half a line must not be in the middle */
}

/* ---- tracks ---- */

/* The first time? */
static bool is_new(struct trace *t, uint64_t key)
{
	if (t->n_named * 2 >= t->named_size) {
		uint64_t *old = t->named;
		size_t n = t->named_size;
		t->named_size = n ? n * 2 : 64;
		t->named = xcalloc(t->named_size, sizeof(*t->named));
		t->n_named = 0;
		for (size_t i = 0; i < n; i++)
			if (old[i])
				(void)is_new(t, old[i]);
		free(old);
	}
	size_t i = (size_t)(key * 0x9e3779b97f4a7c15ULL >> 20) & (t->named_size - 1);
	while (t->named[i] && t->named[i] != key)
		i = (i + 1) & (t->named_size - 1);
	if (t->named[i])
		return false;
	t->named[i] = key;
	t->n_named++;
	return true;
}

static void name(struct trace *t, const char *what, pid_t pid, pid_t tid, const char *is)
{
	struct line l = {.n = 0};
	add(&l, "{\"name\":\"%s\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":", what, pid, tid);
	add_string(&l, is);
	add(&l, "}},\n");
	write_line(t, &l);
}

/* As proc(5) has it, printable; "" when the thread is gone. */
static void read_comm(pid_t pid, pid_t tid, char out[COMM_MAX])
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, tid);
	CLOSE_CLEANUP int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, out, COMM_MAX - 1);
	out[n > 0 ? n : 0] = '\0';
	out[strcspn(out, "\n")] = '\0';
	printable(out);
}

static void name_track(struct trace *t, pid_t pid, pid_t tid)
{
	char comm[COMM_MAX];
	if (is_new(t, (uint64_t)pid << 32)) {
		read_comm(pid, pid, comm);
		if (*comm)
			name(t, "process_name", pid, pid, comm);
	}
	if (!is_new(t, (uint64_t)pid << 32 | (uint32_t)tid))
		return;
	read_comm(pid, tid, comm);
	if (tid == getpid())
		name(t, "thread_name", pid, tid, "llvupdate");
	else if (*comm)
		name(t, "thread_name", pid, tid, comm);
}

/* ---- events ---- */

static void put(struct trace *t, const struct trace_event *e)
{
	struct line l = {.n = 0};
	pid_t tid = e->tid ? e->tid : getpid();
	name_track(t, e->pid, tid);
	add(&l, "{\"name\":");
	add_string(&l, e->name);
	add(&l, ",\"ph\":\"%s\",\"ts\":%" PRIu64 ".%03u", e->end ? "X" : "i", e->start / 1000,
	    (unsigned)(e->start % 1000));
	if (e->end) {
		uint64_t took = e->end > e->start ? e->end - e->start : 0;
		add(&l, ",\"dur\":%" PRIu64 ".%03u", took / 1000, (unsigned)(took % 1000));
	} else {
		add(&l, ",\"s\":\"t\"");
	}
	add(&l, ",\"pid\":%d,\"tid\":%d", e->pid, tid);
	for (size_t i = 0; i < TRACE_ARGS && e->args[i].key; i++) {
		add(&l, "%s\"%s\":", i == 0 ? ",\"args\":{" : ",", e->args[i].key);
		if (e->args[i].text)
			add_string(&l, e->args[i].text);
		else
			add(&l, "%" PRId64, e->args[i].number);
	}
	add(&l, "%s},\n", e->args[0].key ? "}" : "");
	write_line(t, &l);
}

/* Copies a text without the folders of paths in it; returns the end of the copy, behind its zero byte, or `to` where
 * there is no room. */
static char *copy_text(char *to, const char *end, const char *s)
{
	char before = ' ';
	if (to == end)
		return to;
	for (; *s && to + 1 < end; before = *s, s++) {
		if (*s == '/' && strchr(" '\"(,", before)) {
			size_t path = strcspn(s, " \t'\"():,;");
			const char *last = memrchr(s, '/', path);
			if (last[1] && last + 1 < s + path)
				s = last + 1;
		}
		*to++ = *s;
	}
	*to = '\0';
	return to + 1;
}

static void keep(struct kept *k, const struct trace_event *e)
{
	char *to = k->text, *end = k->text + TRACE_TEXT_MAX;
	k->e = *e;
	*end = '\0';
	for (size_t i = 0; i < TRACE_ARGS && e->args[i].key; i++) {
		if (!e->args[i].text)
			continue;
		k->e.args[i].text = to; /* the end, where there is no room any more */
		to = copy_text(to, end, e->args[i].text);
	}
}

static void put_kept(struct trace *t, struct kept *k)
{
	for (size_t i = 0; i < TRACE_ARGS && k->e.args[i].key; i++)
		if (k->e.args[i].text)
			printable(k->text + (k->e.args[i].text - k->text));
	put(t, &k->e);
}

void trace__add(struct trace *t, const struct trace_event *e)
{
	struct kept now;
	if (!t)
		return;
	if (!t->held) {
		keep(&now, e);
		put_kept(t, &now);
	} else if (t->n_kept < KEPT_MAX) {
		keep(&t->kept[t->n_kept++], e);
	} else {
		t->n_lost++;
	}
}

void trace__step(struct trace *t, pid_t pid, const char *what, uint64_t since, const struct err *e,
		 struct trace_arg more)
{
	struct trace_event x = {.pid = pid, .name = what, .start = since, .end = t ? trace__now() : 0};
	size_t n = 0;
	if (!t)
		return;
	if (more.key)
		x.args[n++] = more;
	if (e) {
		x.args[n++] = (struct trace_arg){.key = "failed", .text = err_kind__name(err__kind(e))};
		x.args[n++] = (struct trace_arg){.key = "why", .text = err__text(e)};
	}
	trace__add(t, &x);
}

void trace__hold(struct trace *t)
{
	if (t)
		t->held++;
}

void trace__let_go(struct trace *t)
{
	if (!t || --t->held)
		return;
	for (size_t i = 0; i < t->n_kept; i++)
		put_kept(t, &t->kept[i]);
	if (t->n_lost) {
		struct trace_event e = {.pid = getpid(),
					.name = "events are missing here: too many while threads stood still",
					.start = trace__now(),
					.args = {{.key = "events", .number = (int64_t)t->n_lost}}};
		put(t, &e);
	}
	t->n_kept = t->n_lost = 0;
}

/* ---- the file ---- */

static int create(const char *path)
{
	FREE_CLEANUP char *old = xasprintf("%s.old", path);
	struct stat st;
	int fd = -1;
	for (int i = 0; i < CREATE_TRIES && fd < 0; i++) {
		if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
			errno = EEXIST;
			return -1;
		}
		if (rename(path, old) < 0 && errno != ENOENT)
			return -1;
		fd = trusted__create(path);
		if (fd < 0 && errno != EEXIST)
			return -1;
	}
	if (fd >= 0) {
		(void)fcntl(fd, F_SETFL, O_APPEND);
		(void)fchmod(fd, 0600);
	}
	return fd;
}

/* Beyond the limit of the user's (setrlimit(2)) a signal would end the tool. */
static uint64_t limit_of(uint64_t max)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_FSIZE, &r) == 0 && r.rlim_cur < max)
		max = r.rlim_cur;
	return max > END_ROOM ? max - END_ROOM : 0;
}

/* The clock of the timeline begins when the machine starts; this is how it is brought together with a log. */
static void begin(struct trace *t)
{
	char when[64];
	struct tm tm;
	time_t now = time(NULL);
	struct line l = {.n = 0};
	add(&l, "[\n");
	write_line(t, &l);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S%z", localtime_r(&now, &tm));
	struct trace_event e = {.pid = getpid(),
				.name = "the trace begins",
				.start = trace__now(),
				.args = {{.key = "time", .text = when}}};
	put(t, &e);
}

struct trace *trace__open(const char *path, uint64_t max)
{
	int fd = create(path);
	if (fd < 0)
		return NULL;
	struct trace *t = xcalloc(1, sizeof(*t));
	t->fd = fd;
	t->limit = limit_of(max);
	t->bytes = mmap(NULL, sizeof(*t->bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (t->bytes == MAP_FAILED) {
		t->bytes = NULL;
		trace__close(t);
		errno = ENOMEM;
		return NULL;
	}
	t->kept = xmalloc(KEPT_MAX * sizeof(*t->kept));
	memset(t->kept, 0, KEPT_MAX * sizeof(*t->kept)); /* its pages are there when threads stand still */
	begin(t);
	return t;
}

int trace__file(const struct trace *t)
{
	return t ? t->fd : -1;
}

void trace__close(struct trace *t)
{
	if (!t)
		return;
	if (t->bytes)
		munmap(t->bytes, sizeof(*t->bytes));
	close(t->fd);
	free(t->kept);
	free(t->named);
	free(t);
}
