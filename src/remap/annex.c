/* See annex.h. */
#include "remap/annex.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "freeze/first_stack.h"
#include "image/image_file.h"
#include "image/unprepared.h"
#include "image/vapi_file.h"
#include "inject/borrow.h"
#include "remap/bring.h"
#include "remap/glibc.h"
#include "remap/linkmap.h"

/* Distances of 32 bits, with something to spare for what lies at the ends. */
#define REACH ((1ULL << 31) - (1ULL << 20))
enum { STEP = 256 << 20, STEPS = 7, ANNEXES_MAX = 1024 };

static uint64_t length(const struct loaded *l)
{
	const struct vapi_note *v = &l->vapi->vapi;
	return align_up(v->window + v->window_len, LLU_PAGE) - v->end;
}

struct trange annex__range(const struct loaded *l)
{
	taddr_t start = loaded__at(l, l->vapi->vapi.end);
	return (struct trange){start, taddr_add(start, length(l))};
}

/* ---- finding it ---- */

static bool may_be_annex(const struct mapping *m)
{
	size_t n = strlen(m->path);
	return m->inode && !m->shared && m->prot == PROT_READ && m->offset == LLU_PAGE &&
	       (strcmp(m->path, "/memfd:llu-vapi") == 0 || (n > 5 && strstr(m->path, "-vapi")));
}

bool annex__at(const struct mappings *maps, taddr_t a)
{
	const struct mapping *m = mappings__at(maps, a);
	return m && m->range.start.v == a.v && may_be_annex(m);
}

/* The note at its start says where the header is, and that for which library it was made: 0 for none yet. What cannot
 * be read is some library's. */
static uint64_t library_of(const struct process *p, const struct mapping *m)
{
	struct {
		Elf64_Nhdr n;
		char name[4];
		struct vapi_note v;
	} note;
	uint64_t library = UINT64_MAX;
	ERR_CLEANUP struct err *e = process__read(p, m->range.start, &note, sizeof(note));
	if (e || note.n.n_type != VAPI_NOTE_TYPE || memcmp(note.name, VAPI_NOTE_NAME, 4) != 0)
		return UINT64_MAX;
	taddr_t at = taddr(m->range.start.v + note.v.header - note.v.end + offsetof(struct vapi_header, library));
	ERR_CLEANUP struct err *e2 = process__read(p, at, &library, sizeof(library));
	return e2 ? UINT64_MAX : library;
}

struct err *annex__libraries(const struct process *p, const struct mappings *maps, taddr_t **out, size_t *n)
{
	*out = xcalloc(ANNEXES_MAX, sizeof(taddr_t));
	*n = 0;
	for (size_t i = 0; i < maps->n; i++) {
		uint64_t library = may_be_annex(&maps->items[i]) ? library_of(p, &maps->items[i]) : 0;
		if (library == UINT64_MAX)
			continue;
		if (library && *n == ANNEXES_MAX)
			return err__new(ERR_REFUSED, 0, process__name(p), NULL,
					"the process has more room for new code than could be");
		if (library)
			(*out)[(*n)++] = taddr(library);
	}
	return NULL;
}

static const Elf64_Phdr *segment_at(const struct elf_file *e, vaddr_t a)
{
	for (size_t i = 0; i < e->n_phdrs; i++)
		if (e->phdrs[i].p_type == PT_LOAD && e->phdrs[i].p_vaddr == a)
			return &e->phdrs[i];
	return NULL;
}

/* Is it this library's, by its bytes and by its header? The unwind table is left out: it changes with the images. */
static struct err *is_annex_of(const struct process *p, const struct loaded *l, const struct mapping *m, bool *out)
{
	const struct vapi_note *v = &l->vapi->vapi;
	const Elf64_Phdr *r = segment_at(l->vapi, v->end);
	const uint8_t *want = r ? elf_file__at(l->vapi, r->p_vaddr, r->p_filesz) : NULL;
	struct vapi_header h;
	*out = false;
	if (!want)
		return NULL;
	size_t len = v->eh_frame_hdr ? v->eh_frame_hdr - v->end : r->p_filesz;
	FREE_CLEANUP uint8_t *have = xmalloc(len);
	TRY(process__read(p, m->range.start, have, len));
	if (memcmp(want, have, len) != 0)
		return NULL;
	TRY(process__read(p, taddr_add(m->range.start, v->header - v->end), &h, sizeof(h)));
	*out = h.library == l->bias.v;
	return NULL;
}

struct err *annex__find(const struct process *p, const struct mappings *maps, size_t *at, struct loaded *l)
{
	for (l->shift = 0; *at < maps->n;) {
		const struct mapping *m = &maps->items[(*at)++];
		bool found;
		if (!may_be_annex(m))
			continue;
		ERR_CLEANUP struct err *e = is_annex_of(p, l, m, &found);
		if (!e && found) {
			l->shift = m->range.start.v - l->bias.v - l->vapi->vapi.end;
			return NULL;
		}
	}
	return NULL;
}

/* Do the library's entries jump as the live image wants it? */
static struct err *jumps_are_there(const struct process *p, const struct loaded *l, bool *out)
{
	const struct live_map *m = &l->map;
	uint8_t want[LLU_PAGE], have[ARCH_JUMP_SIZE];
	vaddr_t page = UINT64_MAX;
	*out = true;
	for (size_t i = 0; i < m->n_jumps && *out; i++) {
		vaddr_t entry = m->jumps[i].entry;
		if (page != align_down(entry, LLU_PAGE))
			page = align_down(entry, LLU_PAGE);
		size_t len = page + LLU_PAGE - entry < sizeof(have) ? page + LLU_PAGE - entry : sizeof(have);
		image_file__entries(l->vapi, &m->jumps[i], 1, m->base, l->shift, page, want);
		TRY(process__read(p, loaded__at(l, entry), have, len));
		*out = memcmp(have, want + (entry - page), len) == 0;
	}
	return NULL;
}

struct err *annex__is_current(const struct process *p, const struct mappings *maps, const struct loaded *l, bool *out)
{
	const struct vapi_image *image = loaded__live_image(l);
	*out = true;
	if (!image)
		return NULL;
	if (l->map.n_jumps)
		return jumps_are_there(p, l, out);
	const struct mapping *page = mappings__at(maps, loaded__at(l, unprepared__beacon(l->vapi, NULL, 0)));
	const struct mapping *of = mappings__at(maps, loaded__at(l, image->base));
	*out = page && of && page->inode == of->inode && page->dev_major == of->dev_major &&
	       page->dev_minor == of->dev_minor;
	return NULL;
}

/* ---- choosing a place ---- */

static bool is_free(const struct mappings *maps, uint64_t start, uint64_t len)
{
	if (start < LLU_PAGE || start + len < start)
		return false;
	for (size_t i = 0; i < maps->n; i++)
		if (maps->items[i].range.start.v < start + len && start < maps->items[i].range.end.v)
			return false;
	return true;
}

/* Below the library, at distances that are the same in many processes, so that they share the image's file; else
 * right below any mapping within reach, with a page between. Never above: stacks grow there. */
struct err *annex__choose(const struct process *p, struct loaded *l)
{
	struct mappings maps;
	uint64_t len = length(l), end = l->bias.v + l->vapi->vapi.end, found = 0;
	TRY(process__maps(p, &maps));
	for (unsigned i = 1; i <= STEPS && !found; i++) {
		uint64_t start = l->bias.v - i * (uint64_t)STEP - len;
		if (end - start < REACH && start < l->bias.v && is_free(&maps, start, len))
			found = start;
	}
	for (size_t i = maps.n; i-- > 0 && !found;) {
		uint64_t start = maps.items[i].range.start.v - LLU_PAGE - len;
		if (maps.items[i].range.start.v <= l->bias.v && start < l->bias.v && end - start < REACH &&
		    is_free(&maps, start, len))
			found = start;
	}
	mappings__free(&maps);
	if (!found)
		return err__new(ERR_REFUSED, 0, l->path, "restart the process to run the new build",
				"there is no room for new code within 2 GiB of the library");
	l->shift = found - end;
	return NULL;
}

/* ---- mapping it ---- */

static struct arch_batch_entry map_call(taddr_t at, uint64_t len, int prot, int flags)
{
	return (struct arch_batch_entry){
	    .nr = SYS_mmap,
	    .arg = {at.v, len, (uint64_t)prot, (uint64_t)(flags | MAP_PRIVATE | MAP_ANONYMOUS), (uint64_t)-1, 0}};
}

/* Calls that a thread of the process makes itself. */
static bool is_plain(void *unwinder, const struct process *p, const struct arch_regs *regs)
{
	return first_stack__is_plain(unwinder, p, regs);
}

/* Does it import what coroutines are made with? Some of them are parked below the frames of who made them. */
static bool imports_switches(const struct elf_file *e)
{
	static const char *const names[] = {"setjmp",     "_setjmp",     "sigsetjmp",   "__sigsetjmp",
					    "getcontext", "makecontext", "swapcontext", "setcontext"};
	for (size_t i = 1; i < e->n_symbols; i++)
		for (size_t k = 0; e->symbols[i].s.st_shndx == SHN_UNDEF && k < sizeof(names) / sizeof(names[0]); k++)
			if (strcmp(e->symbols[i].name, names[k]) == 0)
				return true;
	return false;
}

static bool may_have_coroutines(const struct process *p)
{
	LINKMAP_CLEANUP struct linkmap *map = NULL;
	ERR_CLEANUP struct err *e = linkmap__read(p, &map);
	for (size_t i = 0; !e && i < linkmap__count(map); i++) {
		const struct linkmap_object o = linkmap__object(map, i);
		const struct elf_file *file = NULL;
		if (!o.mapping || !o.mapping->inode)
			continue; /* the kernel's own */
		e = linkmap__file(map, i, &file);
		if (!e && !glibc__is_part(file->soname) && imports_switches(file))
			return true;
	}
	return e != NULL;
}

static struct err *borrow_calls(const struct process *p, struct arch_batch_entry *calls, size_t n, int timeout_ms)
{
	struct err *e = borrow__calls(p, calls, n, NULL, 0);
	if (!e || err__kind(e) != ERR_RETRY)
		return e;
	err__free(e);
	if (may_have_coroutines(p))
		return borrow__calls(p, calls, n, NULL, timeout_ms);
	struct unwinder *u;
	TRY(unwinder__new(p, &u));
	const struct borrow_plain plain = {is_plain, u};
	e = borrow__calls(p, calls, n, &plain, timeout_ms);
	unwinder__free(u);
	return e;
}

/* What the hand needs. Code is written into pages that the process cannot write to: some must never have any that it
 * can. */
static struct err *map_place(const struct process *p, const struct loaded *l, int timeout_ms)
{
	const struct vapi_note *v = &l->vapi->vapi;
	struct trange all = annex__range(l);
	size_t len = v->text_end - v->text;
	const uint8_t *text = elf_file__at(l->vapi, v->text, len);
	struct arch_batch_entry calls[] = {
	    map_call(all.start, all.end.v - all.start.v, PROT_NONE, MAP_NORESERVE | MAP_FIXED_NOREPLACE),
	    map_call(loaded__at(l, v->scratch), v->scratch_len, PROT_READ | PROT_WRITE, MAP_FIXED),
	    map_call(loaded__at(l, v->text), align_up(len, LLU_PAGE), PROT_READ | PROT_EXEC, MAP_FIXED),
	};
	if (!text)
		return err__new(ERR_SURGERY, 0, l->path, NULL, "the VAPI has no code");
	struct err *e = borrow_calls(p, calls, sizeof(calls) / sizeof(calls[0]), timeout_ms);
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]) && !e; i++)
		if (calls[i].result != (int64_t)calls[i].arg[0])
			e = err__new(ERR_REFUSED, calls[i].result < 0 ? (int)-calls[i].result : 0, l->path, NULL,
				     "the process could not map room for new code");
	return e ? e : process__write(p, loaded__at(l, v->text), text, len);
}

static struct err *map_files(const struct process *p, const struct loaded *l, struct hand *h)
{
	const struct vapi_note *v = &l->vapi->vapi;
	size_t size;
	uint64_t text_at;
	struct stored stored = {0};
	FREE_CLEANUP uint8_t *bytes = vapi_file__make(l->vapi, &size, &text_at);
	FREE_CLEANUP char *id = elf_file__build_id(l->vapi);
	const char *soname = strchr(l->vapi->soname, '/') ? "" : l->vapi->soname;
	FREE_CLEANUP char *name = xasprintf("%s-%.16s-vapi", *soname ? soname : "library", id);
	int64_t fd, ignored;
	bool shared;
	if (!bytes)
		return err__new(ERR_SURGERY, 0, l->path, NULL, "the VAPI cannot be made");
	TRY(store__put(name, bytes, size, &stored));
	struct err *e = bring__open(p, h, &stored, bytes, size, "llu-vapi", &fd, &shared);
	free(stored.path);
	TRY(e);
	e = bring__map(h, "map the VAPI", loaded__at(l, v->end), text_at - LLU_PAGE, PROT_READ, MAP_PRIVATE, (int)fd,
		       LLU_PAGE);
	if (!e) /* the same bytes as those that the hand runs on */
		e = bring__map(h, "map the VAPI", loaded__at(l, v->text), align_up(v->text_end - v->text, LLU_PAGE),
			       PROT_READ | PROT_EXEC, MAP_PRIVATE, (int)fd, text_at);
	if (!e)
		e = bring__map(h, "map the VAPI", loaded__at(l, v->table), v->scratch - v->table,
			       PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const uint64_t arg[6] = {(uint64_t)fd};
	struct err *closed = hand__call(h, SYS_close, arg, &ignored);
	if (e) {
		err__free(closed);
		return e;
	}
	return closed;
}

/* A hand may be in there yet that could not be dismissed in time, or a thread that was borrowed be about to map there:
 * then it stays. */
static struct err *unmap(const struct process *p, struct trange r, int timeout_ms)
{
	struct arch_batch_entry call = {.nr = SYS_munmap, .arg = {r.start.v, r.end.v - r.start.v}};
	TRY(hand__await_range(p, r, timeout_ms));
	TRY(borrow_calls(p, &call, 1, timeout_ms));
	return call.result == 0 ? NULL
				: err__new(ERR_SYSTEM, (int)-call.result, process__name(p), NULL,
					   "the process could not unmap what was mapped for new code");
}

static struct err *fill(const struct process *p, const struct loaded *l, int timeout_ms)
{
	struct hand_place place = loaded__hand_place(l);
	taddr_t library = loaded__at(l, l->vapi->vapi.header + offsetof(struct vapi_header, library));
	struct hand *h = NULL;
	TRY(hand__raise(p, &place, timeout_ms, &h));
	struct err *e = map_files(p, l, h);
	hand__dismiss(h);
	/* from now on it is known by this */
	return e ? e : process__write(p, library, &l->bias.v, sizeof(l->bias.v));
}

/* Anonymous or of our store, without a gap, and with the very ends: then it is what was reserved there. Once it says
 * for which library it is, the dynamic loader may know of it. */
static bool is_ours(const struct process *p, const struct mappings *maps, struct trange r, bool *complete)
{
	uint64_t at = r.start.v;
	*complete = false;
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->items[i];
		if (m->range.end.v <= r.start.v || m->range.start.v >= r.end.v)
			continue;
		if (m->range.start.v != at || m->shared || (m->inode && !strstr(m->path, "-vapi")))
			return false;
		*complete = *complete || (may_be_annex(m) && library_of(p, m));
		at = m->range.end.v;
	}
	return at == r.end.v;
}

struct err *annex__make(const struct process *p, struct loaded *l, int timeout_ms)
{
	struct err *e = map_place(p, l, timeout_ms);
	if (!e)
		e = fill(p, l, timeout_ms);
	l->header = (struct vapi_header){.library = l->bias.v};
	l->fresh = true;
	return e;
}

struct err *annex__remove(const struct process *p, struct loaded *l, int timeout_ms)
{
	struct mappings maps;
	struct trange r = annex__range(l);
	TRY(process__maps(p, &maps));
	bool complete, ours = is_ours(p, &maps, r, &complete);
	mappings__free(&maps);
	if (ours &&
	    complete) { /* should we die, and the thread unmap it late, nobody takes it for an annex till then */
		const uint64_t nobody = 0;
		TRY(process__write(p, loaded__at(l, l->vapi->vapi.header + offsetof(struct vapi_header, library)),
				   &nobody, sizeof(nobody)));
	}
	if (ours) /* else it was not even reserved */
		TRY(unmap(p, r, timeout_ms));
	l->shift = 0;
	l->fresh = false;
	return NULL;
}

struct err *annex__clear(const struct process *p, struct trange r, taddr_t bias, int timeout_ms)
{
	struct mappings maps;
	bool loaded = false;
	TRY(linkmap__lists(p, bias, &loaded)); /* else another program has been started in the process (execve(2)) */
	TRY(process__maps(p, &maps));
	bool complete = true, ours = loaded && is_ours(p, &maps, r, &complete);
	mappings__free(&maps);
	return ours && !complete ? unmap(p, r, timeout_ms) : NULL; /* a complete one will be found by the next update */
}
