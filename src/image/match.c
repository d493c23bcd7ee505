/* See match.h. */
#include "image/match.h"

#include <stdio.h>
#include <string.h>

#include "arch/decode.h"

struct side {
	const struct code *c;
	uint64_t *hash; /* of the instructions, references masked; by function */
};

struct matcher {
	struct match *m;
	struct side a, b;
	VEC(int32_t) work; /* b's functions whose references have not been followed yet */
};

/* ---- content ---- */

static struct side side__make(const struct code *c)
{
	struct side s = {c, xcalloc(c->functions.n, sizeof(uint64_t))};
	for (size_t i = 0; i < c->functions.n; i++)
		s.hash[i] = c->functions.items[i].content;
	return s;
}

/* ---- making a match ---- */

static int32_t index_of(const struct code *c, const struct function *f)
{
	return f ? (int32_t)(f - c->functions.items) : -1;
}

/* Both have symbols, and other ones: place alone does not make them the same. */
static bool named_apart(const struct match *m, int32_t fa, int32_t fb)
{
	const char *a = m->a->functions.items[fa].name, *b = m->b->functions.items[fb].name;
	return a && b && strcmp(a, b) != 0;
}

static bool matchable(const struct match *m, int32_t fa, int32_t fb)
{
	return fa >= 0 && fb >= 0 && m->a_to_b[fa] < 0 && m->b_to_a[fb] < 0 && !m->a->functions.items[fa].plt &&
	       !m->b->functions.items[fb].plt;
}

static void pair(struct matcher *x, int32_t fa, int32_t fb, enum match_how how)
{
	x->m->a_to_b[fa] = fb;
	x->m->b_to_a[fb] = fa;
	x->m->how[fb] = how;
	x->m->same_code[fb] = x->a.hash[fa] == x->b.hash[fb];
	vec__push(&x->work, fb);
}

static void propose(struct matcher *x, vaddr_t at_a, vaddr_t at_b, enum match_how how)
{
	int32_t fa = index_of(x->m->a, code__function_at(x->m->a, at_a));
	int32_t fb = index_of(x->m->b, code__function_at(x->m->b, at_b));
	if (matchable(x->m, fa, fb))
		pair(x, fa, fb, how);
	else if (fb >= 0 && fa >= 0 && x->m->b_to_a[fb] == fa && x->m->how[fb] < how)
		x->m->how[fb] = how; /* better evidence for what was known */
}

/* ---- by name ---- */

struct named {
	const char *name, *version;
	int32_t function;
};

static int by_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int c = strcmp(x->name, y->name);
	return c ? c : strcmp(x->version, y->version);
}

typedef VEC(struct named) named_list;

static void list_names(const struct code *c, named_list *out)
{
	for (size_t i = 0; i < c->elf->n_symbols; i++) {
		const struct elf_symbol *s = &c->elf->symbols[i];
		int32_t f = index_of(c, code__function_starting(c, s->function));
		if (s->s.st_shndx != SHN_UNDEF && f >= 0) {
			struct named n = {s->name, s->version, f};
			vec__push(out, n);
		}
	}
	for (size_t i = 0; i < c->elf->locals.n; i++) {
		const struct elf_local *l = &c->elf->locals.items[i];
		int32_t f = index_of(c, code__function_starting(c, l->value));
		if (l->type != STT_OBJECT && f >= 0) {
			struct named n = {l->name, "\x01local", f}; /* apart from any version */
			vec__push(out, n);
		}
	}
	if (out->n)
		qsort(out->items, out->n, sizeof(out->items[0]), by_name);
}

static bool unique_name(const named_list *l, size_t i)
{
	return (i == 0 || by_name(&l->items[i - 1], &l->items[i]) != 0) &&
	       (i + 1 == l->n || by_name(&l->items[i], &l->items[i + 1]) != 0);
}

static void match_by_name(struct matcher *x)
{
	named_list a = {0}, b = {0};
	list_names(x->m->a, &a);
	list_names(x->m->b, &b);
	for (size_t i = 0, k = 0; i < a.n && k < b.n;) {
		int c = by_name(&a.items[i], &b.items[k]);
		if (c == 0 && unique_name(&a, i) && unique_name(&b, k) &&
		    matchable(x->m, a.items[i].function, b.items[k].function))
			pair(x, a.items[i].function, b.items[k].function, MATCH_NAME);
		i += c <= 0;
		k += c >= 0;
	}
	vec__free(&a);
	vec__free(&b);
}

/* ---- by unique content ---- */

struct hashed {
	uint64_t hash;
	int32_t function;
};

static int by_hash(const void *a, const void *b)
{
	const struct hashed *x = a, *y = b;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (x->function > y->function) - (x->function < y->function);
}

typedef VEC(struct hashed) hashed_list;

static void list_unmatched(const struct side *s, const int32_t *map, hashed_list *out)
{
	for (size_t i = 0; i < s->c->functions.n; i++)
		if (map[i] < 0 && !s->c->functions.items[i].plt) {
			struct hashed h = {s->hash[i], (int32_t)i};
			vec__push(out, h);
		}
	if (out->n)
		qsort(out->items, out->n, sizeof(out->items[0]), by_hash);
}

static bool unique_hash(const hashed_list *l, size_t i)
{
	return (i == 0 || l->items[i - 1].hash != l->items[i].hash) &&
	       (i + 1 == l->n || l->items[i + 1].hash != l->items[i].hash);
}

static void match_by_content(struct matcher *x)
{
	hashed_list a = {0}, b = {0};
	list_unmatched(&x->a, x->m->a_to_b, &a);
	list_unmatched(&x->b, x->m->b_to_a, &b);
	for (size_t i = 0, k = 0; i < a.n && k < b.n;) {
		uint64_t ha = a.items[i].hash, hb = b.items[k].hash;
		if (ha == hb && unique_hash(&a, i) && unique_hash(&b, k))
			pair(x, a.items[i].function, b.items[k].function, MATCH_CONTENT);
		i += ha <= hb;
		k += hb <= ha;
	}
	vec__free(&a);
	vec__free(&b);
}

/* ---- by references ---- */

/* The instructions of a function as shapes. */
struct shapes {
	uint64_t *hash;
	vaddr_t *at;
	size_t n;
};

static struct shapes shapes__make(const struct code *c, const struct function *f, enum insn_part part)
{
	struct shapes s = {0};
	const uint8_t *p = elf_file__at(c->elf, f->start, f->end - f->start);
	s.hash = xcalloc(f->end - f->start, sizeof(uint64_t));
	s.at = xcalloc(f->end - f->start, sizeof(vaddr_t));
	for (vaddr_t at = f->start; p && at < f->end;) {
		struct insn i;
		if (!insn__decode(p + (at - f->start), f->end - at, at, &i))
			break;
		s.hash[s.n] = insn__hash(HASH_START, p + (at - f->start), &i, true, part);
		s.at[s.n++] = at;
		at += i.len;
	}
	return s;
}

static void shapes__free(struct shapes *s)
{
	free(s->hash);
	free(s->at);
}

/* Two functions being aligned, and who wants to know. */
struct alignment {
	struct shapes a, b;
	match_pair_fn *fn;
	void *context;
};

static void shapes_correspond(const struct alignment *x, size_t i, size_t k)
{
	x->fn(x->context, x->a.at[i], x->b.at[k]);
}

enum { EDITS_MAX = 1024 }; /* beyond, only what is before the first and behind the last difference */

/* Walks back along the edit path that Myers' algorithm found ("An O(ND) Difference Algorithm",
 * 1986): the diagonal steps are the instructions that correspond. */
static void walk_back(const struct alignment *x, size_t from, size_t na, size_t nb, int **trace, int d)
{
	int i = (int)na, k = (int)nb;
	for (; d >= 0; d--) {
		const int *v = trace[d] + EDITS_MAX + 1;
		int diagonal = i - k, before = diagonal;
		if (d > 0)
			before = diagonal == -d || (diagonal != d && v[diagonal - 1] < v[diagonal + 1]) ? diagonal + 1
													: diagonal - 1;
		int i0 = d > 0 ? v[before] : 0, k0 = d > 0 ? i0 - before : 0;
		int down = d > 0 && before > diagonal, right = d > 0 && before < diagonal;
		while (i > i0 + right && k > k0 + down) {
			i--;
			k--;
			shapes_correspond(x, from + (size_t)i, from + (size_t)k);
		}
		i = i0;
		k = k0;
	}
}

static void align_middle(const struct alignment *x, size_t from, size_t na, size_t nb)
{
	enum { WIDTH = 2 * EDITS_MAX + 3 };
	FREE_CLEANUP int *v_mem = xcalloc(WIDTH, sizeof(int));
	int *v = v_mem + EDITS_MAX + 1;
	int *trace[EDITS_MAX + 1];
	int d, n_trace = 0;
	bool found = false;
	for (d = 0; d <= EDITS_MAX && !found; d++) {
		trace[n_trace++] = xmemdup(v_mem, WIDTH * sizeof(int));
		for (int k = -d; k <= d; k += 2) {
			int i = d == 0 ? 0 : (k == -d || (k != d && v[k - 1] < v[k + 1])) ? v[k + 1] : v[k - 1] + 1;
			while (i < (int)na && i - k < (int)nb && i - k >= 0 &&
			       x->a.hash[from + (size_t)i] == x->b.hash[from + (size_t)(i - k)])
				i++;
			v[k] = i;
			if (i >= (int)na && i - k >= (int)nb) {
				found = true;
				break;
			}
		}
	}
	if (found)
		walk_back(x, from, na, nb, trace, d - 1);
	for (int i = 0; i < n_trace; i++)
		free(trace[i]);
}

void match__align(const struct code *a, const struct function *fa, const struct code *b, const struct function *fb,
		  enum insn_part part, match_pair_fn *fn, void *context)
{
	struct alignment x = {shapes__make(a, fa, part), shapes__make(b, fb, part), fn, context};
	size_t head = 0, tail = 0;
	while (head < x.a.n && head < x.b.n && x.a.hash[head] == x.b.hash[head]) {
		shapes_correspond(&x, head, head);
		head++;
	}
	while (tail < x.a.n - head && tail < x.b.n - head && x.a.hash[x.a.n - 1 - tail] == x.b.hash[x.b.n - 1 - tail]) {
		shapes_correspond(&x, x.a.n - 1 - tail, x.b.n - 1 - tail);
		tail++;
	}
	if (x.a.n > head + tail && x.b.n > head + tail)
		align_middle(&x, head, x.a.n - head - tail, x.b.n - head - tail);
	shapes__free(&x.a);
	shapes__free(&x.b);
}

static bool same_shape(const struct code *a, const struct function *fa, const struct code *b, const struct function *fb)
{
	struct shapes x = shapes__make(a, fa, INSN_SHAPE), y = shapes__make(b, fb, INSN_SHAPE);
	bool same = x.n == y.n && memcmp(x.hash, y.hash, x.n * sizeof(x.hash[0])) == 0;
	shapes__free(&x);
	shapes__free(&y);
	return same;
}

static bool same_plt_import(const struct match *m, vaddr_t a, vaddr_t b)
{
	uint32_t x = code__plt_import(m->a, a), y = code__plt_import(m->b, b);
	return x && y && strcmp(m->a->elf->symbols[x].name, m->b->elf->symbols[y].name) == 0;
}

static void refs_correspond(struct matcher *x, int32_t ra, int32_t rb, enum match_how how)
{
	const struct ref *a = &x->m->a->refs.items[ra], *b = &x->m->b->refs.items[rb];
	if (a->kind != b->kind)
		return;
	x->m->ref_b_to_a[rb] = ra;
	if (a->kind == REF_CALL || a->kind == REF_JUMP || a->kind == REF_ADDRESS)
		if (!same_plt_import(x->m, a->target, b->target))
			propose(x, elf_file__behind_stub(x->m->a->elf, a->target),
				elf_file__behind_stub(x->m->b->elf, b->target), how);
}

/* The reference that an instruction makes, by index, or -1. */
static int32_t ref_of(const struct code *c, vaddr_t insn)
{
	size_t lo = 0, hi = c->refs.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->refs.items[mid].insn < insn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < c->refs.n && c->refs.items[lo].insn == insn ? (int32_t)lo : -1;
}

struct correspondence {
	struct matcher *x;
	enum match_how how;
};

static void insns_correspond(void *context, vaddr_t insn_a, vaddr_t insn_b)
{
	const struct correspondence *c = context;
	struct matcher *x = c->x;
	int32_t ra = ref_of(x->m->a, insn_a), rb = ref_of(x->m->b, insn_b);
	if (ra >= 0 && rb >= 0)
		refs_correspond(x, ra, rb, c->how);
}

static void follow_references(struct matcher *x)
{
	while (x->work.n) {
		int32_t fb = x->work.items[--x->work.n], fa = x->m->b_to_a[fb];
		const struct function *a = &x->m->a->functions.items[fa], *b = &x->m->b->functions.items[fb];
		if (x->m->same_code[fb] && a->n_refs == b->n_refs)
			for (uint32_t i = 0; i < a->n_refs; i++)
				refs_correspond(x, (int32_t)(a->first_ref + i), (int32_t)(b->first_ref + i),
						MATCH_REFERENCE);
		else {
			/* where only constants differ (__LINE__, say) it is certain which instruction is which */
			bool same = same_shape(x->m->a, a, x->m->b, b);
			struct correspondence c = {x, same ? MATCH_REFERENCE : MATCH_ALIGNED};
			match__align(x->m->a, a, x->m->b, b, INSN_SHAPE, insns_correspond, &c);
		}
	}
}

/* ---- by data ---- */

/* Pointers to functions at the same offset of sections of the same name and size. */
static void match_by_data(struct matcher *x)
{
	const struct elf_file *a = x->m->a->elf, *b = x->m->b->elf;
	size_t k = 0;
	for (size_t s = 1; s < a->n_sections; s++) {
		const struct elf_section *sa = &a->sections[s];
		const struct elf_section *sb = elf_file__section(b, sa->name);
		if (!(sa->h.sh_flags & SHF_WRITE) || !(sa->h.sh_flags & SHF_ALLOC) || !sb ||
		    sa->h.sh_size != sb->h.sh_size || strncmp(sa->name, ".got", 4) == 0)
			continue;
		k = 0;
		for (size_t i = 0; i < a->relocs.n; i++) {
			const struct elf_reloc *ra = &a->relocs.items[i];
			if (ra->type != R_X86_64_RELATIVE || ra->where - sa->h.sh_addr >= sa->h.sh_size)
				continue;
			vaddr_t there = ra->where - sa->h.sh_addr + sb->h.sh_addr;
			while (k < b->relocs.n && b->relocs.items[k].where < there)
				k++;
			if (k < b->relocs.n && b->relocs.items[k].where == there &&
			    b->relocs.items[k].type == R_X86_64_RELATIVE)
				propose(x, elf_file__behind_stub(a, (vaddr_t)ra->addend),
					elf_file__behind_stub(b, (vaddr_t)b->relocs.items[k].addend), MATCH_REFERENCE);
		}
	}
}

static void match_dynamic(struct matcher *x)
{
	static const int64_t tags[] = {DT_INIT, DT_FINI};
	for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
		const Elf64_Dyn *a = elf_file__dyn(x->m->a->elf, tags[i]), *b = elf_file__dyn(x->m->b->elf, tags[i]);
		if (!a || !b)
			continue;
		/* DT_INIT of a split library is a pad; its own _init starts section .init */
		const struct elf_section *sa = elf_file__section(x->m->a->elf, ".init"),
					 *sb = elf_file__section(x->m->b->elf, ".init");
		if (tags[i] == DT_FINI)
			propose(x, elf_file__behind_stub(x->m->a->elf, a->d_un.d_ptr),
				elf_file__behind_stub(x->m->b->elf, b->d_un.d_ptr), MATCH_REFERENCE);
		else if (sa && sb)
			propose(x, sa->h.sh_addr, sb->h.sh_addr, MATCH_REFERENCE);
	}
	const vaddr_t entry_a = elf_file__entry(x->m->a->elf), entry_b = elf_file__entry(x->m->b->elf);
	if (entry_a && entry_b && code__function_starting(x->m->a, entry_a) &&
	    code__function_starting(x->m->b, entry_b))
		propose(x, entry_a, entry_b, MATCH_REFERENCE);
}

/* ---- by order ---- */

/* Between two neighbours that are matched on both sides: first what has the same content, in order;
 * then, when equally many are left, one by one. */
static bool match_run(struct matcher *x, int32_t a0, int32_t a1, int32_t b0, int32_t b1)
{
	bool any = false;
	int32_t k = b0;
	for (int32_t i = a0; i < a1; i++) {
		if (x->m->a_to_b[i] >= 0)
			continue;
		for (int32_t j = k; j < b1; j++)
			if (matchable(x->m, i, j) && x->a.hash[i] == x->b.hash[j]) {
				pair(x, i, j, MATCH_ORDER);
				any = true;
				k = j + 1;
				break;
			}
	}
	int32_t left_a = 0, left_b = 0;
	for (int32_t i = a0; i < a1; i++)
		left_a += x->m->a_to_b[i] < 0;
	for (int32_t j = b0; j < b1; j++)
		left_b += x->m->b_to_a[j] < 0;
	if (left_a != left_b)
		return any;
	for (int32_t i = a0, j = b0; i < a1; i++) {
		if (x->m->a_to_b[i] >= 0)
			continue;
		while (j < b1 && x->m->b_to_a[j] >= 0)
			j++;
		if (j < b1 && matchable(x->m, i, j) && !named_apart(x->m, i, j)) {
			pair(x, i, j, MATCH_ORDER);
			any = true;
		}
	}
	return any;
}

static bool match_by_order(struct matcher *x)
{
	bool any = false;
	int32_t na = (int32_t)x->m->a->functions.n, nb = (int32_t)x->m->b->functions.n;
	int32_t a0 = 0, b0 = 0;
	for (int32_t i = 0; i <= na; i++) {
		int32_t j = i < na ? x->m->a_to_b[i] : nb;
		if (j < 0)
			continue;
		if (j >= b0 && i > a0 && j > b0)
			any = match_run(x, a0, i, b0, j) || any;
		if (j >= b0) {
			a0 = i + 1;
			b0 = j + 1;
		}
	}
	return any;
}

/* ---- all of it ---- */

struct match *match__make(const struct code *a, const struct code *b)
{
	struct match *m = xcalloc(1, sizeof(*m));
	m->a = a;
	m->b = b;
	m->a_to_b = xcalloc(a->functions.n, sizeof(int32_t));
	m->b_to_a = xcalloc(b->functions.n, sizeof(int32_t));
	m->how = xcalloc(b->functions.n, 1);
	m->same_code = xcalloc(b->functions.n, sizeof(bool));
	m->ref_b_to_a = xcalloc(b->refs.n, sizeof(int32_t));
	memset(m->a_to_b, 0xff, a->functions.n * sizeof(int32_t));
	memset(m->b_to_a, 0xff, b->functions.n * sizeof(int32_t));
	memset(m->ref_b_to_a, 0xff, b->refs.n * sizeof(int32_t));
	struct matcher x = {.m = m, .a = side__make(a), .b = side__make(b)};
	match_by_name(&x);
	match_dynamic(&x);
	match_by_content(&x);
	follow_references(&x);
	match_by_data(&x);
	follow_references(&x);
	do {
		match_by_content(&x);
		follow_references(&x);
	} while (match_by_order(&x));
	free(x.a.hash);
	free(x.b.hash);
	vec__free(&x.work);
	return m;
}

void match__free(struct match *m)
{
	if (!m)
		return;
	free(m->a_to_b);
	free(m->b_to_a);
	free(m->how);
	free(m->same_code);
	free(m->ref_b_to_a);
	free(m);
}

vaddr_t match__successor(const struct match *m, vaddr_t function)
{
	int32_t f = index_of(m->a, code__function_starting(m->a, function));
	return f >= 0 && m->a_to_b[f] >= 0 ? m->b->functions.items[m->a_to_b[f]].start : 0;
}

vaddr_t match__predecessor(const struct match *m, vaddr_t function)
{
	int32_t f = index_of(m->b, code__function_starting(m->b, function));
	return f >= 0 && m->b_to_a[f] >= 0 ? m->a->functions.items[m->b_to_a[f]].start : 0;
}

const struct elf_reloc *code__plt_reloc(const struct code *c, vaddr_t at)
{
	const struct function *f = code__function_at(c, at);
	if (!f || !f->plt)
		return NULL;
	const uint8_t *p = elf_file__at(c->elf, at, f->end - at);
	struct insn i;
	while (p && at < f->end && insn__decode(p, f->end - at, at, &i)) {
		if (i.has_target && !i.is_branch)
			return elf_file__reloc_at(c->elf, i.target);
		if (i.flow != FLOW_NEXT) /* endbr64 may come first */
			return NULL;
		p += i.len;
		at += i.len;
	}
	return NULL;
}

uint32_t code__plt_import(const struct code *c, vaddr_t at)
{
	const struct elf_reloc *r = code__plt_reloc(c, at);
	return r ? r->symbol : 0;
}

const struct elf_symbol *code__import(const struct code *c, const struct ref *r)
{
	const struct elf_reloc *slot = elf_file__reloc_at(c->elf, r->target);
	uint32_t symbol = slot ? slot->symbol : code__plt_import(c, r->target);
	return symbol ? &c->elf->symbols[symbol] : NULL;
}
