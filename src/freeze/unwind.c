/* Unwinding, frame by frame (see unwind.h). */
#include "freeze/unwind.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "freeze/cfi.h"
#include "inject/proc.h"

/* DWARF register numbers: psABI figure 3.36. */
enum { DWARF_RBX = 3, DWARF_RBP = 6, DWARF_SP = 7, DWARF_R12 = 12, DWARF_R15 = 15, DWARF_RA = ARCH_DWARF_REGS - 1 };

enum { FRAMES_MAX = 4096, VDSO_MAX = 1 << 20 };

/* A file that code is mapped from. */
struct module {
	uint32_t dev_major, dev_minor;
	uint64_t inode; /* 0: the vDSO */
	struct cfi *cfi;
};

struct unwinder {
	const struct process *p;
	struct mappings maps;
	VEC(struct module) modules;
	size_t *module_of; /* for each mapping: index + 1, or 0 */

	uint64_t page; /* address of what `cache` holds, 1: nothing */
	uint8_t cache[LLU_PAGE];
};

/* --- modules --- */

/* The vDSO is no file; its pages are an ELF image, though (vdso(7)). */
static struct cfi *read_vdso(const struct unwinder *u, const struct mapping *m)
{
	size_t len = m->range.end.v - m->range.start.v;
	if (len > VDSO_MAX)
		return NULL;
	FREE_CLEANUP uint8_t *image = xmalloc(len);
	ERR_CLEANUP struct err *e = process__read(u->p, m->range.start, image, len);
	return e ? NULL : cfi__read_memory(image, len);
}

static struct cfi *read_file(const struct unwinder *u, const struct mapping *m)
{
	CLOSE_CLEANUP int fd = -1;
	ERR_CLEANUP struct err *e = process__open_mapped(u->p, m, &fd);
	return e ? NULL : cfi__read(fd);
}

static size_t find_module(const struct unwinder *u, const struct mapping *m)
{
	for (size_t i = 0; i < u->modules.n; i++) {
		const struct module *mod = &u->modules.items[i];
		if (mod->inode == m->inode && mod->dev_major == m->dev_major && mod->dev_minor == m->dev_minor)
			return i + 1;
	}
	return 0;
}

/* Code of no file (made at run time, or a page that was changed and is anonymous now) has no information. */
static void add_modules(struct unwinder *u)
{
	u->module_of = xcalloc(u->maps.n, sizeof(*u->module_of));
	for (size_t i = 0; i < u->maps.n; i++) {
		const struct mapping *m = &u->maps.items[i];
		bool vdso = strcmp(m->path, "[vdso]") == 0;
		if (!(m->prot & PROT_EXEC) || !(vdso || (m->inode && !m->shared)))
			continue;
		u->module_of[i] = find_module(u, m);
		if (u->module_of[i])
			continue;
		struct module mod = {m->dev_major, m->dev_minor, m->inode, vdso ? read_vdso(u, m) : read_file(u, m)};
		vec__push(&u->modules, mod);
		u->module_of[i] = u->modules.n;
	}
}

struct err *unwinder__new(const struct process *p, struct unwinder **out)
{
	struct unwinder *u = xcalloc(1, sizeof(*u));
	u->p = p;
	u->page = 1;
	struct err *e = process__maps(p, &u->maps);
	if (e) {
		free(u);
		return e;
	}
	add_modules(u);
	*out = u;
	return NULL;
}

void unwinder__free(struct unwinder *u)
{
	if (!u)
		return;
	for (size_t i = 0; i < u->modules.n; i++)
		cfi__free(u->modules.items[i].cfi);
	vec__free(&u->modules);
	free(u->module_of);
	mappings__free(&u->maps);
	free(u);
}

/* The files that code is mapped from must be the same, at the same places; what else was mapped does not matter, as
 * there nothing is known. */
struct err *unwinder__current(const struct unwinder *u, bool *out)
{
	FREE_CLEANUP const struct mapping **known = xcalloc(u->maps.n, sizeof(struct mapping *));
	size_t n = 0;
	for (size_t i = 0; i < u->maps.n; i++)
		if (u->module_of[i])
			known[n++] = &u->maps.items[i];
	return process__still_mapped(u->p, known, n, out);
}

/* The rows of mapping `i`'s file, and where in it the code at an address would be, were that mapped from there on, or
 * up to there; NULL where it has no such place. */
static const struct cfi *place_by(const struct unwinder *u, size_t i, taddr_t code, vaddr_t *at)
{
	const struct mapping *m = &u->maps.items[i];
	const struct cfi *cfi = u->module_of[i] ? u->modules.items[u->module_of[i] - 1].cfi : NULL;
	if (!cfi || (code.v < m->range.start.v && m->range.start.v - code.v > m->offset))
		return NULL;
	return cfi__address(cfi, code.v - m->range.start.v + m->offset, at) ? cfi : NULL;
}

static bool touch(const struct unwinder *u, size_t low)
{
	return u->maps.items[low].range.end.v == u->maps.items[low + 1].range.start.v;
}

/* Not another such page, of an older image. */
static bool is_of_segment(const struct unwinder *u, size_t i)
{
	vaddr_t at;
	return place_by(u, i, u->maps.items[i].range.start, &at) != NULL;
}

/* A page with entries that jump (image/unprepared.h) is of a file that has it behind its segments. It stands for the
 * page of the library around it, and has the same code but for those entries. */
static const struct cfi *place_around(const struct unwinder *u, size_t self, taddr_t code, vaddr_t *at)
{
	for (size_t i = self; i > 0 && touch(u, i - 1) && u->module_of[i - 1]; i--)
		if (u->module_of[i - 1] != u->module_of[self] && is_of_segment(u, i - 1))
			return place_by(u, i - 1, code, at);
	for (size_t i = self; i + 1 < u->maps.n && touch(u, i) && u->module_of[i + 1]; i++)
		if (u->module_of[i + 1] != u->module_of[self] && is_of_segment(u, i + 1))
			return place_by(u, i + 1, code, at);
	return NULL;
}

static bool row_at(const struct unwinder *u, taddr_t code, struct cfi_row *out)
{
	const struct mapping *m = mappings__at(&u->maps, code);
	size_t self = m ? (size_t)(m - u->maps.items) : 0;
	vaddr_t at = 0;
	if (!m || !u->module_of[self])
		return false;
	const struct cfi *cfi = place_by(u, self, code, &at);
	if (!cfi)
		cfi = place_around(u, self, code, &at);
	return cfi && cfi__row(cfi, at, out);
}

bool unwinder__alike(const struct unwinder *u, taddr_t a, taddr_t b)
{
	struct cfi_row x;
	struct cfi_row y;
	return row_at(u, a, &x) && row_at(u, b, &y) && cfi_row__equal(&x, &y);
}

/* --- frames --- */

static bool read_word(void *arg, taddr_t at, uint64_t *out)
{
	struct unwinder *u = arg;
	uint64_t page = align_down(at.v, LLU_PAGE);
	if (at.v - page > LLU_PAGE - sizeof(*out)) { /* across two pages */
		ERR_CLEANUP struct err *e = process__read(u->p, at, out, sizeof(*out));
		return !e;
	}
	if (u->page != page) {
		u->page = 1;
		ERR_CLEANUP struct err *e = process__read(u->p, taddr(page), u->cache, sizeof(u->cache));
		if (e)
			return false;
		u->page = page;
	}
	memcpy(out, u->cache + (at.v - page), sizeof(*out));
	return true;
}

/* The CFA: by its usual meaning the stack pointer of the caller. */
static bool find_cfa(const struct cfi_frame *f, const struct cfi_row *row, uint64_t *out)
{
	if (row->cfa.kind == CFI_VAL_EXPRESSION)
		return cfi__evaluate(f, row->cfa.expr, row->cfa.len, NULL, out);
	if (!(f->known >> row->cfa_register & 1))
		return false;
	*out = f->reg[row->cfa_register] + (uint64_t)row->cfa.n;
	return true;
}

static bool preserved(unsigned reg)
{
	return reg == DWARF_RBX || reg == DWARF_RBP || (reg >= DWARF_R12 && reg <= DWARF_R15);
}

enum found { FOUND, LOST, BROKEN };

/* One register of the caller. `slot`: where it was saved, if it was at a fixed place; `computed`: by an expression. */
static enum found find_register(const struct cfi_frame *f, const struct cfi_rule *r, unsigned reg, uint64_t cfa,
				uint64_t *out, taddr_t *slot, taddr_t *computed)
{
	uint64_t at = 0;
	switch (r->kind) {
	case CFI_UNSPECIFIED:
		if (reg == DWARF_SP) {
			*out = cfa;
			return FOUND;
		}
		if (!preserved(reg)) /* lost by the calling convention; of the return address: no way to go on */
			return LOST;
		/* fallthrough */
	case CFI_SAME:
		*out = f->reg[reg];
		return f->known >> reg & 1 ? FOUND : LOST;
	case CFI_UNDEFINED:
		return LOST;
	case CFI_OFFSET:
		*slot = taddr(cfa + (uint64_t)r->n);
		return f->read(f->arg, *slot, out) ? FOUND : BROKEN;
	case CFI_VAL_OFFSET:
		*out = cfa + (uint64_t)r->n;
		return FOUND;
	case CFI_REGISTER:
		if (r->n < 0 || r->n >= ARCH_DWARF_REGS || !(f->known >> r->n & 1))
			return BROKEN;
		*out = f->reg[r->n];
		return FOUND;
	case CFI_EXPRESSION:
		if (!cfi__evaluate(f, r->expr, r->len, &cfa, &at))
			return BROKEN;
		*computed = taddr(at);
		return f->read(f->arg, *computed, out) ? FOUND : BROKEN;
	case CFI_VAL_EXPRESSION:
		return cfi__evaluate(f, r->expr, r->len, &cfa, out) ? FOUND : BROKEN;
	}
	return BROKEN;
}

enum step { STEP_ON, STEP_END, STEP_STUCK };

/* From a frame to its caller; *interrupted: the caller was. */
static enum step step(const struct unwinder *u, struct cfi_frame *f, struct frame *frame, bool *interrupted)
{
	struct cfi_row row;
	uint64_t cfa = 0;
	struct cfi_frame next = *f;
	if (!row_at(u, frame__code(frame), &row))
		return STEP_STUCK;
	*interrupted = row.signal_frame;
	if (row.reg[DWARF_RA].kind == CFI_UNDEFINED)
		return STEP_END;
	if (!find_cfa(f, &row, &cfa))
		return STEP_STUCK;
	next.known = 0;
	for (unsigned i = 0; i < ARCH_DWARF_REGS; i++) {
		taddr_t slot = {0}, computed = {0};
		enum found found = find_register(f, &row.reg[i], i, cfa, &next.reg[i], &slot, &computed);
		if (found == BROKEN)
			return STEP_STUCK;
		next.known |= (uint32_t)(found == FOUND) << i;
		if (i == DWARF_RA) {
			frame->slot = slot;
			frame->signal_slot = row.signal_frame ? computed : taddr(0);
		}
	}
	if (!(next.known >> DWARF_RA & 1) || !(next.known >> DWARF_SP & 1))
		return STEP_STUCK;
	/* a caller's stack lies above; only a signal may have come on another one */
	if (!row.signal_frame && next.reg[DWARF_SP] < f->reg[DWARF_SP])
		return STEP_STUCK;
	*f = next;
	return STEP_ON;
}

void unwinder__frames(struct unwinder *u, const struct arch_regs *regs, struct frames *out)
{
	struct cfi_frame f = {.known = (1u << ARCH_DWARF_REGS) - 1, .read = read_word, .arg = u};
	bool activation = true;
	*out = (struct frames){0};
	u->page = 1;
	arch_regs__dwarf(regs, f.reg);
	while (out->v.n < FRAMES_MAX) {
		struct frame frame = {.pc = taddr(f.reg[DWARF_RA]),
				      .sp = taddr(f.reg[DWARF_SP]),
				      .activation = activation,
				      .known = f.known};
		memcpy(frame.reg, f.reg, sizeof(frame.reg));
		enum step s = step(u, &f, &frame, &activation);
		out->stuck_at = frame.pc;
		vec__push(&out->v, frame);
		out->complete = s == STEP_END;
		if (s != STEP_ON)
			return;
	}
}
