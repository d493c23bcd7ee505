/* The decoder against another one: capstone, over the functions of libraries as installed. What both decode
 * must have the same length and lead to the same address; and under an unwind entry nothing may be left that
 * insn__decode does not know. Capstone is an oracle of this test alone; the product does not use it. */
#include <capstone/capstone.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

#include "arch/decode.h"
#include "image/code.h"

TestSuite(decode, .timeout = 240);

static const char *const libraries[] = {
    "libc.so.6",     "libm.so.6",   "libcrypto.so.3", "libssl.so.3",    "liblzma.so.5",   "libz.so.1",
    "libexpat.so.1", "libelf.so.1", "libdw.so.1",     "libstdc++.so.6", "libpng16.so.16",
};

struct counts {
	size_t both, only_ours, only_capstone, targets;
};

struct oracle {
	csh handle;
	cs_insn *insn;
};

/* Capstone's word on where an instruction leads or what it mentions. */
static bool oracle_target(const cs_insn *c, vaddr_t *target)
{
	const cs_x86 *x = &c->detail->x86;
	for (uint8_t k = 0; k < c->detail->groups_count; k++)
		if (c->detail->groups[k] == CS_GRP_BRANCH_RELATIVE && x->op_count == 1 &&
		    x->operands[0].type == X86_OP_IMM) {
			*target = (vaddr_t)x->operands[0].imm;
			return true;
		}
	for (uint8_t k = 0; k < x->op_count; k++)
		if (x->operands[k].type == X86_OP_MEM && x->operands[k].mem.base == X86_REG_RIP) {
			*target = c->address + c->size + (vaddr_t)x->operands[k].mem.disp;
			return true;
		}
	return false;
}

static void compare(const char *library, const cs_insn *c, const struct insn *i, struct counts *n)
{
	vaddr_t target = 0;
	bool has = oracle_target(c, &target);
	cr_expect_eq(i->len, c->size, "%s 0x%lx: %u bytes, capstone says %u: %s %s", library, c->address, i->len,
		     c->size, c->mnemonic, c->op_str);
	cr_expect_eq(i->has_target, has, "%s 0x%lx: %s target, capstone says otherwise: %s %s", library, c->address,
		     i->has_target ? "a" : "no", c->mnemonic, c->op_str);
	if (has && i->has_target)
		cr_expect_eq(i->target, target, "%s 0x%lx: target 0x%lx, capstone says 0x%lx: %s %s", library,
			     c->address, i->target, target, c->mnemonic, c->op_str);
	n->both++;
	n->targets += has;
}

static void compare_function(const char *library, const struct oracle *o, const struct code *code,
			     const struct function *f, struct counts *n)
{
	const uint8_t *bytes = elf_file__at(code->elf, f->start, f->end - f->start);
	cr_assert_not_null(bytes, "%s 0x%lx: no bytes", library, f->start);
	for (vaddr_t at = f->start; at < f->end;) {
		const uint8_t *p = bytes + (at - f->start);
		size_t left = f->end - at;
		uint64_t address = at;
		struct insn i;
		bool ours = insn__decode(p, left, at, &i);
		bool theirs = cs_disasm_iter(o->handle, &p, &left, &address, o->insn);
		if (ours && theirs)
			compare(library, o->insn, &i, n);
		n->only_ours += ours && !theirs;
		n->only_capstone += theirs && !ours;
		cr_expect(ours, "%s 0x%lx: does not decode; capstone: %s", library, at,
			  theirs ? o->insn->mnemonic : "nor does it");
		if (!ours)
			return;
		at += i.len;
	}
}

static bool compare_library(const char *library, const struct oracle *o)
{
	char path[256];
	struct counts n = {0};
	ELF_CLEANUP struct elf_file *elf = NULL;
	__attribute__((cleanup(code__cleanup))) struct code *code = NULL;

	snprintf(path, sizeof(path), "/usr/lib/x86_64-linux-gnu/%s", library);
	if (access(path, R_OK) != 0)
		return false;
	struct err *e = elf_file__read(path, &elf);
	cr_assert_null(e, "%s", e ? err__text(e) : "");
	e = code__analyse(elf, &code);
	cr_assert_null(e, "%s", e ? err__text(e) : "");
	for (size_t k = 0; k < code->functions.n; k++)
		if (code->functions.items[k].fde)
			compare_function(library, o, code, &code->functions.items[k], &n);
	printf("%-16s %8zu instructions alike, %7zu targets; only insn__decode: %zu, only capstone: %zu\n", library,
	       n.both, n.targets, n.only_ours, n.only_capstone);
	cr_expect(n.both > 1000, "%s: compared hardly anything", library);
	return true;
}

Test(decode, agrees_with_capstone)
{
	struct oracle o;
	size_t compared = 0;

	cr_assert_eq(cs_open(CS_ARCH_X86, CS_MODE_64, &o.handle), CS_ERR_OK);
	cs_option(o.handle, CS_OPT_DETAIL, CS_OPT_ON);
	o.insn = cs_malloc(o.handle);
	for (size_t k = 0; k < sizeof(libraries) / sizeof(libraries[0]); k++)
		compared += compare_library(libraries[k], &o);
	fflush(stdout);
	cs_free(o.insn, 1);
	cs_close(&o.handle);
	cr_assert(compared >= 1, "none of the libraries is installed");
}
