/* Calls, as far as they say what objects are: arguments and results, sizes of allocations (see follow.h). */
#include <string.h>

#include "base/hash.h"
#include "image/follow.h"

static void note_size(struct pass *p, struct value v)
{
	if (v.argument)
		p->size_params[pass__function_id(p, p->index)] |= (uint8_t)(1u << (v.argument - 1));
	if (v.constant_at && v.class != CLASS_STACK && p->new && p->record) {
		struct size_argument s = {p->index, v.constant_at};
		vec__push(&p->out->sizes, s);
	}
}

/* Arguments of well-known functions that are sizes of objects: bit i for argument i. */
static uint8_t sizes_of_import(const char *name)
{
	static const struct {
		const char *name;
		uint8_t sizes;
	} known[] = {
	    {"malloc", 1},         {"calloc", 3},         {"realloc", 2},       {"reallocarray", 6},
	    {"aligned_alloc", 2},  {"posix_memalign", 4}, {"memalign", 2},      {"memset", 4},
	    {"memcpy", 4},         {"memmove", 4},        {"mempcpy", 4},       {"__memcpy_chk", 4},
	    {"__memset_chk", 4},   {"__memmove_chk", 4},  {"g_malloc", 1},      {"g_malloc0", 1},
	    {"g_realloc", 2},      {"g_malloc_n", 3},     {"g_malloc0_n", 3},   {"g_slice_alloc", 1},
	    {"g_slice_alloc0", 1}, {"g_slice_free1", 1},  {"g_memdup2", 2},     {"CRYPTO_malloc", 1},
	    {"CRYPTO_zalloc", 1},  {"CRYPTO_realloc", 2}, {"CRYPTO_memdup", 2}, {"OPENSSL_cleanse", 2},
	    {"_Znwm", 1},          {"_Znam", 1},          {"_ZdlPvm", 2},       {"bzero", 2},
	    {"explicit_bzero", 2}, {"xmlMalloc", 1},      {"xmlRealloc", 2},
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i].name, name) == 0)
			return known[i].sizes;
	return 0;
}

static void lose_registers(struct pass *p)
{
	for (unsigned i = 0; i < REG_COUNT; i++)
		if (arch_abi.lost_by_calls & (1u << i))
			p->s.reg[i] = (struct value){0};
}

static void note_call(struct pass *p, uint64_t callee, vaddr_t at)
{
	struct call c = {.caller = (uint32_t)p->index, .callee = callee, .insn = at};
	if (p->first)
		vec__push(&p->calls, c);
}

static const struct call *call_at(const struct pass *p, vaddr_t insn)
{
	size_t lo = 0, hi = p->calls.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (p->calls.items[mid].insn < insn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < p->calls.n && p->calls.items[lo].insn == insn ? &p->calls.items[lo] : NULL;
}

/* What a function gives that hands out objects of any type (an allocation, an element of a list) is of a class of
 * its own for each call. Which call of the one build is which of the other is certain only where there is one. */
static struct value result_of_call(struct pass *p, vaddr_t at)
{
	const struct call *c = p->first ? NULL : call_at(p, at);
	if (!c)
		return from_memory();
	int64_t which = c->of == 1 ? (int64_t)c->callee : (int64_t)(2 * at + p->new);
	return (struct value){.class = classes__named(p->classes, c->of == 1 ? NAME_ONLY_CALL : NAME_CALL,
						      pass__function_id(p, p->index), which),
			      .loaded = true};
}

/* An argument and the callee's parameter are of one type when the callee knows anything of it: what stores, frees or
 * allocates for everybody must not make one class of all. */
static void hand_over(struct pass *p, uint64_t callee, unsigned i)
{
	struct value v = p->s.reg[arch_abi.arg[i]];
	uint32_t parameter = classes__named(p->classes, NAME_ARGUMENT, callee, i);
	bool knows = p->knows[callee] & (1u << i);
	if (v.class > CLASS_STACK && v.offset == 0 && knows)
		classes__join(p->classes, parameter, v.class);
	else if (v.class == CLASS_STACK)
		p->classes->items[classes__find(p->classes, parameter)].on_stack = true;
	else
		classes__mark_elsewhere(p->classes, parameter);
	if (v.argument && p->first) {
		struct handed_on h = {pass__function_id(p, p->index), callee, v.argument, (int8_t)i, v.offset == 0};
		vec__push(&p->handed_on, h);
	}
	if (p->size_params[callee] & (1u << i))
		note_size(p, v);
}

void pass__gives(struct pass *p, struct value v)
{
	if (p->first && v.result_of) {
		struct handed_on h = {.caller = pass__function_id(p, p->index), .callee = v.result_of - 1};
		vec__push(&p->handed_on, h);
	}
	if (v.class <= CLASS_STACK || v.offset != 0 ||
	    p->classes->items[classes__find(p->classes, v.class)].touched != p->serial)
		return;
	pass__knows(p, KNOWS_RESULT);
	classes__join(p->classes, classes__named(p->classes, NAME_RESULT, pass__function_id(p, p->index), 0), v.class);
}

static void call_function(struct pass *p, int32_t callee, bool comes_back, vaddr_t at)
{
	uint64_t id = pass__function_id(p, callee);
	note_call(p, id, at);
	for (unsigned i = 0; i < 6; i++)
		hand_over(p, id, i);
	lose_registers(p);
	struct value result;
	if (p->knows[id] & KNOWS_RESULT) {
		result = (struct value){.class = classes__named(p->classes, NAME_RESULT, id, 0), .loaded = true};
		p->classes->items[classes__find(p->classes, result.class)].touched = p->serial;
	} else {
		result = result_of_call(p, at);
	}
	result.result_of = (uint32_t)id + 1;
	if (comes_back)
		p->s.reg[arch_abi.result] = result;
	else
		pass__gives(p, result);
}

static bool frees(const char *name)
{
	static const char *const names[] = {"free", "g_free", "CRYPTO_free", "_ZdlPv", "_ZdlPvm", "cfree"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

static void call_import(struct pass *p, const char *name, vaddr_t at)
{
	uint8_t sizes = name ? sizes_of_import(name) : 0;
	if (name)
		note_call(p, hash__bytes(HASH_START, name, strlen(name)) | IS_IMPORT, at);
	for (unsigned i = 0; i < 6; i++)
		if (sizes & (1u << i))
			note_size(p, p->s.reg[arch_abi.arg[i]]);
	if (name && frees(name) && p->s.reg[arch_abi.arg[0]].class > CLASS_STACK)
		p->classes->items[classes__find(p->classes, p->s.reg[arch_abi.arg[0]].class)].freed = true;
	/* through a pointer nobody knows what is called; a constant as its first argument may be a size */
	if (!name)
		note_size(p, p->s.reg[arch_abi.arg[0]]);
	lose_registers(p);
	p->s.reg[arch_abi.result] = name ? result_of_call(p, at) : from_memory();
}

/* A call of an import; of the library's own function where it exports what it calls by name. */
static void call_symbol(struct pass *p, uint32_t symbol, bool comes_back, vaddr_t at)
{
	const struct elf_symbol *s = symbol ? &p->code->elf->symbols[symbol] : NULL;
	const struct function *f =
	    s && s->s.st_shndx != SHN_UNDEF ? code__function_starting(p->code, s->function) : NULL;
	if (f)
		call_function(p, (int32_t)(f - p->code->functions.items), comes_back, at);
	else
		call_import(p, s ? s->name : NULL, at);
}

void pass__call(struct pass *p, const struct insn *i, bool comes_back, vaddr_t at)
{
	const struct elf_reloc *got =
	    i->has_target && !i->is_branch ? elf_file__reloc_at(p->code->elf, i->target) : NULL;
	const struct function *f = i->is_branch ? code__function_at(p->code, i->target) : NULL;
	if (f && !f->plt)
		call_function(p, (int32_t)(f - p->code->functions.items), comes_back, at);
	else if (i->is_branch)
		call_symbol(p, code__plt_import(p->code, i->target), comes_back, at);
	else
		call_symbol(p, got ? got->symbol : 0, comes_back, at);
}
