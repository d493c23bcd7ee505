/* What is no operation: cleaning up, libraries, the view of a process, configuration. See llu.h. */
#include "api/api.h"

#include <errno.h>

#include "config/lvupdate_data.h"
#include "crew/clean_up.h"
#include "image/overrule.h"
#include "image/split_file.h"
#include "remap/recover.h"
#include "report/procmap.h"
#include "report/report.h"

/* ---- cleaning up ---- */

struct llu_recovery {
	recovery_list list;
	VEC(struct llu_recovered) views;
};

static struct err *recover(const struct llu_recovery_options *given, recovery_list *list)
{
	struct llu_recovery_options opt;
	TRY(api__options(given, &opt, sizeof(opt)));
	TRY(api__reserved(opt.reserved, sizeof(opt.reserved)));
	TRY(api__check_program());
	if (opt.own_process)
		return recover__all(list);
	TRY(api__check_forking());
	return clean_up__all(list);
}

LLU_API struct llu_error *llu_recovery__run(const struct llu_recovery_options *opt, struct llu_recovery **out)
{
	LOCALE_SCOPE;
	struct llu_recovery *r = *out = xcalloc(1, sizeof(*r));
	struct err *e = recover(opt, &r->list);
	for (size_t i = 0; i < r->list.n; i++) {
		const struct recovery *x = &r->list.items[i];
		vec__push(&r->views, (struct llu_recovered){.pid = x->pid,
							    .name = x->name,
							    .library = x->library,
							    .text = x->text,
							    .hint = x->hint,
							    .failed = x->failed,
							    .kind = x->failed ? api__kind(x->kind) : 0});
	}
	return api__error(e);
}

LLU_API size_t llu_recovery__n(const struct llu_recovery *r)
{
	return r->views.n;
}

LLU_API const struct llu_recovered *llu_recovery__item(const struct llu_recovery *r, size_t i)
{
	return i < r->views.n ? &r->views.items[i] : NULL;
}

LLU_API void llu_recovery__free(struct llu_recovery *r)
{
	if (!r)
		return;
	vec__free(&r->views);
	recovery_list__free(&r->list);
	free(r);
}

/* ---- libraries ---- */

LLU_API struct llu_error *llu_split(const char *in, const char *out, const char *like)
{
	LOCALE_SCOPE;
	struct err *e = api__check_program();
	return api__error(e ? e : split_file__make(in, out, like));
}

struct llu_plan {
	struct file_plan files;
};

static struct err *make_plan(const char *old_path, const char *new_path, const struct llu_check_options *given,
			     struct file_plan *out)
{
	struct llu_check_options opt;
	TRY(api__options(given, &opt, sizeof(opt)));
	TRY(api__reserved(opt.reserved, sizeof(opt.reserved)));
	TRY(api__check_program());
	TRY(file_plan__make(old_path, new_path, opt.unprepared, out));
	struct overrules *overrules = overrules__read(opt.overrule ? opt.overrule : OVERRULE_FILE, opt.overrule);
	overrules__apply(overrules, out->plan);
	overrules__free(overrules);
	if (opt.require_proof)
		plan__require_proof(out->plan);
	return NULL;
}

LLU_API struct llu_error *llu_plan__make(const char *old_path, const char *new_path,
					 const struct llu_check_options *opt, struct llu_plan **out)
{
	LOCALE_SCOPE;
	struct llu_plan *p = xcalloc(1, sizeof(*p));
	struct err *e = make_plan(old_path, new_path, opt, &p->files);
	if (e) {
		llu_plan__free(p);
		p = NULL;
	}
	*out = p;
	return api__error(e);
}

LLU_API bool llu_plan__fits(const struct llu_plan *p)
{
	return p->files.plan->refusals.n == 0;
}

LLU_API bool llu_plan__write_text(const struct llu_plan *p, FILE *to)
{
	LOCALE_SCOPE;
	report__plan(to, p->files.plan);
	return fflush(to) == 0 && !ferror(to);
}

LLU_API bool llu_plan__write_json(const struct llu_plan *p, const struct llu_error *e, FILE *to)
{
	LOCALE_SCOPE;
	if (!p && !e) {
		errno = EINVAL;
		return false;
	}
	if (p)
		report__plan_json(to, p->files.plan);
	else
		report__refused_json(to, (const struct err *)e);
	return fflush(to) == 0 && !ferror(to);
}

LLU_API void llu_plan__free(struct llu_plan *p)
{
	if (!p)
		return;
	file_plan__release(&p->files);
	free(p);
}

/* ---- the view of a process ---- */

static struct err *write_map(pid_t pid, enum llu_map_format format, FILE *to, bool *any)
{
	struct process *p;
	struct mappings maps;
	loaded_list libraries = {0};
	TRY(process__open(pid, &p));
	struct err *e = process__maps(p, &maps);
	if (e) {
		process__close(p);
		return e;
	}
	/* what cannot be understood does not hide the mappings */
	e = discover__libraries(p, DISCOVER_PREPARED, &libraries);
	if (format == LLU_MAP_GDB)
		report__gdb(to, p, &maps, &libraries);
	else
		report__procmap(to, p, &maps, &libraries);
	*any = libraries.n > 0;
	loaded_list__free(&libraries);
	mappings__free(&maps);
	process__close(p);
	return e;
}

LLU_API struct llu_error *llu_map__write(pid_t pid, enum llu_map_format format, FILE *to, bool *any)
{
	LOCALE_SCOPE;
	*any = false;
	return api__error(write_map(pid, format, to, any));
}

/* ---- configuration ---- */

LLU_API struct llu_error *llu_config__read(const char *path, size_t size, struct llu_config *out)
{
	LOCALE_SCOPE;
	struct lvupdate_data data;
	memset(out, 0, size);
	struct err *e = lvupdate_data__read(path ? path : LVUPDATE_DATA, &data);
	if (e)
		return api__error(e);
	const struct llu_config config = {.update = data.llu, .tries = data.retries, .timeout_s = data.timeout_s};
	memcpy(out, &config, size < sizeof(config) ? size : sizeof(config));
	return NULL;
}
