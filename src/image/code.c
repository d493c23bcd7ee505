/* Code analysis; see code.h. The procedure, over one byte map of all executable sections:
 *
 *   1. functions with an FDE are swept from start to end
 *   2. from known entries outside them, control flow is followed until it ends or meets them
 *   3. what is left is padding, or is proven free of references, or is a doubt
 */
#include "image/code.h"

#include <stdio.h>
#include <string.h>

#include "arch/decode.h"
#include "base/hash.h"

enum mark {
	MARK_NONE,
	MARK_INSN,  /* first byte of an instruction found by flow */
	MARK_BODY,  /* a further byte of one */
	MARK_FDE,   /* under an FDE */
	MARK_ENTRY, /* as MARK_INSN, and something outside leads here: a function starts */
};

struct analysis {
	struct code *c;
	const struct elf_file *elf;
	vaddr_t lo, hi; /* executable sections lie in [lo, hi) */
	uint8_t *map;   /* enum mark, hi - lo of them */
	VEC(vaddr_t) work;
	vaddr_t data_lo, data_hi; /* writable segments lie in [data_lo, data_hi] */
	fde_list fdes;
};

static void doubt(struct code *c, char *why)
{
	vec__push(&c->doubts, why);
}

static bool is_exec_section(const struct elf_file *e, const struct elf_section *s)
{
	return (s->h.sh_flags & (SHF_ALLOC | SHF_EXECINSTR)) == (SHF_ALLOC | SHF_EXECINSTR) && s->data &&
	       s->h.sh_addr < elf_file__end(e);
}

/* ---- what is where ---- */

static struct err *find_extent(struct analysis *a)
{
	a->lo = UINT64_MAX;
	for (size_t i = 1; i < a->elf->n_sections; i++) {
		const struct elf_section *s = &a->elf->sections[i];
		if (!is_exec_section(a->elf, s))
			continue;
		if (!elf_file__segment(a->elf, s->h.sh_addr) ||
		    !(elf_file__segment(a->elf, s->h.sh_addr)->p_flags & PF_X))
			return err__new(ERR_UNREADABLE, 0, a->elf->path, NULL,
					"section %s is called executable, its segment is not", s->name);
		if (s->h.sh_addr < a->lo)
			a->lo = s->h.sh_addr;
		if (s->h.sh_addr + s->h.sh_size > a->hi)
			a->hi = s->h.sh_addr + s->h.sh_size;
	}
	if (a->hi == 0)
		a->lo = 0;
	a->data_lo = UINT64_MAX;
	for (size_t i = 0; i < a->elf->n_phdrs; i++) {
		const Elf64_Phdr *p = &a->elf->phdrs[i];
		if (p->p_type != PT_LOAD || !(p->p_flags & PF_W) || p->p_vaddr >= elf_file__end(a->elf))
			continue;
		if (p->p_flags & PF_X)
			return err__new(ERR_REFUSED, 0, a->elf->path, NULL,
					"a segment is writable and executable at once");
		if (p->p_vaddr < a->data_lo)
			a->data_lo = p->p_vaddr;
		if (p->p_vaddr + p->p_memsz > a->data_hi)
			a->data_hi = p->p_vaddr + p->p_memsz;
	}
	return NULL;
}

static uint8_t *mark_at(struct analysis *a, vaddr_t v)
{
	return v >= a->lo && v < a->hi ? &a->map[v - a->lo] : NULL;
}

/* Between executable sections there may be others, or nothing. */
static bool in_exec_section(const struct analysis *a, vaddr_t v)
{
	const struct elf_section *s = elf_file__section_at(a->elf, v);
	return s && is_exec_section(a->elf, s);
}

/* ---- references ---- */

static void add_ref(struct code *c, const struct insn *i, vaddr_t at)
{
	struct ref r = {
	    .insn = at,
	    .site = at + i->field,
	    .end = at + i->len,
	    .target = i->target,
	    .size = i->field_size,
	    .kind = REF_MEMORY,
	};
	if (i->is_branch)
		r.kind = i->flow == FLOW_CALL ? REF_CALL : REF_JUMP;
	else if (i->takes_address)
		r.kind = REF_ADDRESS;
	vec__push(&c->refs, r);
}

/* Byte k of an instruction, as far as it does not say how wide the displacement and the immediate are: none, one byte
 * or four (Intel SDM volume 2, tables 2-2 and 2-3; opcodes 0x81 and 0x83, 0x69 and 0x6b). */
static uint8_t form_of(const uint8_t *p, const struct insn *i, unsigned k)
{
	enum { MOD = 0xc0, RM = 7, REGISTER = 0xc0, SIB = 4, NO_BASE = 5 };
	uint8_t modrm = p[i->modrm], mod = modrm & MOD, rm = modrm & RM;
	if (!i->modrm)
		return p[k];
	if (k + 1 == i->modrm && (k == 0 || p[k - 1] != 0x0f))
		return p[k] == 0x83 ? 0x81 : p[k] == 0x6b ? 0x69 : p[k];
	bool no_base = mod == 0 && (rm == NO_BASE || (rm == SIB && (p[i->modrm + 1] & RM) == NO_BASE));
	return k == i->modrm && mod != REGISTER && !no_base ? (uint8_t)((modrm & ~MOD) | 0x40) : p[k];
}

uint64_t insn__hash(uint64_t h, const uint8_t *p, const struct insn *i, bool mask_relative, enum insn_part part)
{
	uint8_t bytes[INSN_MAX];
	unsigned n = 0;
	for (unsigned k = 0; k < i->len; k++) {
		bool relative = i->has_target && mask_relative && k - i->field < i->field_size;
		bool value = k - i->disp < i->disp_size || k - i->imm < i->imm_size;
		if (value && part == INSN_FORM)
			continue;
		bytes[n++] = relative || (value && part == INSN_SHAPE) ? 0
			     : part == INSN_FORM                       ? form_of(p, i, k)
								       : p[k];
	}
	return hash__bytes(h, bytes, n);
}

/* Decodes a function one instruction after the other and keeps what leads out. */
static bool sweep(struct analysis *a, struct function *f)
{
	vaddr_t start = f->start, end = f->end;
	const uint8_t *code = elf_file__at(a->elf, start, end - start);
	uint64_t h = HASH_START;
	f->content = h ^ start; /* like nothing else, until all of it is decoded */
	for (vaddr_t at = start; at < end;) {
		struct insn i;
		if (!code || !insn__decode(code + (at - start), end - at, at, &i))
			return false;
		if (i.has_target && (!i.is_branch || i.target < start || i.target >= end) && !i.is_nop)
			add_ref(a->c, &i, at);
		bool inner = i.is_branch && i.target >= start && i.target < end;
		h = insn__hash(h, code + (at - start), &i, !inner, INSN_ALL);
		at += i.len;
	}
	f->content = h ^ (end - start);
	return true;
}

/* ---- 1. functions with an FDE ---- */

static bool in_plt(const struct elf_file *e, vaddr_t at)
{
	const struct elf_section *s = elf_file__section_at(e, at);
	return s && strncmp(s->name, ".plt", 4) == 0;
}

static void add_fde_functions(struct analysis *a)
{
	for (size_t i = 0; i < a->fdes.n; i++) {
		const struct fde *f = &a->fdes.items[i];
		if (!in_exec_section(a, f->start) || !in_exec_section(a, f->end - 1)) {
			doubt(a->c, xasprintf("an unwind entry at 0x%lx covers no section", f->start));
			continue;
		}
		memset(mark_at(a, f->start), MARK_FDE, f->end - f->start);
		struct function fn = {
		    .start = f->start,
		    .end = f->end,
		    .fde = true,
		    .signal_frame = f->signal_frame,
		    .plt = in_plt(a->elf, f->start),
		};
		vec__push(&a->c->functions, fn);
	}
}

/* ---- 2. flow from known entries ---- */

static void add_entry(struct analysis *a, vaddr_t v)
{
	uint8_t *m = mark_at(a, v);
	if (!m || *m == MARK_FDE || *m == MARK_ENTRY || !in_exec_section(a, v))
		return;
	if (*m == MARK_BODY) {
		doubt(a->c, xasprintf("0x%lx is entered, and lies within an instruction", v));
		return;
	}
	if (*m == MARK_NONE)
		vec__push(&a->work, v);
	*m = MARK_ENTRY;
}

/* Follows one path until it ends, meets code that is known already, or cannot be decoded. */
static void follow(struct analysis *a, vaddr_t at)
{
	const struct elf_section *s = elf_file__section_at(a->elf, at);
	vaddr_t end = s->h.sh_addr + s->h.sh_size;
	bool first = true;
	for (;;) {
		uint8_t *m = mark_at(a, at);
		if (at >= end || !m || *m == MARK_FDE)
			return;
		if (!first && (*m == MARK_INSN || *m == MARK_ENTRY))
			return;
		struct insn i;
		if (*m == MARK_BODY || !insn__decode(s->data + (at - s->h.sh_addr), end - at, at, &i)) {
			doubt(a->c, xasprintf("code at 0x%lx cannot be decoded", at));
			return;
		}
		if (*m == MARK_NONE)
			*m = MARK_INSN;
		for (unsigned k = 1; k < i.len; k++) {
			if (m[k] != MARK_NONE && m[k] != MARK_BODY) {
				doubt(a->c, xasprintf("instructions overlap at 0x%lx", at + k));
				return;
			}
			m[k] = MARK_BODY;
		}
		first = false;
		if (i.is_branch && i.flow != FLOW_NEXT) {
			uint8_t *t = mark_at(a, i.target);
			if (t && *t == MARK_NONE) {
				if (i.flow == FLOW_CALL) {
					add_entry(a, i.target);
				} else if (!in_exec_section(a, i.target)) {
					doubt(a->c, xasprintf("code at 0x%lx jumps to 0x%lx, where there is none", at,
							      i.target));
				} else {
					*t = MARK_INSN;
					vec__push(&a->work, i.target);
				}
			} else if (t && *t == MARK_BODY) {
				doubt(a->c, xasprintf("0x%lx is entered, and lies within an instruction", i.target));
			}
		}
		if (i.flow == FLOW_JUMP || i.flow == FLOW_STOP)
			return;
		at += i.len;
	}
}

/* PLT entries without an FDE, from the start of the section on; each is an entry. */
static void add_plt_entries(struct analysis *a)
{
	for (size_t i = 1; i < a->elf->n_sections; i++) {
		const struct elf_section *s = &a->elf->sections[i];
		if (!is_exec_section(a->elf, s) || strncmp(s->name, ".plt", 4) != 0)
			continue;
		/* lld does not say how long entries are */
		uint64_t usual = strcmp(s->name, ".plt.got") == 0 ? 8 : 16;
		uint64_t step = s->h.sh_entsize == 8 || s->h.sh_entsize == 16 ? s->h.sh_entsize : usual;
		for (uint64_t at = 0; at < s->h.sh_size; at += step)
			add_entry(a, s->h.sh_addr + at);
	}
}

static void add_known_entries(struct analysis *a)
{
	const struct elf_file *e = a->elf;
	for (size_t i = 0; i < e->n_symbols; i++) {
		uint8_t type = ELF64_ST_TYPE(e->symbols[i].s.st_info);
		if (e->symbols[i].s.st_shndx != SHN_UNDEF && (type == STT_FUNC || type == STT_GNU_IFUNC))
			add_entry(a, e->symbols[i].function);
	}
	for (size_t i = 0; i < e->locals.n; i++)
		if (e->locals.items[i].type != STT_OBJECT)
			add_entry(a, e->locals.items[i].value);
	for (size_t i = 0; e->split && i < e->vapi.n_slots; i++)
		add_entry(a, e->slots[i].function);
	for (size_t i = 0; i < e->relocs.n; i++) {
		uint32_t type = e->relocs.items[i].type;
		if (type == R_X86_64_RELATIVE || type == R_X86_64_IRELATIVE)
			add_entry(a, elf_file__behind_stub(e, (vaddr_t)e->relocs.items[i].addend));
	}
	static const char *const called_by_loader[] = {".init", ".fini"}; /* by DT_INIT and DT_FINI */
	for (size_t i = 0; i < 2; i++) {
		const struct elf_section *s = elf_file__section(e, called_by_loader[i]);
		if (s)
			add_entry(a, s->h.sh_addr);
	}
	add_plt_entries(a);
}

static void follow_all(struct analysis *a)
{
	while (a->work.n)
		follow(a, a->work.items[--a->work.n]);
}

/* A function is a run of decoded bytes; an entry starts a new one. */
static void add_flow_functions(struct analysis *a)
{
	for (vaddr_t at = a->lo; at < a->hi;) {
		uint8_t m = a->map[at - a->lo];
		if (m != MARK_INSN && m != MARK_ENTRY) {
			at++;
			continue;
		}
		const struct elf_section *s = elf_file__section_at(a->elf, at);
		vaddr_t limit = s ? s->h.sh_addr + s->h.sh_size : a->hi, end = at + 1;
		while (end < limit && (a->map[end - a->lo] == MARK_INSN || a->map[end - a->lo] == MARK_BODY))
			end++;
		struct function fn = {.start = at, .end = end, .plt = in_plt(a->elf, at)};
		vec__push(&a->c->functions, fn);
		at = end;
	}
}

/* ---- 3. the rest ---- */

static bool is_padding(const uint8_t *p, size_t n, vaddr_t at)
{
	size_t k = 0;
	while (k < n && (p[k] == 0 || p[k] == 0xcc))
		k++;
	while (k < n) {
		struct insn i;
		if (!insn__decode(p + k, n - k, at + k, &i) || !(i.is_nop || p[k] == 0xcc))
			return false;
		k += i.len;
	}
	return true;
}

static bool leads_to_state(const struct analysis *a, vaddr_t target)
{
	if (target >= a->data_lo && target <= a->data_hi)
		return true;
	return code__function_starting(a->c, target) != NULL;
}

/* Could the 4 bytes at `hit` be an operand? They are not when they belong to an object whose address
 * is taken by lea (an S-box, a table of constants), and decoding from there, were it code after all,
 * does not come upon them as one. Direct branches and relocations into the gap would have made it a
 * function before. Bytes that nothing refers to stay in doubt. */
static bool may_be_operand(const struct analysis *a, const uint8_t *p, size_t n, vaddr_t at, vaddr_t hit)
{
	const struct code *c = a->c;
	FREE_CLEANUP uint8_t *seen = xcalloc(n, 1);
	VEC(vaddr_t) work = {0};
	bool found = false, in_object = false;
	for (size_t i = 0; i < c->refs.n; i++) {
		vaddr_t target = c->refs.items[i].target;
		if (c->refs.items[i].kind != REF_ADDRESS || target - at >= n)
			continue;
		in_object = in_object || target <= hit;
		vec__push(&work, target);
	}
	while (work.n && !found) {
		vaddr_t v = work.items[--work.n];
		struct insn i;
		while (v - at < n && !seen[v - at] && insn__decode(p + (v - at), n - (v - at), v, &i)) {
			seen[v - at] = 1;
			found = found || (i.has_target && !i.is_branch && v + i.field == hit);
			if (i.is_branch)
				vec__push(&work, i.target);
			if (i.flow == FLOW_JUMP || i.flow == FLOW_STOP)
				break;
			v += i.len;
		}
	}
	vec__free(&work);
	return found || !in_object;
}

/* No 4-byte window that could be the displacement of a RIP-relative operand leads to data or to a
 * function's entry. Such a displacement follows its ModRM byte (mod 00, rm 101) directly, which
 * follows an opcode byte, and is followed by 0, 1, 2 or 4 bytes of immediate (Intel SDM volume 2,
 * 2.1 and 2.2.1.6). Branches need no window: they stay within the code, which moves as one. */
static bool proven_free(const struct analysis *a, const uint8_t *p, size_t n, vaddr_t at, vaddr_t *hit)
{
	for (size_t k = 2; k + 4 <= n; k++) {
		static const uint8_t behind[] = {0, 1, 2, 4};
		int32_t disp;
		bool leads = false;
		if ((p[k - 1] & 0xc7) != 0x05)
			continue;
		memcpy(&disp, p + k, 4);
		for (size_t b = 0; b < sizeof(behind) && k + 4 + behind[b] <= n; b++)
			leads = leads || leads_to_state(a, at + k + 4 + behind[b] + (vaddr_t)(int64_t)disp);
		if (leads && may_be_operand(a, p, n, at, at + k)) {
			*hit = at + k;
			return false;
		}
	}
	return true;
}

static void judge_gap(struct analysis *a, vaddr_t start, vaddr_t end)
{
	const uint8_t *p = elf_file__at(a->elf, start, end - start);
	if (!p || is_padding(p, end - start, start))
		return;
	vaddr_t hit;
	if (proven_free(a, p, end - start, start, &hit))
		vec__push(&a->c->data, (struct gap){start, end});
	else
		doubt(a->c, xasprintf("bytes at 0x%lx to 0x%lx are no known code, and at 0x%lx may refer to data or a "
				      "function",
				      start, end, hit));
}

static void judge_gaps(struct analysis *a)
{
	for (size_t i = 1; i < a->elf->n_sections; i++) {
		const struct elf_section *s = &a->elf->sections[i];
		if (!is_exec_section(a->elf, s))
			continue;
		vaddr_t end = s->h.sh_addr + s->h.sh_size;
		for (vaddr_t at = s->h.sh_addr; at < end;) {
			vaddr_t start = at;
			while (at < end && a->map[at - a->lo] == MARK_NONE)
				at++;
			if (at > start)
				judge_gap(a, start, at);
			while (at < end && a->map[at - a->lo] != MARK_NONE)
				at++;
		}
	}
}

/* ---- all of it ---- */

static int by_start(const void *x, const void *y)
{
	const struct function *a = x, *b = y;
	return (a->start > b->start) - (a->start < b->start);
}

static void sort_functions(struct code *c)
{
	if (c->functions.n)
		qsort(c->functions.items, c->functions.n, sizeof(c->functions.items[0]), by_start);
}

static void collect_refs(struct analysis *a)
{
	struct code *c = a->c;
	__typeof__(c->refs) known = c->refs; /* of functions that were gone through before */
	memset(&c->refs, 0, sizeof(c->refs));
	for (size_t i = 0; i < c->functions.n; i++) {
		struct function *f = &c->functions.items[i];
		uint32_t first = f->first_ref;
		f->first_ref = (uint32_t)c->refs.n;
		if (f->content)
			for (uint32_t k = 0; k < f->n_refs; k++)
				vec__push(&c->refs, known.items[first + k]);
		else if (!sweep(a, f))
			doubt(c, xasprintf("code at 0x%lx to 0x%lx cannot be decoded", f->start, f->end));
		f->n_refs = (uint32_t)(c->refs.n - f->first_ref);
	}
	vec__free(&known);
}

/* JMP: Intel SDM volume 2, FF /4. */
bool code__is_trampoline(const struct code *c, vaddr_t a)
{
	size_t n;
	const uint8_t *want = arch_code__sigreturn(&n), *is = elf_file__at(c->elf, a, n);
	const struct function *f = code__function_at(c, a);
	return f && f->signal_frame && is && memcmp(is, want, n) == 0;
}

bool code__has_indirect_jump(const struct code *c, const struct function *f)
{
	struct insn i;
	for (vaddr_t at = f->start; at < f->end; at += i.len) {
		const uint8_t *p = elf_file__at(c->elf, at, f->end - at);
		if (!p || !insn__decode(p, f->end - at, at, &i))
			return false;
		if (i.flow == FLOW_STOP && i.modrm && p[i.modrm - 1] == 0xff && (p[i.modrm] >> 3 & 7) == 4)
			return true;
	}
	return false;
}

static void name_function(struct code *c, vaddr_t at, const char *name)
{
	struct function *f = (struct function *)code__function_starting(c, at);
	if (f && !f->name)
		f->name = name;
}

static void name_functions(struct code *c)
{
	for (size_t i = 0; i < c->elf->n_symbols; i++)
		if (c->elf->symbols[i].s.st_shndx != SHN_UNDEF)
			name_function(c, c->elf->symbols[i].function, c->elf->symbols[i].name);
	for (size_t i = 0; i < c->elf->locals.n; i++)
		if (c->elf->locals.items[i].type != STT_OBJECT)
			name_function(c, c->elf->locals.items[i].value, c->elf->locals.items[i].name);
}

static bool is_got(const struct elf_file *e, vaddr_t a)
{
	const struct elf_section *s = elf_file__section_at(e, a);
	return s && a == s->h.sh_addr && strncmp(s->name, ".got", 4) == 0;
}

/* With -mcmodel=large addresses are 64-bit distances from the global offset table (psABI 3.5): an address that the
 * function takes, of the table or of a place of its own to count from, and a MOV of a 64-bit number (Intel SDM volume
 * 2, B8) make one. No reference tells where to. */
static bool adds_distances(const struct code *c, const struct function *f, const struct ref *r)
{
	struct insn i;
	bool got = is_got(c->elf, r->target);
	for (vaddr_t a = f->start; a < f->end; a += i.len) {
		const uint8_t *p = elf_file__at(c->elf, a, f->end - a);
		int64_t number;
		if (!p || !insn__decode(p, f->end - a, a, &i))
			return false;
		if (i.imm_size != sizeof(number))
			continue;
		memcpy(&number, p + i.imm, sizeof(number));
		vaddr_t to = r->target + (vaddr_t)number;
		if (got ? number != 0 && elf_file__section_at(c->elf, to) != NULL : is_got(c->elf, to))
			return true;
	}
	return false;
}

static void check_model(struct code *c)
{
	for (size_t i = 0; i < c->functions.n; i++) {
		const struct function *f = &c->functions.items[i];
		for (uint32_t k = f->first_ref; k < f->first_ref + f->n_refs; k++) {
			const struct ref *r = &c->refs.items[k];
			if (r->kind != REF_ADDRESS ||
			    !(is_got(c->elf, r->target) || r->target - f->start < f->end - f->start) ||
			    !adds_distances(c, f, r))
				continue;
			doubt(c, xasprintf("code at 0x%lx forms addresses by 64-bit distances (-mcmodel=large)",
					   f->start));
			return;
		}
	}
}

struct err *code__analyse(const struct elf_file *elf, struct code **out)
{
	struct code *c = xcalloc(1, sizeof(*c));
	c->elf = elf;
	struct analysis a = {.c = c, .elf = elf};
	struct err *err = find_extent(&a);
	if (!err)
		err = fdes__read(elf, &a.fdes);
	if (err) {
		vec__free(&a.fdes);
		code__free(c);
		return err;
	}
	a.map = xcalloc(a.hi - a.lo, 1);
	add_fde_functions(&a);
	collect_refs(&a); /* what functions with an FDE lead to: more entries */
	add_known_entries(&a);
	for (size_t i = 0; i < c->refs.n; i++)
		if (c->refs.items[i].kind == REF_CALL || c->refs.items[i].kind == REF_JUMP)
			add_entry(&a, c->refs.items[i].target);
	follow_all(&a);
	add_flow_functions(&a);
	sort_functions(c);
	collect_refs(&a);
	judge_gaps(&a);
	check_model(c);
	name_functions(c);
	free(a.map);
	vec__free(&a.work);
	vec__free(&a.fdes);
	*out = c;
	return NULL;
}

void code__free(struct code *c)
{
	if (!c)
		return;
	vec__free(&c->functions);
	vec__free(&c->refs);
	vec__free(&c->data);
	for (size_t i = 0; i < c->doubts.n; i++)
		free(c->doubts.items[i]);
	vec__free(&c->doubts);
	free(c);
}

void code__cleanup(struct code **c)
{
	code__free(*c);
}

const struct function *code__function_at(const struct code *c, vaddr_t a)
{
	size_t lo = 0, hi = c->functions.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->functions.items[mid].end <= a)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < c->functions.n && a >= c->functions.items[lo].start ? &c->functions.items[lo] : NULL;
}

const struct function *code__function_starting(const struct code *c, vaddr_t a)
{
	const struct function *f = code__function_at(c, a);
	return f && f->start == a ? f : NULL;
}

char *code__describe(const struct code *c, vaddr_t a)
{
	const struct function *f = code__function_at(c, a);
	if (!f)
		return xasprintf("0x%lx", a);
	if (f->name)
		return a == f->start ? xstrdup(f->name) : xasprintf("%s+0x%lx", f->name, a - f->start);
	return a == f->start ? xasprintf("function at 0x%lx", a)
			     : xasprintf("function at 0x%lx+0x%lx", f->start, a - f->start);
}
