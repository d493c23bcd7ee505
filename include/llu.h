/* libllu: brings the new code of updated libraries into running processes.
 *
 * It is what llvupdate, cllvupdate, llusplit and procmap are made of, for those who build it into their own tools.
 * llvupdate(8) says what an update is, what it refuses and why; docs/json.md describes the JSON documents.
 *
 *     struct llu_options opt = {.size = sizeof(opt), .pids = &pid, .n_pids = 1};
 *     struct llu_operation *x;
 *     struct llu_error *e = llu_operation__new(&opt, &x);
 *     if (!e)
 *             e = llu_operation__look(x);                      does it run old code? nothing is touched
 *     while (!e && llu_operation__pending(x) && tries--)
 *             e = llu_operation__try(x);                       one try of all that are pending
 *     if (!e)
 *             llu_operation__end(x);
 *     if (!e)
 *             llu_operation__write_json(x, stdout);
 *     else
 *             complain(e);                                     yours: llu_error__text(e), llu_error__free(e)
 *     llu_operation__free(x);
 *
 * Errors. A function that can fail returns an error that the caller releases, or NULL. What becomes of one process is
 * no error of the operation: it is in its view. If memory runs out, the program is ended (abort(3)).
 *
 * Ownership. What a function hands out through `out` is the caller's, to be released with the type's __free(), which
 * takes NULL; it is NULL after an error. Pointers to const belong to the handle that they were asked of, and last until
 * its next step. Paths and lists that are given are needed for the call alone.
 *
 * Options. `size` is sizeof the structure that the caller was compiled with; what the caller does not know is taken as
 * zero, and zero is always the default. What the library does not know must be zero, and so must be `reserved`.
 *
 * Texts are printable and in English; names of others are in them as they are, if they are UTF-8. Numbers are written
 * as in the C locale, whatever the program's locale is.
 *
 * The program. Operations and recovery fork processes that do the work: they have nothing of the program but its
 * memory, its environment and its files 0 to 2, and end with it, or when the handle is released. They announce their
 * end by no signal, and wait(2) passes them over (but not with __WALL); handlers of pthread_atfork(3) do not run. A
 * fork has the locks of all threads, so a program that has more than one is refused (LLU_ERROR_REFUSED), as is one
 * without files 0 to 2, or with more rights than who started it (set-user-ID, file capabilities). All calls for one
 * handle are made by one thread, in the process that made it, and none of them in a callback. From the look to the
 * release the soft limit of open files (RLIMIT_NOFILE) is at the hard one, and a file is open for each process that is
 * pending.
 *
 * Rights. Each function says LLU_ERROR_PERMISSION, of itself or of a process, where the caller may not do what it
 * takes: to update processes of others needs CAP_SYS_PTRACE, and llvupdate.service names what else.
 *
 * Environment. Users who are not root have logs in $XDG_STATE_HOME, images in $XDG_CACHE_HOME and locks in
 * $XDG_RUNTIME_DIR; debug information is also asked for where DEBUGINFOD_URLS says.
 *
 * Versions. What is here has the symbol version LLU_0.1. A symbol never changes its meaning. New functions come with a
 * new version; new options and new members of views stand behind all that were there. (Who uses a new member needs a
 * library that has it: a package's dependencies say so.) Until 1.0 a release may break that; then the name of the
 * library, libllu.so.0, changes.
 */
#ifndef LLU_H
#define LLU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LLU_MUST_CHECK __attribute__((warn_unused_result))
#else
#define LLU_MUST_CHECK
#endif

/* Of the library that the program runs with: "MAJOR.MINOR.PATCH". */
const char *llu_version(void);

/* ---- errors ---- */

enum llu_error_kind {
	LLU_ERROR_USAGE,      /* an argument, or a file of configuration, makes no sense */
	LLU_ERROR_UNREADABLE, /* a file or a process cannot be read, or is not what it should be */
	LLU_ERROR_REFUSED,    /* understood, and not safe or not supported: nothing was touched */
	LLU_ERROR_PERMISSION, /* the caller may not do this */
	LLU_ERROR_GONE,       /* the process ended */
	LLU_ERROR_BUSY,       /* a debugger, or another operation, holds the process */
	LLU_ERROR_RETRY,      /* not now; may work later */
	LLU_ERROR_SURGERY,    /* something went wrong after the process was touched */
	LLU_ERROR_SYSTEM,     /* the machine refused: no process, no room, ... */
};

struct llu_error;

enum llu_error_kind llu_error__kind(const struct llu_error *e);
/* One line, without a newline, that names what it is about. */
const char *llu_error__text(const struct llu_error *e);
/* What the user can do, or NULL. */
const char *llu_error__hint(const struct llu_error *e);
/* "COMMAND: text" and the hint, on lines of their own. */
void llu_error__print(const struct llu_error *e, const char *command, FILE *to);
void llu_error__free(struct llu_error *e);

/* ---- operations ---- */

/* A preview, or an update, of some processes or of all. */
struct llu_operation;

enum { LLU_TIMEOUT_MAX_S = 300, LLU_TRIES_MAX = 10 };

struct llu_options {
	size_t size;
	/* These processes, each once. */
	const pid_t *pids;
	size_t n_pids;
	/* With `all`: but not these. */
	const pid_t *except;
	size_t n_except;
	/* Pairs of builds that the administrator answers for; NULL: /etc/liveupdate/overrule, if there is one. A file
	 * that cannot be used overrules nothing, and the details of a process that it could have been for say so. */
	const char *overrule;
	/* Asked often during a try; true: no more processes are tried, from then on. What is being tried goes on to the
	 * end of its try. NULL: nobody asks. */
	bool (*stop)(void *context);
	void *context;
	/* Seconds that a try waits for the threads of a process to reach an updatable state, up to LLU_TIMEOUT_MAX_S;
	 * 0: 30. */
	unsigned timeout_s;
	/* All processes that may be operated on, without kernel threads and this one; `pids` is not used then. */
	bool all;
	/* Only look; and find out who needs a restart. llu_operation__try() is an error then. */
	bool preview;
	/* Stop threads too that sleep outside of the libraries. */
	bool strict;
	/* Leave processes alone that did not load a library that llusplit made. */
	bool split_only;
	/* Only debug information will do for the layout of objects. */
	bool require_proof;
	/* JSON names the packages that libraries are of, which takes reading their database. */
	bool packages;
	/* This program is there for this operation alone, as llvupdate is. Then a single process is worked on by the
	 * caller's own process, and what ends that (a target that hangs in the kernel) ends the program; and of what is
	 * said above of programs nothing is checked but their rights. */
	bool own_process;
	/* The end of an update tells the machine's log (journald, syslog) what became of each process. */
	bool syslog;
	/* A line on standard error, where that is a terminal, says how far a step is. */
	bool progress;
	unsigned char reserved[3];
};

/* What became of a process, or of one library in it. */
enum llu_outcome {
	LLU_CURRENT,     /* up to date: nothing to do */
	LLU_PENDING,     /* to be updated: not done yet, or to be tried again */
	LLU_SUCCESS,     /* runs the new code */
	LLU_NOT_UPDATED, /* untouched: refused, or no updatable state was reached */
	LLU_FAILURE,     /* something went wrong: see the reason, and llu_recovery__run() */
};

/* One process, as of the last step. */
struct llu_process {
	pid_t pid;
	uint64_t start_time; /* clock ticks since boot, proc_pid_stat(5) field 22; 0: not known */
	const char *name;    /* one printable word; "-": not known */
	enum llu_outcome outcome;
	bool pending; /* a try may bring more */
	bool unknown; /* no more is known than this: it could not be looked at, was lost, or its turn never came */
	bool not_permitted;  /* a reason is that the caller may not, or that somebody else is at it */
	bool needs_restart;  /* preview: it has outdated code that no update reaches */
	const char *details; /* reasons, times, places: lines of text, for people; "" when there is nothing to say */
	const char *json;    /* its object, as in the document of the operation */
};

/* How it went, as a whole; these are llvupdate's exit codes, and "exit_code" in JSON. */
enum llu_status {
	LLU_STATUS_DONE = 0,          /* all SUCCESS; of a preview: there is something to do */
	LLU_STATUS_NOTHING = 1,       /* nothing to do */
	LLU_STATUS_NOT_UPDATED = 3,   /* some NOT UPDATED */
	LLU_STATUS_FAILURE = 4,       /* some FAILURE */
	LLU_STATUS_NOT_PERMITTED = 5, /* something was not permitted, or another operation was under way */
};

/* Prepares it; no process is looked at yet. LLU_ERROR_USAGE: an option makes no sense, or no process is named.
 * LLU_ERROR_REFUSED: the program may not do this (see above). LLU_ERROR_PERMISSION: /proc is not there, or not that of
 * this PID namespace. */
LLU_MUST_CHECK struct llu_error *llu_operation__new(const struct llu_options *opt, struct llu_operation **out);
/* Takes back what was begun and not finished, and says nothing of it. */
void llu_operation__free(struct llu_operation *x);

/* Each step from the look on is traced to this file, which is made anew (a timeline for ui.perfetto.dev, at most 8 MiB;
 * no contents of memory); NULL: the usual, trace_llu/trcfileLLU in /var/log/liveupdate, or for users below
 * $XDG_STATE_HOME. LLU_ERROR_SYSTEM: it cannot be written; the operation may go on without. */
LLU_MUST_CHECK struct llu_error *llu_operation__trace_to(struct llu_operation *x, const char *path);
/* Looks at the processes and plans; they are not touched and no thread of them waits. Once for an operation. */
LLU_MUST_CHECK struct llu_error *llu_operation__look(struct llu_operation *x);
/* How many processes a try may bring further. */
size_t llu_operation__pending(const struct llu_operation *x);
/* One try of all that are pending: maps what is needed, waits for updatable states, stops the threads that run,
 * exchanges the code, lets them go. LLU_ERROR_USAGE: nothing was looked at, or the operation is a preview. */
LLU_MUST_CHECK struct llu_error *llu_operation__try(struct llu_operation *x);
/* No more tries: what is pending becomes NOT UPDATED. */
void llu_operation__end(struct llu_operation *x);

/* The processes there is something to say of, in the order of the options, or of /proc. */
size_t llu_operation__n_processes(const struct llu_operation *x);
/* NULL: there are not so many. */
const struct llu_process *llu_operation__process(const struct llu_operation *x, size_t i);
enum llu_status llu_operation__status(const struct llu_operation *x);

/* Documents of the operation so far. False with errno: it could not be written. */
bool llu_operation__write_json(const struct llu_operation *x, FILE *to);
/* Of a preview, for Prometheus (text format 0.0.4). */
bool llu_operation__write_metrics(const struct llu_operation *x, FILE *to);

/* What llvupdate says. Steps after these calls speak as AIX llvupdate does: phases, tries, the report; dots while they
 * wait. `out` is borrowed; NULL: silence. */
void llu_operation__speak_to(struct llu_operation *x, FILE *out);
/* Also to a file, that is made anew; the former one is kept with its date. NULL: the usual, llvupdlog in
 * /var/log/liveupdate, or for users below $XDG_STATE_HOME. LLU_ERROR_SYSTEM: it cannot be written;
 * the operation may go on without. */
LLU_MUST_CHECK struct llu_error *llu_operation__log_to(struct llu_operation *x, const char *path);
/* What would be done, or that there is nothing. */
void llu_operation__say_preview(struct llu_operation *x);
/* That the update begins in so many seconds, and has so many tries at most; to wait and to try is the caller's. */
void llu_operation__say_begin(struct llu_operation *x, unsigned seconds, unsigned tries);
/* Who needs a restart. */
void llu_operation__say_restarts(struct llu_operation *x);

/* ---- cleaning up ---- */

/* What an operation that was killed has left in processes, finished or taken back (cllvupdate -u). */
struct llu_recovery;

/* One thing that was found. */
struct llu_recovered {
	pid_t pid;           /* 0: about no process */
	const char *name;    /* of the process, or NULL */
	const char *library; /* its path, or NULL */
	const char *text;    /* what was done, or why nothing could be */
	const char *hint;    /* for what could not be done; may be NULL */
	bool failed;
	enum llu_error_kind kind; /* if it failed */
};

struct llu_recovery_options {
	size_t size;
	bool own_process; /* as in llu_options: the caller's own process does it */
	unsigned char reserved[7];
};

/* Looks at all processes and cleans up; `opt` may be NULL. LLU_ERROR_BUSY: an operation is under way.
 * LLU_ERROR_REFUSED: as llu_operation__new(). *out is there after an error too, with what was done before. */
LLU_MUST_CHECK struct llu_error *llu_recovery__run(const struct llu_recovery_options *opt, struct llu_recovery **out);
size_t llu_recovery__n(const struct llu_recovery *r);
const struct llu_recovered *llu_recovery__item(const struct llu_recovery *r, size_t i);
void llu_recovery__free(struct llu_recovery *r);

/* ---- libraries ---- */

/* Makes an LLU-capable library `out` from any finished one. `like`: a split library whose slots keep their order, or
 * NULL. `out` is there whole or not at all. LLU_ERROR_REFUSED says what in the file cannot be split,
 * LLU_ERROR_UNREADABLE which file cannot be read or written. */
LLU_MUST_CHECK struct llu_error *llu_split(const char *in, const char *out, const char *like);

/* Can one build take over from another? */
struct llu_plan;

struct llu_check_options {
	size_t size;
	const char *overrule; /* as in llu_options */
	bool require_proof;   /* likewise */
	bool unprepared;      /* in a process that loaded the old one as it is */
	unsigned char reserved[6];
};

/* `old_path` and `new_path` are split or plain. `opt` may be NULL. LLU_ERROR_REFUSED, _UNREADABLE: there is no plan,
 * for what one of the files is. */
LLU_MUST_CHECK struct llu_error *llu_plan__make(const char *old_path, const char *new_path,
						const struct llu_check_options *opt, struct llu_plan **out);
bool llu_plan__fits(const struct llu_plan *p);
/* The verdict and its reasons, for people. */
bool llu_plan__write_text(const struct llu_plan *p, FILE *to);
/* As JSON: of a plan, or, where `p` is NULL, of the error there was instead of one. */
bool llu_plan__write_json(const struct llu_plan *p, const struct llu_error *e, FILE *to);
void llu_plan__free(struct llu_plan *p);

/* ---- the view of a process, configuration ---- */

enum llu_map_format {
	LLU_MAP_TEXT, /* as procmap(1) */
	LLU_MAP_GDB,  /* commands for gdb, so that it knows updated code */
};

/* Prints the address space of a process, but not of this one, with the parts of LLU-capable libraries; *any: there is
 * one. What could be printed before an error is. */
LLU_MUST_CHECK struct llu_error *llu_map__write(pid_t pid, enum llu_map_format format, FILE *to, bool *any);

/* What lvupdate.data(5) says of updates that nobody starts by hand. */
struct llu_config {
	bool update;        /* no, unless said */
	unsigned tries;     /* 1 to 10; 3 unless said */
	unsigned timeout_s; /* 1 to 300; 30 unless said */
};

/* `path` NULL: /etc/liveupdate/lvupdate.data. `size` is sizeof *out. LLU_ERROR_USAGE: a line is not understood. */
LLU_MUST_CHECK struct llu_error *llu_config__read(const char *path, size_t size, struct llu_config *out);

#ifdef __cplusplus
}
#endif

#endif
