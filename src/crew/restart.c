/* See restart.h. */
#include "crew/restart.h"

#include <ctype.h>
#include <string.h>

/* What one process can make us hold; the rest is not listed. */
enum { REASONS_MAX = 256 };

static void add(struct report_target *t, const char *path, enum outdated_kind kind, enum outdated_how how,
		const char *code, const char *text, const char *hint)
{
	if (t->restart.reasons.n < REASONS_MAX)
		vec__push(&t->restart.reasons, (struct restart_reason){.path = xstrdup(path),
								       .kind = kind,
								       .how = how,
								       .code = xstrdup(code),
								       .text = xstrdup(text),
								       .hint = hint ? xstrdup(hint) : NULL});
}

/* ---- libraries that an update was planned for ---- */

/* Root, or a later try, would do. */
static bool is_for_another_try(const struct result *r)
{
	return r->kind == ERR_PERMISSION || r->kind == ERR_BUSY || r->kind == ERR_RETRY;
}

static void add_results(struct report_target *t)
{
	for (size_t i = 0; t->target && i < t->target->libraries.n; i++) {
		const struct result *r = &t->target->results[i];
		if ((r->outcome == OUTCOME_NOT_UPDATED || r->outcome == OUTCOME_FAILURE) && !is_for_another_try(r))
			add(t, r->library->path, OUTDATED_LIBRARY, OUTDATED_REPLACED, r->code ? r->code : "refused",
			    r->reason ? r->reason : "it is not updated", r->hint);
	}
}

/* Is the file a library that the update knows about? Of one that is gone without a successor it has nothing to say. */
static bool is_known(const struct report_target *t, const struct outdated_file *f)
{
	for (size_t i = 0; t->target && i < t->target->libraries.n; i++) {
		const struct result *r = &t->target->results[i];
		if (strcmp(r->library->path, f->path) == 0)
			return r->outcome != OUTCOME_CURRENT || r->library->now;
	}
	return false;
}

/* ---- other files ---- */

static bool is_temporary(const char *path)
{
	static const char *const folders[] = {"/tmp/", "/var/tmp/", "/dev/shm/", "/run/"};
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
		if (strncmp(path, folders[i], strlen(folders[i])) == 0)
			return true;
	return false;
}

/* glibc's, of any machine and age (ld-2.31.so), or musl's. */
static bool is_loader(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	return strncmp(name, "ld-linux", 8) == 0 || strncmp(name, "ld-musl-", 8) == 0 ||
	       (strncmp(name, "ld-", 3) == 0 && isdigit((unsigned char)name[3])) || strncmp(name, "ld.so.", 6) == 0;
}

static bool is_its_own(const struct outdated_file *f)
{
	return f->how == OUTDATED_DELETED && f->kind != OUTDATED_PROGRAM &&
	       (f->kind == OUTDATED_OTHER || is_temporary(f->path));
}

static void add_file(struct report_target *t, const struct outdated_file *f, bool split_only)
{
	const char *code, *text;
	if (f->kind == OUTDATED_PROGRAM) {
		code = "program";
		text = "programs are not updated, libraries alone are";
	} else if (is_loader(f->path)) {
		code = "loader";
		text = "the dynamic loader is never updated";
	} else if (!t->target) {
		code = "process";
		text = err__text(t->error);
	} else if (f->how == OUTDATED_DELETED) {
		code = "removed";
		text = "no file stands at its path any more";
	} else if (split_only) {
		code = "split-only";
		text = "it was loaded plain, and such libraries were to be left alone";
	} else {
		code = "no-library";
		text = "it is no library that the dynamic loader has loaded and that has a SONAME";
	}
	add(t, f->path, f->kind, f->how, code, text, "restart the process");
}

/* ---- a process ---- */

static bool may_be_listed(const struct report_target *t)
{
	enum err_kind kind = t->error ? err__kind(t->error) : ERR_REFUSED;
	return kind == ERR_REFUSED || kind == ERR_UNREADABLE;
}

void restart__find(struct scan *s, struct report_target *t, bool split_only)
{
	struct outdated found;
	t->restart.state = RESTART_UNKNOWN;
	if (!may_be_listed(t))
		return;
	ERR_CLEANUP struct err *e = scan__process(s, t->pid, &found);
	ERR_CLEANUP struct err *gone = t->target ? process__alive(t->target->process) : NULL;
	if (!e && !gone) {
		t->restart.state = RESTART_KNOWN;
		add_results(t);
		for (size_t i = 0; i < found.files.n; i++)
			if (!is_known(t, &found.files.items[i]) && !is_its_own(&found.files.items[i]))
				add_file(t, &found.files.items[i], split_only);
	}
	outdated__free(&found);
}
