/* Text output; see report.h. */
#include "report/report.h"

#include "base/printable.h"
#include "image/gate.h"
#include "remap/tree.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

void report__error(FILE *to, const char *command, const struct err *e)
{
	fprintf(to, "%s: %s\n", command, err__text(e));
	if (err__hint(e))
		fprintf(to, "  %s\n", err__hint(e));
}

void report__say(struct report *r, const char *fmt, ...)
{
	FILE *const to[] = {r->out, r->log};
	char *text = NULL;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (r->dots)
		fputc('\n', r->out);
	r->dots = false;
	for (size_t i = 0; n >= 0 && i < 2; i++) {
		if (!to[i])
			continue;
		fputs(text, to[i]);
		fflush(to[i]);
	}
	free(text);
}

/* ---- states ---- */

static const char *const states[] = {
    [OUTCOME_CURRENT] = "CURRENT",         [OUTCOME_PENDING] = "TO UPDATE", [OUTCOME_SUCCESS] = "SUCCESS",
    [OUTCOME_NOT_UPDATED] = "NOT UPDATED", [OUTCOME_FAILURE] = "FAILURE",
};

const char *report__outcome(enum outcome o)
{
	return states[o];
}

struct report_summary report__summarise(const struct record *list, size_t n)
{
	struct report_summary s = {0};
	for (size_t i = 0; i < n; i++) {
		s.success += list[i].outcome == OUTCOME_SUCCESS;
		s.not_updated += list[i].outcome == OUTCOME_NOT_UPDATED;
		s.failure += list[i].outcome == OUTCOME_FAILURE;
		s.to_do += list[i].outcome == OUTCOME_PENDING;
	}
	return s;
}

/* ---- words of others ----
 *
 * Programs read this text by its words: by their places in a line, and by "LLU Report", "pid N" and "Library needs to
 * be updated" (tests/update/client.py). A process names itself, and paths are whatever somebody made them. So a name or
 * a path is always one word, and sentences say those words in another way. All of these are to be freed. */

char *report__name(const struct report_target *t)
{
	return printable__word(t->target ? t->target->name : t->name ? t->name : "-");
}

enum outcome report__outcome_now(const struct report_target *t)
{
	return t->target ? target__outcome(t->target) : t->passed_over ? OUTCOME_CURRENT : OUTCOME_NOT_UPDATED;
}

/* " (UNIT)", or nothing. */
static char *unit_of(const struct report_target *t)
{
	FREE_CLEANUP char *unit = t->where.unit ? printable__word(t->where.unit) : NULL;
	return unit ? xasprintf(" (%s)", unit) : xstrdup("");
}

static char *path_of(const struct result *x)
{
	return printable__word(x->library->path);
}

/* Would "pid" and this be taken for a process? Digits and blanks beyond ASCII count. */
static bool is_number_behind(const char *s)
{
	size_t blanks = strspn(s, " \t\n");
	uint8_t c = (uint8_t)s[blanks];
	return c == 0 || c >= 0x80 || (blanks && c >= '0' && c <= '9');
}

/* Words that have a meaning are put in another way; of the same length. */
char *report__sentence(const char *s)
{
	static const struct {
		const char *is;
		size_t blank; /* where it becomes "_" */
	} phrases[] = {{"LLU Report", 3}, {"Library needs to be updated", 7}};
	char *copy = xstrdup(s);
	for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++)
		for (char *p = copy; (p = strstr(p, phrases[i].is));)
			p[phrases[i].blank] = '_';
	for (char *p = copy; (p = strstr(p, "pid")); p += 3)
		if (is_number_behind(p + 3)) {
			p[0] = 'P';
			p[1] = 'I';
			p[2] = 'D';
		}
	return copy;
}

/* A line of its own. */
static void say_sentence(struct report *r, const char *before, const char *text)
{
	FREE_CLEANUP char *words = report__sentence(text);
	report__say(r, "%s%s\n", before, words);
}

/* The file that stands there now, as the process sees it. */
static char *new_module(const struct result *r)
{
	return printable__word(r->library->now ? tree__path(r->library->now) : r->library->path);
}

/* ---- what is left out ---- */

void report__left_out(struct report *r, const size_t counts[LEFT_OUT_KINDS])
{
	static const char *const one[] = {[LEFT_OUT_SELF] = "llvupdate itself",
					  [LEFT_OUT_KERNEL] = "1 kernel thread",
					  [LEFT_OUT_NEVER] = "1 that is never updated",
					  [LEFT_OUT_OTHERS] = "1 that may not be read",
					  [LEFT_OUT_INIT] = "1 init of a system that boots or shuts down",
					  [LEFT_OUT_ENDED] = "1 that has ended"};
	static const char *const several[] = {[LEFT_OUT_SELF] = "%zu of llvupdate itself",
					      [LEFT_OUT_KERNEL] = "%zu kernel threads",
					      [LEFT_OUT_NEVER] = "%zu that are never updated",
					      [LEFT_OUT_OTHERS] = "%zu that may not be read",
					      [LEFT_OUT_INIT] = "%zu inits of systems that boot or shut down",
					      [LEFT_OUT_ENDED] = "%zu that have ended"};
	const char *before = "Left out by rule: ";
	for (size_t i = 0; i < LEFT_OUT_KINDS; i++) {
		if (!counts[i])
			continue;
		report__say(r, "%s", before);
		if (counts[i] == 1)
			report__say(r, "%s", one[i]);
		else
			report__say(r, several[i], counts[i]);
		before = ", ";
	}
	if (*before == ',')
		report__say(r, "\n");
}

/* ---- preview ---- */

/* Reasons that come from below name the library themselves, and are printable. */
static const char *without_path(const struct result *x)
{
	FREE_CLEANUP char *path = printable__copy(x->library->path);
	size_t n = strlen(path);
	return strncmp(x->reason, path, n) == 0 && strncmp(x->reason + n, ": ", 2) == 0 ? x->reason + n + 2 : x->reason;
}

/* What the overrule file had to say. */
static void say_overrule(struct report *r, const struct result *x)
{
	if (x->plan && x->plan->overrule)
		say_sentence(r, "  ", x->plan->overrule);
}

static void why_not(struct report *r, const struct result *x)
{
	if (x->plan && x->plan->refusals.n > 1)
		report__say(r, "  and %zu more reasons (llusplit --check shows them)\n", x->plan->refusals.n - 1);
	say_overrule(r, x);
	if (x->hint)
		say_sentence(r, "  ", x->hint);
}

static void what_became(struct report *r, const struct report_target *t, const struct result *x)
{
	FREE_CLEANUP char *name = report__name(t), *path = path_of(x), *unit = unit_of(t);
	FREE_CLEANUP char *why = report__sentence(without_path(x));
	report__say(r,
		    x->outcome == OUTCOME_FAILURE ? "Process %s pid %d%s: the update of %s failed: %s\n"
						  : "Process %s pid %d%s: %s is not updated: %s\n",
		    name, t->pid, unit, path, why);
	why_not(r, x);
}

/* The libraries that are updated with this one, if any. */
static void say_group(struct report *r, const struct report_target *t, const struct result *x)
{
	for (size_t i = 0; x->group && i < x->group->n; i++) {
		const struct result *other = &t->target->results[x->group->members[i]];
		FREE_CLEANUP char *path = path_of(other);
		if (other != x)
			report__say(r, "  as one with %s\n", path);
	}
}

void report__preview(struct report *r, const struct report_target *t)
{
	if (t->passed_over)
		return;
	if (!t->target) { /* the error names the process */
		say_sentence(r, "Cannot look at ", err__text(t->error));
		if (err__hint(t->error))
			say_sentence(r, "  ", err__hint(t->error));
		return;
	}
	for (size_t i = 0; i < t->target->libraries.n; i++) {
		const struct result *x = &t->target->results[i];
		if (x->outcome == OUTCOME_CURRENT)
			continue;
		FREE_CLEANUP char *name = report__name(t), *path = path_of(x), *module = new_module(x);
		report__say(r, "An LLU-capable library is newer for process %s pid %d.\n", name, t->pid);
		report__say(r, "Library needs to be updated %s(_impl)\n", path);
		report__say(r, "Validating new module %s\n", module);
		if (loaded__is_plain(x->library))
			report__say(r, "  unprepared: the library was loaded plain; only what changed moves\n");
		say_group(r, t, x);
		if (x->outcome == OUTCOME_NOT_UPDATED) { /* no PID here: it would go with the next library */
			say_sentence(r, "  is not updated: ", without_path(x));
			why_not(r, x);
		} else {
			say_overrule(r, x);
		}
	}
}

void report__begins_in(struct report *r, unsigned seconds)
{
	report__say(r, "\nNon-interruptable live library update operation begins in\n%u seconds.\n", seconds);
}

void report__validating(struct report *r, const struct report_target *t)
{
	if (!t->target)
		return;
	for (size_t i = 0; i < t->target->libraries.n; i++) {
		FREE_CLEANUP char *module = new_module(&t->target->results[i]);
		if (t->target->results[i].outcome == OUTCOME_PENDING)
			report__say(r, "Validating new module %s\n", module);
	}
	FREE_CLEANUP char *name = report__name(t);
	if (target__pending(t->target))
		report__say(r, "Adding the process %s pid %d to the list\n", name, t->pid);
}

/* ---- phases ---- */

void report__try(struct report *r, unsigned n)
{
	report__say(r,
		    "------------------------------------------------------------\n"
		    "************************** TRY %u\n"
		    "**************************\n",
		    n);
}

void report__phase(struct report *r, const char *phase, bool begin, unsigned n, const char *what, size_t count)
{
	report__say(r, "======== %s PHASE %s ======== | try %u | %s:%zu\n", phase, begin ? "BEGIN" : "ENDED", n, what,
		    count);
}

void report__waits(struct report *r, FILE *terminal, bool dots, size_t over, size_t of)
{
	if (terminal)
		fprintf(terminal, "%zu of %zu processes\r", over, of);
	if (terminal || !r->out || !dots)
		return;
	fputc('.', r->out);
	fflush(r->out);
	r->dots = true;
}

void report__try_end(struct report *r, unsigned n, unsigned of, size_t left)
{
	report__say(r, "End of try %u/%u, number of processes to be retried %zu\n", n, of, left);
}

/* ---- details and final report ---- */

static void details_of(struct report *r, const struct report_target *t, const struct result *x)
{
	if (x->outcome != OUTCOME_SUCCESS || !x->plan) {
		what_became(r, t, x);
		return;
	}
	FREE_CLEANUP char *from = elf_file__build_id(x->library->live);
	FREE_CLEANUP char *to = elf_file__build_id(x->plan->next);
	FREE_CLEANUP char *name = report__name(t), *path = path_of(x);
	report__say(r, "Process %s pid %d: %s runs build %s (was %s)\n", name, t->pid, path, to, from);
	report__say(r, "  frozen %.3f ms: %zu of %zu threads stopped, %zu left asleep; %.0f ms in all, %u %s\n",
		    (double)x->frozen_ns / 1e6, x->threads.stopped, x->threads.threads, x->threads.asleep,
		    (double)x->total_ns / 1e6, x->tries, x->tries == 1 ? "try" : "tries");
	say_group(r, t, x);
	if (loaded__is_plain(x->library))
		report__say(
		    r,
		    "  unprepared: %zu functions moved, by jumps at %zu entries on %zu pages of the loaded file; "
		    "the rest of it stays\n",
		    x->plan->n_moved, x->plan->jumps.n, x->plan->pages.n);
	if (x->old_code == OLD_CODE_NOT_LOOKED_AT)
		; /* there is none */
	else if (x->old_code == OLD_CODE_GONE)
		report__say(r, "  the old code is gone (for which threads stood still once more, %.3f ms)\n",
			    (double)x->retire_frozen_ns / 1e6);
	else
		say_sentence(r, "  the old code stays mapped: ", x->held_by);
	for (size_t i = 0; i < x->plan->remarks.n; i++)
		say_sentence(r, "  ", x->plan->remarks.items[i]);
}

void report__details(struct report *r, const struct report_target *t)
{
	if (!t->target)
		return; /* said in the preview */
	for (size_t i = 0; i < t->target->libraries.n; i++)
		if (t->target->results[i].outcome != OUTCOME_CURRENT)
			details_of(r, t, &t->target->results[i]);
}

void report__final(struct report *r, const struct record *list, size_t n)
{
	struct report_summary s = report__summarise(list, n);
	report__say(r, "====================\n==== LLU Report ====\n");
	for (size_t i = 0; i < n; i++)
		if (list[i].concerns)
			report__say(r, "%d %s %s\n", list[i].pid, list[i].name, states[list[i].outcome]);
	report__say(r, "==== LLU Report End ====\n");
	report__say(r, "SUCCESS: %zu NOT UPDATED: %zu FAILURE: %zu\n", s.success, s.not_updated, s.failure);
	report__say(r, "===============================================================\n"
		       "LLU operation is completed.\n");
}

/* ---- the plan alone ---- */

void report__plan(FILE *to, const struct plan *p)
{
	FREE_CLEANUP char *from = elf_file__build_id(p->live), *next = elf_file__build_id(p->next);
	fprintf(to, "old: %s (build-id %s)\nnew: %s (build-id %s)\n", p->live->path, from, p->next->path, next);
	fprintf(to, "functions: %zu with the same instructions, %zu changed, %zu new, %zu gone; %zu new exports\n",
		p->counts.identical, p->counts.changed, p->counts.added, p->counts.removed, p->counts.new_exports);
	fprintf(to, "references to what stays: %zu, of them %zu to constants that keep their address\n",
		p->counts.rebound, p->counts.kept_constants);
	if (p->vapi->plain)
		fprintf(to, "unprepared: %zu functions move, by %zu entries%s\n", p->n_moved, p->jumps.n,
			p->entangled ? "; nobody may be left in their old code" : "");
	fprintf(to, "layout of objects in the heap: %s (of layout, not of meaning)\n", layout_verdict__name(p->layout));
	for (size_t i = 0; i < p->remarks.n; i++)
		fprintf(to, "note: %s\n", p->remarks.items[i]);
	for (size_t i = 0; i < p->refusals.n; i++)
		fprintf(to, "refused (%s): %s\n", p->refusals.items[i].code, p->refusals.items[i].text);
	fprintf(to, "%s\n", p->refusals.n ? "REFUSED" : "FIT");
}
