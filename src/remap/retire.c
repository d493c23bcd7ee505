/* Retiring old code (see retire.h): look, prove, unmap. */
#include "remap/retire.h"
#include "remap/glibc.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "freeze/freeze.h"
#include "freeze/holders.h"
#include "freeze/stack.h"
#include "image/vapi_file.h"
#include "inject/clock.h"
#include "inject/pages.h"
#include "inject/seccomp.h"
#include "remap/retire_parts.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18, include/uapi/asm-generic/mman-common.h */
#endif

enum {
	TRIES = 6,          /* to find all threads outside */
	PAUSE_FIRST_MS = 1, /* between them, four times as long each time */
	SIGNALS_MAX = 64,
	SEGMENTS_MAX = 16,
};

static bool is_open(const struct old_code *o)
{
	return !o->held && o->n_exec;
}

static bool any_open(const struct retire *r)
{
	for (size_t i = 0; i < r->old.n; i++)
		if (is_open(&r->old.items[i]))
			return true;
	return false;
}

/* The code that may still go. */
static void list_open(const struct retire *r, range_list *out)
{
	for (size_t i = 0; i < r->old.n; i++)
		for (size_t k = 0; is_open(&r->old.items[i]) && k < r->old.items[i].n_exec; k++)
			vec__push(out, r->old.items[i].exec[k]);
}

static void hold_all(struct retire *r, const char *why)
{
	for (size_t i = 0; i < r->old.n; i++)
		if (is_open(&r->old.items[i]))
			old_code__hold(&r->old.items[i], "%s", why);
}

/* What may happen while looking and only means that the code stays. */
static struct err *stays(struct retire *r, struct err *e)
{
	if (!e || err__kind(e) == ERR_GONE)
		return e;
	hold_all(r, err__text(e));
	err__free(e);
	return NULL;
}

/* ---- the kernel ---- */

/* struct kernel_sigaction of x86-64 (arch/x86/include/uapi/asm/signal.h). */
struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

static struct err *ask_kernel(struct retire *r)
{
	static const int needed[] = {SYS_rt_sigaction, SYS_madvise, -1};
	struct thread_status status;
	TRY(seccomp__check(r->p, hand__tid(r->hand), needed));
	TRY(process__status(r->p, hand__tid(r->hand), &status));
	if (!status.own_tid)
		return err__new(ERR_RETRY, 0, NULL, NULL, "the thread made in it ended");
	/* of the others the kernel keeps no address that it would use: who sets one from now on says so anew */
	for (int sig = 1; sig <= SIGNALS_MAX; sig++) {
		if (!(status.handled >> (sig - 1) & 1))
			continue;
		struct kernel_sigaction a;
		int64_t result;
		const uint64_t arg[6] = {(uint64_t)sig, 0, hand__data(r->hand).v, sizeof(a.mask)};
		TRY(bring__call(r->hand, "tell its signal handlers", SYS_rt_sigaction, arg, &result));
		TRY(process__read(r->p, hand__data(r->hand), &a, sizeof(a)));
		for (size_t i = 0; i < r->old.n; i++) {
			struct old_code *o = &r->old.items[i];
			if (ranges__have(o->exec, o->n_exec, taddr(a.handler)) ||
			    ranges__have(o->exec, o->n_exec, taddr(a.restorer)))
				old_code__hold(o, "the handler of signal %d (%s) is in it", sig, strsignal(sig));
		}
	}
	return NULL;
}

/* ---- pages ---- */

/* How many of a range's pages are in the page table; *changed: are some of them private copies? */
static struct err *count_pages(const struct retire *r, struct trange t, size_t *there, bool *changed)
{
	size_t n = (t.end.v - t.start.v) / LLU_PAGE;
	FREE_CLEANUP uint8_t *pages = xcalloc(n, 1);
	TRY(process__pages(r->p, t.start, n, pages));
	for (size_t i = 0; i < n; i++) {
		bool here = pages[i] & (PAGE_THERE | PAGE_SWAPPED);
		*there += here;
		*changed = *changed || (here && !(pages[i] & PAGE_OF_FILE));
	}
	return NULL;
}

/* Takes the code out of the page table, so that whoever runs it is seen. Code that was changed in memory (by
 * a debugger, a probe) would lose the change. */
static struct err *watch(struct retire *r)
{
	for (size_t i = 0; i < r->old.n; i++) {
		struct old_code *o = &r->old.items[i];
		bool changed = false;
		size_t there = 0;
		for (size_t k = 0; is_open(o) && k < o->n_exec; k++)
			TRY(count_pages(r, o->exec[k], &there, &changed));
		if (changed)
			old_code__hold(o, "its code was changed in memory (a debugger or a probe?)");
		for (size_t k = 0; is_open(o) && k < o->n_exec; k++) {
			uint64_t arg[6] = {o->exec[k].start.v, o->exec[k].end.v - o->exec[k].start.v,
					   MADV_DONTNEED_LOCKED};
			int64_t result;
			TRY(hand__call(r->hand, SYS_madvise, arg, &result));
			if (result == -EINVAL) {
				arg[2] = MADV_DONTNEED;
				TRY(hand__call(r->hand, SYS_madvise, arg, &result));
			}
			if (result < 0)
				old_code__hold(o, "whether it runs cannot be watched: %s", strerror((int)-result));
		}
	}
	return NULL;
}

/* ---- memory ---- */

static const char *place_of(const struct mappings *maps, taddr_t a)
{
	const struct mapping *m = mappings__at(maps, a);
	return !m || !*m->path ? "anonymous memory" : m->path;
}

static void judge_holder(const struct mappings *maps, const struct holder *h, struct old_code *o)
{
	if (!old_code__has(o, h->to))
		return;
	vaddr_t at = loaded__from(o->l, h->at);
	const struct vapi_note *v = &o->l->vapi->vapi;
	if (at >= v->table && at < v->table + v->table_len)
		old_code__hold(o, "a function that the new build does not have is in it");
	else
		old_code__hold(o, "an address in it is at 0x%" PRIx64 " (%s)%s: a parked stack or context?", h->at.v,
			       place_of(maps, h->at), h->mangled ? ", mangled as by setjmp" : "");
}

void retire__list_skipped(const struct retire *r, range_list *out)
{
	for (size_t i = 0; i < r->old.n; i++)
		if (r->old.items[i].all.end.v)
			vec__push(out, r->old.items[i].all);
	for (size_t i = 0; i < r->libraries.n; i++) {
		struct hand_place place = loaded__hand_place(&r->libraries.items[i]);
		struct trange t = {place.scratch, taddr_add(place.scratch, place.scratch_len)};
		vec__push(out, t);
	}
}

static struct err *ask_memory(struct retire *r)
{
	range_list ranges = {0}, skip = {0};
	VEC(size_t) whose = {0}; /* indexes into r->old */
	holder_list found = {0};
	struct mappings maps = {0};
	for (size_t i = 0; i < r->old.n; i++)
		for (size_t k = 0; is_open(&r->old.items[i]) && k < r->old.items[i].n_exec; k++) {
			vec__push(&ranges, r->old.items[i].exec[k]);
			vec__push(&whose, i);
		}
	retire__list_skipped(r, &skip);
	struct holders_query q = {.ranges = ranges.items,
				  .n_ranges = ranges.n,
				  .skip = skip.items,
				  .n_skip = skip.n,
				  .pointer_guard = holders__pointer_guard(r->p, hand__thread_pointer(r->hand)),
				  .deadline = clock_deadline((int)r->opt->timeout_s * 1000)};
	struct err *e = holders__find(r->p, &q, &found);
	if (!e)
		e = process__maps(r->p, &maps);
	for (size_t i = 0; !e && whose.n && i < found.n; i++)
		judge_holder(&maps, &found.items[i], &r->old.items[whose.items[found.items[i].range]]);
	mappings__free(&maps);
	vec__free(&found);
	vec__free(&whose);
	vec__free(&skip);
	vec__free(&ranges);
	return e;
}

/* Runtimes that are known to copy stacks to and fro. */
static struct err *ask_runtimes(struct retire *r)
{
	static const char *const names[] = {"/_greenlet", "/greenlet.", "libgevent"};
	struct mappings maps;
	TRY(process__maps(r->p, &maps));
	for (size_t i = 0; i < maps.n; i++)
		for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++)
			if (strstr(maps.items[i].path, names[k]))
				hold_all(r, "greenlet copies stacks, which cannot be followed");
	mappings__free(&maps);
	return NULL;
}

/* ---- threads ---- */

/* The code that runs now, to which threads may have been moved. */
static void list_live(const struct retire *r, range_list *out)
{
	struct image_segment segments[SEGMENTS_MAX];
	for (size_t i = 0; i < r->libraries.n; i++) {
		const struct loaded *l = &r->libraries.items[i];
		size_t n = image_file__segments(l->live, segments, SEGMENTS_MAX);
		for (size_t k = 0; k < n; k++) {
			taddr_t start = loaded__at(l, l->map.base + segments[k].at);
			if (segments[k].exec)
				vec__push(out, (struct trange){start, taddr_add(start, segments[k].len)});
		}
	}
}

/* Where the jump tables of the code are that may still go. */
static void list_tables(const struct retire *r, range_list *out)
{
	for (size_t i = 0; i < r->old.n; i++) {
		const struct old_code *o = &r->old.items[i];
		struct trange own = loaded__own(o->l);
		if (is_open(o))
			vec__push(out, o->image == OLD_OWN ? own : o->all);
	}
}

static bool any_everywhere(const struct retire *r)
{
	for (size_t i = 0; i < r->old.n; i++)
		if (glibc__is_everywhere(r->old.items[i].l))
			return true;
	return false;
}

/* Are all threads outside, and has nobody run the code since watch()? Shown once, that stays true. ERR_RETRY: not at
 * this moment. Sleepers may wake meanwhile: what they could run is known not to lead there. */
static struct err *ask_threads(struct retire *r)
{
	range_list inside = {0}, live = {0}, tables = {0};
	struct freeze *frozen = NULL;
	size_t there = 0;
	bool changed = false;
	list_open(r, &inside);
	list_live(r, &live);
	list_tables(r, &tables);
	struct freeze_options f = {.what = "retire",
				   .inside = inside.items,
				   .n_inside = inside.n,
				   .suspects = live.items,
				   .n_suspects = live.n,
				   .tables = tables.items,
				   .n_tables = tables.n,
				   .unwinds = any_everywhere(r),
				   .for_good = true,
				   .except = hand__tid(r->hand),
				   .strict = r->opt->strict,
				   .stop_ms = RETIRE_STOP_MS,
				   .turns = r->opt->turns};
	struct err *e = inside.n ? freeze__begin(r->p, &f, &frozen) : NULL;
	for (size_t i = 0; !e && i < inside.n; i++)
		e = count_pages(r, inside.items[i], &there, &changed);
	if (frozen)
		r->frozen_ns += freeze__thaw(frozen);
	vec__free(&inside);
	vec__free(&live);
	vec__free(&tables);
	if (!e && there)
		e = err__new(ERR_RETRY, 0, NULL, NULL, "a thread ran in it after the update");
	return e;
}

/* ---- unmapping ---- */

static struct err *write_state(const struct retire *r, const struct old_code *o, uint32_t state)
{
	uint64_t at = o->l->vapi->vapi.header;
	at += o->image == OLD_OWN ? offsetof(struct vapi_header, own_code)
				  : offsetof(struct vapi_header, image) + o->image * sizeof(struct vapi_image) +
					offsetof(struct vapi_image, state);
	return process__write(r->p, loaded__at(o->l, at), &state, sizeof(state));
}

/* The header says first what is no more; what it says is true already, but for the pages. */
static struct err *unmap(struct retire *r, struct old_code *o)
{
	if (o->image != OLD_OWN && !o->constants) {
		TRY(write_state(r, o, VAPI_IMAGE_PREPARING));
		TRY(bring__reserve(r->hand, o->all.start, o->all.end.v - o->all.start.v));
		return write_state(r, o, VAPI_IMAGE_FREE);
	}
	TRY(write_state(r, o, o->image == OLD_OWN ? (uint32_t)VAPI_OWN_RETIRED : (uint32_t)VAPI_IMAGE_CONSTANTS));
	for (size_t i = 0; i < o->n_exec; i++)
		TRY(bring__reserve(r->hand, o->exec[i].start, o->exec[i].end.v - o->exec[i].start.v));
	return NULL;
}

struct err *retire__finish(const struct process *p, const struct loaded *l, struct hand *h, bool *did)
{
	struct mappings maps;
	*did = false;
	TRY(process__maps(p, &maps));
	struct err *e = NULL;
	for (size_t i = 0; !e && i < maps.n; i++) {
		const struct mapping *m = &maps.items[i];
		bool gone = l->header.own_code == VAPI_OWN_RETIRED && m->range.start.v >= l->bias.v &&
			    m->range.end.v <= loaded__own(l).end.v;
		for (size_t k = 0; k < VAPI_IMAGES_MAX; k++) {
			const struct vapi_image *x = &l->header.image[k];
			gone = gone || (x->state == VAPI_IMAGE_CONSTANTS &&
					m->range.start.v - loaded__at(l, x->base).v < x->len);
		}
		if (!gone || !(m->prot & PROT_EXEC))
			continue;
		e = bring__reserve(h, m->range.start, m->range.end.v - m->range.start.v);
		*did = *did || !e;
	}
	mappings__free(&maps);
	return e;
}

/* ---- the stubs ---- */

static bool same_file(const struct mapping *a, const struct mapping *b)
{
	return a->inode == b->inode && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor;
}

/* Are the stubs still those of the library's file, and is that not the file any more that has its name? */
static bool stubs_are_old(const struct mappings *maps, const struct loaded *l)
{
	const struct mapping *first = mappings__at(maps, l->bias);
	const struct mapping *text = mappings__at(maps, loaded__at(l, l->vapi->vapi.text));
	struct stat st;
	if (!l->header.live || !first || !text || !same_file(first, text))
		return false;
	return first->deleted || !l->now || stat(l->now, &st) < 0 || st.st_ino != first->inode;
}

/* `stored`, of these bytes, has the stubs at text_at. */
static struct err *map_stubs(const struct retire *r, const struct loaded *l, const struct stored *stored,
			     const uint8_t *bytes, size_t size, uint64_t text_at)
{
	int64_t fd, ignored;
	bool shared;
	TRY(bring__open(r->p, r->hand, stored, bytes, size, "llu-vapi", &fd, &shared));
	const struct vapi_note *v = &l->vapi->vapi;
	uint64_t len = align_up(v->text_end - v->text, LLU_PAGE);
	struct err *e = bring__map(r->hand, "map the stubs anew", loaded__at(l, v->text), len, PROT_READ | PROT_EXEC,
				   MAP_PRIVATE, (int)fd, text_at);
	const uint64_t arg[6] = {(uint64_t)fd};
	struct err *closed = hand__call(r->hand, SYS_close, arg, &ignored);
	if (!e)
		return closed;
	err__free(closed);
	return e;
}

/* Maps the stubs from a file of their own: the same bytes at the same place, exchanged by one call while the
 * process runs. */
static struct err *renew_stubs(const struct retire *r, const struct mappings *maps, const struct loaded *l)
{
	size_t size;
	uint64_t text_at;
	struct stored stored = {0};
	if (!stubs_are_old(maps, l))
		return NULL;
	FREE_CLEANUP uint8_t *bytes = vapi_file__make(l->vapi, &size, &text_at);
	if (!bytes)
		return NULL;
	FREE_CLEANUP char *id = elf_file__build_id(l->vapi);
	const char *soname = strchr(l->vapi->soname, '/') ? "" : l->vapi->soname;
	FREE_CLEANUP char *name = xasprintf("%s-%.16s-vapi", *soname ? soname : "library", id);
	TRY(store__put(name, bytes, size, &stored));
	struct err *e = map_stubs(r, l, &stored, bytes, size, text_at);
	free(stored.path);
	return e;
}

/* ---- all of it ---- */

static struct err *look(struct retire *r)
{
	struct mappings maps;
	TRY(discover__libraries(r->p, DISCOVER_PREPARED, &r->libraries));
	TRY(process__maps(r->p, &maps));
	struct err *e = NULL;
	for (size_t i = 0; !e && i < r->libraries.n; i++)
		e = old_code__list(r->p, &maps, &r->libraries.items[i], &r->old);
	mappings__free(&maps);
	return e;
}

static struct err *prove_once(struct retire *r)
{
	uint64_t since = trace__now();
	TRY(watch(r));
	TRY(ask_memory(r));
	process__did(r->p, "look through memory", since, NULL, (struct trace_arg){0});
	return ask_threads(r);
}

/* Until nothing is open any more: what is not held by then is shown to be free. */
static struct err *prove(struct retire *r)
{
	TRY(stays(r, ask_kernel(r)));
	TRY(stays(r, ask_runtimes(r)));
	unsigned pause = PAUSE_FIRST_MS;
	for (int i = 1; any_open(r); i++) {
		struct err *e = prove_once(r);
		if (!e || err__kind(e) != ERR_RETRY || i == TRIES)
			return stays(r, e);
		err__free(e);
		clock_pause(pause);
		pause *= 4;
	}
	return NULL;
}

static struct err *clear(struct retire *r)
{
	struct mappings maps;
	for (size_t i = 0; i < r->old.n; i++) {
		struct old_code *o = &r->old.items[i];
		uint64_t since = trace__now();
		struct err *e = o->held ? NULL : unmap(r, o);
		process__did(
		    r->p, o->held ? "the old code stays" : "unmap the old code", since, e,
		    (struct trace_arg){.key = o->held ? "why" : "library", .text = o->held ? o->held : o->l->path});
		if (e && err__kind(e) == ERR_GONE)
			return e;
		if (e)
			old_code__hold(o, "nothing leads there any more, but: %s", err__text(e));
		err__free(e);
	}
	TRY(process__maps(r->p, &maps));
	struct err *e = NULL;
	for (size_t i = 0; !e && i < r->libraries.n; i++)
		e = renew_stubs(r, &maps, &r->libraries.items[i]);
	mappings__free(&maps);
	return e;
}

static struct err *retire(struct retire *r)
{
	TRY(look(r));
	if (r->old.n == 0)
		return NULL;
	struct hand_place place = loaded__hand_place(r->old.items[0].l);
	struct err *e = hand__raise(r->p, &place, (int)r->opt->timeout_s * 1000, &r->hand);
	if (e)
		return stays(r, e);
	TRY(prove(r));
	TRY(retire__ask_for_constants(r));
	return clear(r);
}

static void sum_up(const struct retire *r, retired_list *out)
{
	for (size_t i = 0; i < r->old.n; i++) {
		const struct old_code *o = &r->old.items[i];
		struct retired *known = NULL;
		for (size_t k = 0; k < out->n; k++)
			if (out->items[k].bias.v == o->l->bias.v)
				known = &out->items[k];
		if (!known) {
			vec__push(out, (struct retired){.bias = o->l->bias, .frozen_ns = r->frozen_ns});
			known = &out->items[out->n - 1];
		}
		if (o->held && !known->held_by)
			known->held_by = xstrdup(o->held);
	}
}

struct err *retire__process(const struct process *p, const struct retire_options *opt, retired_list *out)
{
	struct retire r = {.p = p, .opt = opt};
	struct err *e = retire(&r);
	if (r.hand)
		hand__dismiss(r.hand);
	sum_up(&r, out);
	old_code__free(&r.old);
	loaded_list__free(&r.libraries);
	return e;
}

void retired_list__free(retired_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->items[i].held_by);
	vec__free(l);
}
