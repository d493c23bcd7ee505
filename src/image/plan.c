/* See plan.h. The procedure reads from top to bottom in plan__make(). */
#include "image/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/printable.h"
#include "base/thread.h"
#include "image/gate.h"
#include "image/unprepared.h"

void planner__refuse(struct planner *x, const char *code, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	struct reason r = {code, printable(text)};
	vec__push(&x->p->refusals, r);
}

void planner__remark(struct planner *x, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	vec__push(&x->p->remarks, printable(text));
}

/* ---- identity ---- */

static bool is_exported(const struct elf_symbol *s)
{
	uint8_t bind = ELF64_ST_BIND(s->s.st_info);
	return s->s.st_shndx != SHN_UNDEF && s->s.st_shndx != SHN_ABS && bind != STB_LOCAL && *s->name;
}

/* Symbols by name and version, for quick look-up. */
struct symbol_index {
	const struct elf_symbol **items;
	size_t n;
};

static int by_name(const void *a, const void *b)
{
	const struct elf_symbol *x = *(const struct elf_symbol *const *)a, *y = *(const struct elf_symbol *const *)b;
	int c = strcmp(x->name, y->name);
	return c ? c : strcmp(x->version, y->version);
}

static struct symbol_index symbol_index__make(const struct elf_file *e)
{
	struct symbol_index x = {xcalloc(e->n_symbols, sizeof(void *)), 0};
	for (size_t i = 0; i < e->n_symbols; i++)
		if (is_exported(&e->symbols[i]))
			x.items[x.n++] = &e->symbols[i];
	if (x.n)
		qsort(x.items, x.n, sizeof(const struct elf_symbol *), by_name);
	return x;
}

static const struct elf_symbol *symbol_index__find(const struct symbol_index *x, const struct elf_symbol *like)
{
	const struct elf_symbol **s =
	    x->n ? bsearch(&like, x->items, x->n, sizeof(const struct elf_symbol *), by_name) : NULL;
	return s ? *s : NULL;
}

static bool is_function(uint8_t type)
{
	return type == STT_FUNC || type == STT_GNU_IFUNC;
}

static char *symbol_name(const struct elf_symbol *s)
{
	return xasprintf("%s%s%s", s->name, *s->version ? (s->hidden_version ? "@" : "@@") : "", s->version);
}

static void check_data_export(struct planner *x, const struct elf_symbol *old, const struct elf_symbol *new)
{
	const struct elf_file *vapi = x->p->vapi, *next = x->p->next;
	FREE_CLEANUP char *name = symbol_name(old);
	if (old->s.st_size != new->s.st_size) {
		planner__refuse(x, "export-size", "%s is %lu bytes in the old build and %lu in the new", name,
				old->s.st_size, new->s.st_size);
	} else if (elf_file__is_data(vapi, old->s.st_value)) {
		if (layout__home(x, new->s.st_value) != old->s.st_value)
			planner__refuse(x, "state-layout", "%s lies at another place of the data in the new build",
					name);
	} else {
		const uint8_t *a = elf_file__at(vapi, old->s.st_value, old->s.st_size);
		const uint8_t *b = elf_file__at(next, new->s.st_value, new->s.st_size);
		if (!a || !b || memcmp(a, b, old->s.st_size) != 0)
			planner__refuse(x, "constant-export",
					"the exported constant %s has other contents in the new build", name);
	}
}

static void check_exports(struct planner *x, const struct symbol_index *old, const struct symbol_index *new)
{
	for (size_t i = 0; i < old->n; i++) {
		const struct elf_symbol *a = old->items[i], *b = symbol_index__find(new, a);
		uint8_t ta = ELF64_ST_TYPE(a->s.st_info);
		FREE_CLEANUP char *name = symbol_name(a);
		if (!b) {
			planner__refuse(x, "export-missing", "the new build does not export %s", name);
			continue;
		}
		uint8_t tb = ELF64_ST_TYPE(b->s.st_info);
		if (is_function(ta) != is_function(tb) || (ta == STT_TLS) != (tb == STT_TLS))
			planner__refuse(x, "export-type", "%s is another kind of symbol in the new build", name);
		else if (ta == STT_TLS && (a->s.st_value != b->s.st_value || a->s.st_size != b->s.st_size))
			planner__refuse(x, "tls", "the thread-local variable %s lies elsewhere in the new build", name);
		else if (ta == STT_OBJECT)
			check_data_export(x, a, b);
	}
	for (size_t i = 0; i < new->n; i++)
		x->p->counts.new_exports += !symbol_index__find(old, new->items[i]);
	if (x->p->counts.new_exports)
		planner__remark(
		    x,
		    "%zu new exports (delta VAPI) can be used by the library itself and by those updated with it, but "
		    "are not found by dlsym or by libraries loaded later until the process is restarted",
		    x->p->counts.new_exports);
}

static void check_needed(struct planner *x)
{
	const struct elf_file *vapi = x->p->vapi, *next = x->p->next;
	for (size_t i = 0; i < next->needed.n; i++) {
		bool had = false;
		for (size_t k = 0; k < vapi->needed.n && !had; k++)
			had = strcmp(vapi->needed.items[k], next->needed.items[i]) == 0;
		if (!had)
			planner__refuse(x, "needed", "the new build needs %s, which the old one does not load",
					next->needed.items[i]);
	}
}

static void check_identity(struct planner *x)
{
	const struct elf_file *vapi = x->p->vapi, *next = x->p->next;
	if (strcmp(vapi->soname, next->soname) != 0)
		planner__refuse(x, "soname", "another library: SONAME is \"%s\" in the old build and \"%s\" in the new",
				vapi->soname, next->soname);
	if (next->program)
		planner__refuse(x, "soname", "the new file is a program, not a shared library");
	if (next->build_id_len == 0 || vapi->build_id_len == 0)
		planner__refuse(x, "build-id", "a build without a build-id cannot be told from another");
}

/* ---- code that runs by itself ---- */

static size_t array_of(const struct elf_file *e, int64_t tag, int64_t size_tag, vaddr_t *at)
{
	const Elf64_Dyn *a = elf_file__dyn(e, tag), *n = elf_file__dyn(e, size_tag);
	*at = a ? a->d_un.d_ptr : 0;
	return a && n ? n->d_un.d_val / 8 : 0;
}

static vaddr_t entry_of(const struct elf_file *e, vaddr_t at)
{
	const struct elf_reloc *r = elf_file__reloc_at(e, at);
	if (r && r->type == R_X86_64_64 && r->addend == 0)
		return e->symbols[r->symbol].function;
	return r && r->type == R_X86_64_RELATIVE ? elf_file__behind_stub(e, (vaddr_t)r->addend) : 0;
}

static bool same_code(const struct planner *x, vaddr_t old, vaddr_t new)
{
	const struct function *f = code__function_starting(x->p->next_code, new);
	return f && match__successor(x->p->match, old) == new &&
	       x->p->match->same_code[f - x->p->next_code->functions.items];
}

static void check_constructors(struct planner *x)
{
	const struct elf_file *live = x->p->live, *next = x->p->next;
	static const struct {
		int64_t tag, size_tag;
		const char *name;
	} arrays[] = {{DT_INIT_ARRAY, DT_INIT_ARRAYSZ, "constructors"},
		      {DT_FINI_ARRAY, DT_FINI_ARRAYSZ, "destructors"}};
	for (size_t k = 0; k < 2; k++) {
		vaddr_t a, b;
		size_t na = array_of(live, arrays[k].tag, arrays[k].size_tag, &a);
		size_t nb = array_of(next, arrays[k].tag, arrays[k].size_tag, &b);
		if (na != nb) {
			planner__refuse(x, "constructors", "%zu %s in the old build and %zu in the new", na,
					arrays[k].name, nb);
			continue;
		}
		if (na && (!elf_file__at(live, a, 8 * na) || !elf_file__at(next, b, 8 * nb))) {
			planner__refuse(x, "constructors", "the list of %s does not lie in the file", arrays[k].name);
			continue;
		}
		for (size_t i = 0; k == 0 && i < na; i++) {
			vaddr_t old = entry_of(live, a + 8 * i), new = entry_of(next, b + 8 * i);
			if (!old || !new || !same_code(x, old, new)) {
				FREE_CLEANUP char *name = code__describe(x->p->next_code, new);
				planner__refuse(x, "constructors",
						"the constructor %s changed; constructors do not run again", name);
			}
		}
	}
}

/* ---- slots ---- */

static vaddr_t live_function(const struct planner *x, uint32_t slot)
{
	if (x->map && x->map->slots)
		return slot < x->map->n_slots ? x->map->slots[slot] : 0;
	return slot < x->p->vapi->vapi.n_used ? x->p->vapi->slots[slot].function : 0;
}

static void fill_export_slot(struct planner *x, uint32_t i, const struct symbol_index *new)
{
	const struct vapi_slot *slot = &x->p->vapi->slots[i];
	const struct elf_symbol *old = &x->p->vapi->symbols[slot->symbol], *s = symbol_index__find(new, old);
	if (!s)
		return; /* refused as a missing export */
	const struct vapi_slot *nexts = elf_file__slot_at(x->p->next, s->s.st_value);
	/* a split library's IFUNC exports are called functions */
	bool ifunc = ELF64_ST_TYPE(s->s.st_info) == STT_GNU_IFUNC || (nexts && (nexts->flags & VAPI_SLOT_IFUNC));
	if (ifunc != ((slot->flags & VAPI_SLOT_IFUNC) != 0)) {
		planner__refuse(x, "ifunc", "%s is an IFUNC in one build only", s->name);
		return;
	}
	if (!elf_file__is_code(x->p->next, s->function)) {
		planner__refuse(x, "export-type", "%s is a function that lies outside of the new build's code",
				s->name);
		return;
	}
	x->p->slots[i] = s->function;
}

static void fill_internal_slot(struct planner *x, uint32_t i, vaddr_t old)
{
	vaddr_t new = match__successor(x->p->match, old);
	FREE_CLEANUP char *name = code__describe(x->p->live_code, old);
	bool spare = i >= x->p->vapi->vapi.n_used || (x->p->vapi->slots[i].flags & VAPI_SLOT_SPARE);
	if (!new &&spare) {
		/* a function that an update brought and this one takes away, as when going back */
		x->p->slots[i] = SLOT_HELD;
		planner__remark(x, "%s is not in the new build; who keeps its address still calls the earlier build's",
				name);
		return;
	}
	if (!new) {
		planner__refuse(x, "function-gone",
				"the address of %s is taken, and the new build has no function that corresponds to it",
				name);
		return;
	}
	const struct function *f = code__function_starting(x->p->next_code, new);
	size_t k = (size_t)(f - x->p->next_code->functions.items);
	if (x->p->match->how[k] <= MATCH_ALIGNED && !x->p->match->same_code[k]) {
		planner__refuse(
		    x, "function-unclear",
		    "the address of %s is taken, it changed, and what corresponds to it in the new build is not "
		    "certain",
		    name);
		return;
	}
	x->p->slots[i] = new;
}

/* A slot whose function only an older image has: does next bring it back? */
static vaddr_t held_function(const struct planner *x, uint32_t slot)
{
	const struct elf_file *next = x->p->next;
	for (size_t i = 0; i < x->map->n_held; i++) {
		const struct held_slot *h = &x->map->held[i];
		if (h->slot == slot &&
		    build_id__equal(h->build_id, h->build_id_len, next->build_id, next->build_id_len) &&
		    code__function_starting(x->p->next_code, h->function))
			return h->function;
	}
	return SLOT_HELD;
}

static void fill_slots(struct planner *x, const struct symbol_index *new)
{
	const struct elf_file *vapi = x->p->vapi;
	x->p->slots = xcalloc(vapi->vapi.n_slots, sizeof(vaddr_t));
	for (uint32_t i = 0; i < vapi->vapi.n_slots; i++) {
		vaddr_t old = live_function(x, i);
		if (old == SLOT_HELD)
			x->p->slots[i] = held_function(x, i);
		else if (i < vapi->vapi.n_used && (vapi->slots[i].flags & VAPI_SLOT_EXPORT))
			fill_export_slot(x, i, new);
		else if (old)
			fill_internal_slot(x, i, old);
	}
}

/* A function that old code, data or heap knows by one stub must not become known by another. */
static void check_identity_of_functions(struct planner *x)
{
	vaddr_list taken = {0};
	split__taken_functions(x->p->next_code, &taken);
	const struct elf_file *vapi = x->p->vapi;
	for (size_t i = 0; i < taken.n; i++) {
		vaddr_t old = match__predecessor(x->p->match, taken.items[i]);
		uint32_t slot_old = UINT32_MAX, slot_new = UINT32_MAX;
		for (uint32_t k = vapi->vapi.n_slots; k-- > 0;) {
			bool ifunc = k < vapi->vapi.n_used && (vapi->slots[k].flags & VAPI_SLOT_IFUNC);
			if (old && !ifunc && live_function(x, k) == old)
				slot_old = k;
			if (!ifunc && x->p->slots[k] == taken.items[i])
				slot_new = k;
		}
		if (slot_old != UINT32_MAX && slot_old != slot_new) {
			FREE_CLEANUP char *name = code__describe(x->p->next_code, taken.items[i]);
			planner__refuse(x, "function-identity", "%s would get another address than the old build's",
					name);
		}
	}
	vec__free(&taken);
}

/* ---- all of it ---- */

static void check_code(struct planner *x)
{
	for (size_t i = 0; i < x->p->next_code->doubts.n; i++)
		planner__refuse(x, "code-unknown", "%s", x->p->next_code->doubts.items[i]);
}

static void count_functions(struct plan *p)
{
	const struct match *m = p->match;
	for (size_t i = 0; i < p->next_code->functions.n; i++) {
		if (p->next_code->functions.items[i].plt)
			continue;
		if (m->b_to_a[i] < 0)
			p->counts.added++;
		else if (m->same_code[i])
			p->counts.identical++;
		else
			p->counts.changed++;
	}
	for (size_t i = 0; i < p->live_code->functions.n; i++)
		p->counts.removed += m->a_to_b[i] < 0 && !p->live_code->functions.items[i].plt;
}

struct analysis {
	const struct elf_file *elf;
	struct code *code;
	struct err *err;
};

static void *analyse(void *analysis)
{
	struct analysis *a = analysis;
	a->err = code__analyse(a->elf, &a->code);
	return NULL;
}

/* Both builds at the same time: half of what a plan takes is spent here. */
static struct err *analyse_both(struct plan *p)
{
	struct analysis live = {.elf = p->live}, next = {.elf = p->next};
	pthread_t thread;
	bool beside = p->live != p->next && thread__start(&thread, analyse, &live);
	analyse(&next);
	if (beside)
		pthread_join(thread, NULL);
	else
		analyse(&live);
	p->live_code = live.code;
	p->next_code = next.code;
	if (live.err) {
		err__free(next.err);
		return live.err;
	}
	return next.err;
}

/* Objects on stacks changed: nobody may be in the middle of any function, nor come back into one. */
static void empty_stacks(struct planner *x)
{
	struct plan *p = x->p;
	p->entangled = true;
	if (!p->vapi->plain)
		return; /* there all of the code is left, by whom it may not be gone on with elsewhere (succession.c) */
	p->leaves.n = 0;
	for (size_t i = 0; i < x->vapi_code->functions.n; i++) {
		const struct function *f = &x->vapi_code->functions.items[i];
		if (!f->plt)
			vec__push(&p->leaves, (struct vrange){f->start, f->end});
	}
}

/* They take more memory than all of the rest, and a plan from the cache has none. */
static void put_tools_away(struct plan *p)
{
	match__free(p->match);
	code__free(p->live_code);
	code__free(p->next_code);
	p->match = NULL;
	p->live_code = p->next_code = NULL;
}

/* All of a split library's code moves; what counts is what nobody may go on with as it was. */
static void list_private(struct plan *p)
{
	FREE_CLEANUP bool *moves = xcalloc(p->functions.n + 1, sizeof(bool));
	for (size_t i = 0; i < p->functions.n; i++)
		moves[i] = !p->functions.items[i].identical;
	private__list(p, p->live_code, p->next_code, p->match, moves);
}

struct err *plan__make(const struct elf_file *vapi, const struct elf_file *live, const struct live_map *map,
		       const struct elf_file *next, struct plan **out)
{
	if (!vapi->split)
		return err__new(ERR_USAGE, 0, vapi->path, NULL, "not a split library");
	struct plan *p = xcalloc(1, sizeof(*p));
	p->vapi = vapi;
	p->live = live;
	p->next = next;
	struct err *err = analyse_both(p);
	if (err) {
		plan__free(p);
		return err;
	}
	struct planner x = {.p = p, .map = map};
	p->match = match__make(p->live_code, p->next_code);
	count_functions(p);
	check_identity(&x);
	if (vapi->plain && live != vapi)
		err = code__analyse(vapi, &x.vapi_code);
	else if (vapi->plain)
		x.vapi_code = p->live_code;
	if (err) {
		plan__free(p);
		return err;
	}
	if (p->refusals.n == 0) { /* comparing different libraries yields nothing but noise */
		struct symbol_index old = symbol_index__make(vapi), new = symbol_index__make(next);
		check_code(&x);
		distances__check(&x);
		layout__check(&x);
		check_exports(&x, &old, &new);
		check_needed(&x);
		check_constructors(&x);
		fill_slots(&x, &new);
		check_identity_of_functions(&x);
		rebind__all(&x);
		if (vapi->plain)
			unprepared__settle(&x);
		if (!proof__judge(&x) || p->layout == LAYOUT_PROVED)
			gate__judge(&x);
		if (x.stack_objects)
			empty_stacks(&x);
		contents__settle(&x);
		free(old.items);
		free(new.items);
	}
	succession__list(&x);
	if (!vapi->plain)
		list_private(p);
	if (x.vapi_code != p->live_code)
		code__free(x.vapi_code);
	put_tools_away(p);
	vec__free(&x.state);
	vec__free(&x.live_state);
	vec__free(&x.objects);
	vec__free(&x.changed_values);
	vec__free(&x.strings);
	constants__free(&x);
	free(x.unproved);
	vec__free(&x.targets);
	free(x.target_homes);
	free(x.target_lives);
	free(x.target_ends);
	*out = p;
	return NULL;
}

void plan__require_proof(struct plan *p)
{
	struct planner x = {.p = p};
	if (p->refusals.n == 0 && p->layout != LAYOUT_PROVED)
		planner__refuse(&x, "layout-not-proved",
				"the layout of objects in the heap is not proved by debug information of both builds");
}

vaddr_t plan__stub(struct plan *p, vaddr_t function)
{
	const struct vapi_note *v = &p->vapi->vapi;
	uint32_t free_slot = UINT32_MAX;
	for (uint32_t i = 0; i < v->n_slots; i++) {
		bool spare = i >= v->n_used || (p->vapi->slots[i].flags & VAPI_SLOT_SPARE);
		if (p->slots[i] == function && (spare || !(p->vapi->slots[i].flags & VAPI_SLOT_IFUNC)))
			return elf_file__canonical(p->vapi, i);
		if (spare && p->slots[i] == 0 && free_slot == UINT32_MAX)
			free_slot = i;
	}
	if (free_slot == UINT32_MAX)
		return 0;
	p->slots[free_slot] = function;
	return vapi__stub(v, free_slot);
}

void plan__free(struct plan *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->refusals.n; i++)
		free(p->refusals.items[i].text);
	for (size_t i = 0; i < p->remarks.n; i++)
		free(p->remarks.items[i]);
	vec__free(&p->refusals);
	vec__free(&p->remarks);
	vec__free(&p->patches);
	vec__free(&p->new_got);
	vec__free(&p->words);
	vec__free(&p->own_words);
	vec__free(&p->pieces);
	vec__free(&p->consts);
	vec__free(&p->unwind);
	free(p->slots);
	for (size_t i = 0; i < p->kept.n; i++)
		free(p->kept.items[i]);
	vec__free(&p->kept);
	vec__free(&p->functions);
	vec__free(&p->returns);
	vec__free(&p->jumps);
	vec__free(&p->pages);
	vec__free(&p->leaves);
	vec__free(&p->private_uses);
	vec__free(&p->private_gives);
	free(p->overrule);
	put_tools_away(p);
	free(p);
}

void plan__cleanup(struct plan **p)
{
	plan__free(*p);
}

vaddr_t plan__place(const struct plan *p, vaddr_t base, vaddr_t home)
{
	return home >= HOME_OWN ? base + p->own_at + (home - HOME_OWN) : home;
}

vaddr_t plan__successor(const struct plan *p, vaddr_t function)
{
	size_t lo = 0, hi = p->functions.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (p->functions.items[mid].end <= function)
			lo = mid + 1;
		else
			hi = mid;
	}
	const struct succession *f = lo < p->functions.n ? &p->functions.items[lo] : NULL;
	return f && f->start <= function ? f->next : 0;
}

void live_map__free(struct live_map *m)
{
	free(m->slots);
	free(m->consts);
	free(m->held);
	free(m->pieces);
	free(m->leads_to);
	free(m->jumps);
	for (size_t i = 0; i < m->n_past; i++)
		free(m->past[i].pieces);
	free(m->past);
	*m = (struct live_map){0};
}
