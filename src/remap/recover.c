/* See recover.h. What a stopped exchange wants is in recover_exchange.c; this file finds what was left behind, and
 * clears it away. */
#include "remap/recover.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"
#include "remap/annex.h"
#include "remap/lock.h"
#include "remap/recover_parts.h"
#include "remap/retire.h"
#include "remap/store.h"
#include "remap/surgery_parts.h"

enum { TIMEOUT_MS = RECOVER_TIMEOUT_S * 1000 };

/* One process, while it is looked at. */
struct patient {
	const struct process *p;
	loaded_list libraries;
	struct journal *journal; /* or NULL */
	part_list parts;         /* of an exchange */
	recovery_list *out;
};

/* ---- what is said ---- */

static void note(recovery_list *out, pid_t pid, const char *name, const char *library, const char *text)
{
	vec__push(out, (struct recovery){.pid = pid,
					 .name = name ? xstrdup(name) : NULL,
					 .library = library ? xstrdup(library) : NULL,
					 .text = xstrdup(text)});
}

static void note_failure(recovery_list *out, pid_t pid, const char *name, struct err *e)
{
	note(out, pid, name, NULL, err__text(e));
	struct recovery *r = &out->items[out->n - 1];
	r->hint = err__hint(e) ? xstrdup(err__hint(e)) : NULL;
	r->failed = true;
	r->kind = err__kind(e);
	err__free(e);
}

static void say(const struct patient *x, const char *library, const char *text)
{
	note(x->out, process__pid(x->p), process__name(x->p), library, text);
}

void recovery_list__free(recovery_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		struct recovery *r = &l->items[i];
		free(r->name);
		free(r->library);
		free(r->text);
		free(r->hint);
	}
	vec__free(l);
}

/* ---- does a library have anything of a dead tool? ---- */

static bool is_prepared(const struct loaded *l)
{
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (l->header.image[i].state == VAPI_IMAGE_PREPARING)
			return true;
	return false;
}

static struct err *place_in_use(const struct process *p, const struct loaded *l, bool *out)
{
	uint64_t word = 0;
	TRY(process__read(p, loaded__at(l, l->vapi->vapi.scratch), &word, sizeof(word)));
	*out = word != 0;
	return NULL;
}

static struct err *has_leftovers(const struct patient *x, bool *out)
{
	*out = x->journal != NULL;
	for (size_t i = 0; i < x->libraries.n && !*out; i++) {
		const struct loaded *l = &x->libraries.items[i];
		TRY(place_in_use(x->p, l, out));
		if (!*out)
			TRY(recover__has_way_out(x->p, l, out));
		*out = *out || is_prepared(l) || l->header.owner;
	}
	return NULL;
}

/* ---- clearing the window ---- */

static struct err *reserve(struct hand *h, taddr_t at, uint64_t len, int how, int64_t *result)
{
	const uint64_t arg[6] = {at.v, len, PROT_NONE, (uint64_t)(BRING_RESERVED_FLAGS | how), (uint64_t)-1, 0};
	return hand__call(h, SYS_mmap, arg, result);
}

static bool has_holes(const struct loaded *l, const struct mappings *maps, struct vrange r)
{
	for (vaddr_t a = r.start; a < r.end;) {
		const struct mapping *m = mappings__at(maps, loaded__at(l, a));
		if (!m)
			return true;
		a = loaded__from_end(l, m->range.end);
	}
	return false;
}

/* Is what lies at `a` certainly ours, by what is known of the exchange? *end: up to where. */
static bool is_ours(const part_list *parts, const struct loaded *l, vaddr_t a, vaddr_t *end)
{
	for (size_t i = 0; i < parts->n; i++) {
		const struct part *x = &parts->items[i];
		if (x->l != l)
			continue;
		if (a - x->image < x->image_len) {
			*end = x->image + x->image_len;
			return true;
		}
		for (size_t k = 0; k < x->strays.n; k++) {
			const struct stray *s = &x->strays.items[k];
			*end = s->at + s->len;
			if (s->there && a >= s->at && a < *end)
				return true;
		}
	}
	return false;
}

/* Makes it reservation again. Into holes the process may map something of its own at any moment, so where there are
 * holes only what is known to be ours is replaced. */
static struct err *clear_range(const struct loaded *l, struct hand *h, const struct mappings *maps, struct vrange r,
			       const part_list *parts)
{
	bool holes = has_holes(l, maps, r);
	for (vaddr_t a = r.start; a < r.end;) {
		const struct mapping *m = mappings__at(maps, loaded__at(l, a));
		vaddr_t end = m ? loaded__from_end(l, m->range.end) : a + LLU_PAGE, ours_end = end;
		int64_t result = 0;
		bool ours = m && (!holes || is_ours(parts, l, a, &ours_end));
		if (m && !ours)
			ours_end = a + LLU_PAGE;
		if (end > ours_end)
			end = ours_end;
		if (end > r.end)
			end = r.end;
		if (!m || ours)
			TRY(reserve(h, loaded__at(l, a), end - a, m ? MAP_FIXED : MAP_FIXED_NOREPLACE, &result));
		if (result < 0 && result > -4096 && m)
			return err__new(ERR_SYSTEM, (int)-result, l->path, NULL,
					"the process could not reserve address space");
		a = end;
	}
	return NULL;
}

/* Do read-only data or the table lead into it? */
static struct err *is_referred_to(const struct process *p, const struct loaded *l, struct vrange r, bool *out)
{
	const struct vapi_note *v = &l->vapi->vapi;
	const struct vrange where[] = {surgery__relro_pages(l->vapi), {v->table, v->table + v->table_len}};
	*out = false;
	for (size_t i = 0; i < 2; i++) {
		size_t n = (where[i].end - where[i].start) / sizeof(uint64_t);
		FREE_CLEANUP uint64_t *words = xcalloc(n, sizeof(*words));
		if (n)
			TRY(process__read(p, loaded__at(l, where[i].start), words, n * sizeof(*words)));
		for (size_t k = 0; k < n && !*out; k++)
			*out = vrange__has(r, loaded__from(l, taddr(words[k])));
	}
	return NULL;
}

/* What one entry says is being prepared. `maps` are of now. */
static struct err *clear_entry(const struct patient *x, struct loaded *l, size_t i, struct hand *h,
			       const struct mappings *maps)
{
	static const struct vapi_image free_entry;
	const struct vapi_image *m = &l->header.image[i];
	struct vrange r = {m->base, m->base + m->len};
	bool referred;
	TRY(is_referred_to(x->p, l, r, &referred));
	if (referred)
		return err__new(ERR_SURGERY, 0, l->path, "restart the process when that is convenient",
				"its pages were exchanged in part, and nothing tells any more what they are to hold");
	TRY(clear_range(l, h, maps, r, &x->parts));
	return recover__write_entry(x->p, l, i, &free_entry);
}

static struct err *clear_entries(const struct patient *x, struct loaded *l, struct hand *h)
{
	struct mappings maps;
	TRY(process__maps(x->p, &maps));
	struct err *e = NULL;
	for (size_t i = 0; i < VAPI_IMAGES_MAX && !e; i++)
		if (l->header.image[i].state == VAPI_IMAGE_PREPARING)
			e = clear_entry(x, l, i, h, &maps);
	mappings__free(&maps);
	return e;
}

static struct err *write_owner(const struct process *p, struct loaded *l, bool me)
{
	const size_t owner = offsetof(struct vapi_header, owner), start = offsetof(struct vapi_header, owner_start);
	struct vapi_header h = l->header;
	if (me)
		owner__set(&h);
	else
		owner__clear(&h);
	/* the PID is what counts: last, and gone first */
	if (!me)
		TRY(recover__write_header(p, l, owner, &h.owner, sizeof(h.owner)));
	TRY(recover__write_header(p, l, start, &h.owner_start, sizeof(h) - start));
	return me ? recover__write_header(p, l, owner, &h.owner, sizeof(h.owner)) : NULL;
}

static bool is_retiring(const struct loaded *l)
{
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (l->header.image[i].state == VAPI_IMAGE_CONSTANTS)
			return true;
	return l->header.own_code == VAPI_OWN_RETIRED;
}

static struct err *clear_library(const struct patient *x, struct loaded *l)
{
	struct hand *h = NULL;
	struct hand_place place = loaded__hand_place(l);
	bool did;
	TRY(recover__has_way_out(x->p, l, &did));
	if (did)
		TRY(recover__clear_way_out(x->p, l));
	if (is_prepared(l) || is_retiring(l)) {
		TRY(hand__raise(x->p, &place, TIMEOUT_MS, &h));
		struct err *e = clear_entries(x, l, h);
		if (!e)
			e = retire__finish(x->p, l, h, &did);
		hand__dismiss(h);
		TRY(e);
	}
	return l->header.owner ? write_owner(x->p, l, false) : NULL;
}

/* ---- one process ---- */

/* The hands of dead tools finish what they have; what they leave is read after that. */
static struct err *await_hands(struct patient *x)
{
	struct err *problem = NULL;
	for (size_t i = 0; i < x->libraries.n; i++) {
		struct hand_place place = loaded__hand_place(&x->libraries.items[i]);
		TRY(hand__await_place(x->p, &place, TIMEOUT_MS));
	}
	loaded_list__free(&x->libraries);
	TRY(discover__vapis(x->p, &x->libraries, &problem));
	err__free(problem);
	return NULL;
}

static bool all_moved(const part_list *parts)
{
	for (size_t i = 0; i < parts->n; i++)
		for (size_t k = 0; k < parts->items[i].strays.n; k++)
			if (!parts->items[i].strays.items[k].moved)
				return false;
	return true;
}

static struct err *check_journal(struct patient *x)
{
	struct err *problem = NULL;
	bool stopped;
	TRY(discover__vapis(x->p, &x->libraries, &problem));
	err__free(problem);
	TRY(await_hands(x));
	TRY(recover__find_parts(x->p, &x->libraries, x->journal, &x->parts, &stopped));
	return stopped && !all_moved(&x->parts) ? err__new(ERR_REFUSED, 0, NULL, "run cllvupdate -u first",
							   "an update was interrupted while it exchanged pages")
						: NULL;
}

static void discharge(struct patient *x)
{
	journal__free(x->journal);
	part_list__free(&x->parts);
	loaded_list__free(&x->libraries);
}

/* Room that a dead tool was making beside libraries, and had not finished. */
static struct err *clear_annexes(struct patient *x)
{
	for (size_t i = 0; x->journal && i < x->journal->annexes.n; i++) {
		struct journal_annex *a = &x->journal->annexes.items[i];
		bool known = false;
		for (size_t k = 0; k < x->libraries.n; k++)
			known = known || annex__range(&x->libraries.items[k]).start.v == a->range.start.v;
		if (!known)
			TRY(annex__clear(x->p, a->range, a->bias, TIMEOUT_MS));
	}
	return NULL;
}

static struct err *check_annexes(struct patient *x)
{
	struct err *problem = NULL;
	loaded_list__free(&x->libraries);
	TRY(discover__vapis(x->p, &x->libraries, &problem));
	err__free(problem);
	return clear_annexes(x);
}

struct err *recover__check(const struct process *p)
{
	struct patient x = {.p = p, .journal = journal__of(process__pid(p), process__start_time(p))};
	bool needed = x.journal && x.journal->step == JOURNAL_EXCHANGE;
	struct err *e = needed ? check_journal(&x) : NULL;
	if (!e && x.journal && x.journal->annexes.n)
		e = check_annexes(&x);
	discharge(&x);
	return e;
}

static struct err *take_over(struct patient *x)
{
	for (size_t i = 0; i < x->libraries.n; i++)
		if (owner__is_alive(&x->libraries.items[i].header))
			return err__new(ERR_BUSY, 0, NULL, "wait for it to end",
					"another llvupdate (process %u) is at work on process %d",
					x->libraries.items[i].header.owner, process__pid(x->p));
	TRY(await_hands(x));
	for (size_t i = 0; i < x->libraries.n; i++) {
		struct loaded *l = &x->libraries.items[i];
		if (is_prepared(l) || l->header.owner)
			TRY(write_owner(x->p, l, true));
	}
	return NULL;
}

static const struct journal_library *in_journal(const struct patient *x, const struct loaded *l)
{
	for (size_t i = 0; x->journal && i < x->journal->libraries.n; i++)
		if (x->journal->libraries.items[i].bias.v == l->bias.v)
			return &x->journal->libraries.items[i];
	return NULL;
}

enum fate { FATE_NONE, FATE_TAKEN_BACK, FATE_FINISHED, FATE_TIDIED };

/* What has become, or will become, of a library that is still as the tool left it. */
static enum fate fate_of(const struct patient *x, const struct loaded *l)
{
	const struct journal_library *j = in_journal(x, l);
	if (j && l->header.generation > j->generation)
		return FATE_FINISHED; /* by the hand, which does not need the tool; what is left is tidying up */
	if (is_prepared(l))
		return FATE_TAKEN_BACK;
	return l->header.owner || j ? FATE_TIDIED : FATE_NONE;
}

static const char *const fate_words[] = {
    [FATE_TAKEN_BACK] = "the update was taken back",
    [FATE_FINISHED] = "the update was finished",
    [FATE_TIDIED] = "an update had been begun, and had changed nothing yet",
};

static struct err *settle_exchange(struct patient *x, enum fate *fates)
{
	bool stopped, finished;
	TRY(recover__find_parts(x->p, &x->libraries, x->journal, &x->parts, &stopped));
	if (!stopped)
		return NULL;
	TRY(recover__settle_parts(x->p, &x->parts, &finished));
	for (size_t i = 0; i < x->parts.n; i++)
		fates[x->parts.items[i].l - x->libraries.items] = finished ? FATE_FINISHED : FATE_TAKEN_BACK;
	return NULL;
}

static struct err *recover(struct patient *x)
{
	TRY(take_over(x));
	bool any = false;
	FREE_CLEANUP enum fate *fates = xcalloc(x->libraries.n, sizeof(*fates));
	for (size_t i = 0; i < x->libraries.n; i++)
		fates[i] = fate_of(x, &x->libraries.items[i]);
	TRY(settle_exchange(x, fates));
	TRY(clear_annexes(x));
	for (size_t i = 0; i < x->libraries.n; i++)
		TRY(clear_library(x, &x->libraries.items[i]));
	for (size_t i = 0; i < x->libraries.n; i++) {
		any = any || fates[i] != FATE_NONE;
		if (fates[i] != FATE_NONE)
			say(x, x->libraries.items[i].path, fate_words[fates[i]]);
	}
	if (!any)
		say(x, NULL, "what an interrupted operation had left was cleared away");
	if (x->journal)
		journal__remove(process__pid(x->p));
	return NULL;
}

/* Looks again under its lock, as what was seen before may have been an operation of another user's. */
static struct err *lock_and_recover(struct patient *x)
{
	CLOSE_CLEANUP int lock = -1;
	bool any;
	struct err *problem = NULL;
	TRY(lock__one(process__pid(x->p), &lock));
	loaded_list__free(&x->libraries);
	TRY(discover__vapis(x->p, &x->libraries, &problem));
	err__free(problem);
	TRY(has_leftovers(x, &any));
	return any ? recover(x) : NULL;
}

static struct err *look(struct patient *x)
{
	struct err *problem = NULL;
	bool any = false;
	TRY(discover__vapis(x->p, &x->libraries, &problem));
	struct err *e = has_leftovers(x, &any);
	if (!e && any)
		e = lock_and_recover(x);
	if (!any || e)
		err__free(problem); /* who has nothing of ours is no concern */
	else if (problem)
		e = problem;
	return e;
}

static void look_at_process(pid_t pid, recovery_list *out)
{
	struct process *p = NULL;
	struct patient x = {.out = out};
	ERR_CLEANUP struct err *unreadable = process__open(pid, &p);
	if (unreadable)
		return;
	x.p = p;
	x.journal = journal__of(pid, process__start_time(p));
	struct err *e = look(&x);
	if (e && (err__kind(e) == ERR_GONE || (err__kind(e) == ERR_PERMISSION && !x.journal)))
		err__free(e);
	else if (e)
		note_failure(out, pid, process__name(p), e);
	discharge(&x);
	process__close(p);
}

static void look_at_processes(recovery_list *out)
{
	DIR *d = opendir("/proc");
	for (struct dirent *e; d && (e = readdir(d));) {
		char *end;
		long pid = isdigit((unsigned char)e->d_name[0]) ? strtol(e->d_name, &end, 10) : 0;
		if (pid > 0 && pid <= INT32_MAX && pid != getpid())
			look_at_process((pid_t)pid, out);
	}
	if (d)
		closedir(d);
}

/* ---- journals ---- */

static bool failed_for(const recovery_list *out, pid_t pid)
{
	for (size_t i = 0; i < out->n; i++)
		if (out->items[i].pid == pid && out->items[i].failed)
			return true;
	return false;
}

/* What is still there after all processes were looked at: of processes that are gone, and what was not
 * written to its end. */
static struct err *clear_journals(recovery_list *out)
{
	journal_list files = {0};
	TRY(journal__list(&files));
	for (size_t i = 0; i < files.n; i++) {
		const struct journal_file *f = &files.items[i];
		struct journal *j = NULL;
		if (failed_for(out, f->target))
			continue;
		if (!f->temporary)
			err__free(journal__read(f->name, &j)); /* then there is none */
		journal__remove_file(f->name);
		if (f->temporary)
			note(out, f->target, NULL, NULL, "a journal that was not written to its end was removed");
		else
			note(out, f->target, j ? j->name : NULL, NULL,
			     j ? "gone: nothing to do" : "a journal that cannot be read was removed");
		journal__free(j);
	}
	journal_list__free(&files);
	return NULL;
}

struct err *recover__all(recovery_list *out)
{
	CLOSE_CLEANUP int lock = -1;
	TRY(process__check_proc());
	TRY(lock__all(&lock));
	look_at_processes(out);
	TRY(clear_journals(out));
	size_t n = store__clear_temporaries();
	if (n) {
		FREE_CLEANUP char *text =
		    xasprintf("%zu unfinished file%s removed from the store of images", n, n > 1 ? "s were" : " was");
		note(out, 0, NULL, NULL, text);
	}
	return NULL;
}
