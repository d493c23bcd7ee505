/* Call frame information against another reader of it: libdw, over the libraries as installed and over a split one.
 * At every function's start and along it both must say the same of every register. */
#include <criterion/criterion.h>
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "freeze/cfi.h"
#include "image/code.h"
#include "scene.h"
#include "support/support.h"

TestSuite(cfi, .fini = support__teardown, .timeout = 100);

enum { REG_SP = 7, STEP = 5, CLOSE = 60, FAR = 97 };

static const char *const libraries[] = {
    "libc.so.6",     "libm.so.6",      "libcrypto.so.3", "libssl.so.3",    "liblzma.so.5",
    "libexpat.so.1", "libstdc++.so.6", "libgcc_s.so.1",  "libpng16.so.16",
};

/* Where nothing is said, libdw says what it takes for granted, lost or kept; the stack pointer is the CFA. */
static bool nothing_said(unsigned reg, enum cfi_kind theirs, int64_t number)
{
	if (reg == REG_SP)
		return theirs == CFI_VAL_OFFSET && number == 0;
	return theirs == CFI_UNDEFINED || theirs == CFI_SAME;
}

static enum cfi_kind kind_of(const Dwarf_Op *mem, const Dwarf_Op *ops, size_t n, int64_t *number)
{
	*number = 0;
	if (n == 0)
		return ops == mem ? CFI_UNDEFINED : CFI_SAME;
	bool value = ops[n - 1].atom == DW_OP_stack_value;
	size_t rest = n - value;
	if (rest == 1 && ops[0].atom == DW_OP_regx) {
		*number = (int64_t)ops[0].number;
		return CFI_REGISTER;
	}
	bool offset = rest == 2 && ops[1].atom == DW_OP_plus_uconst;
	if (ops[0].atom == DW_OP_call_frame_cfa && (rest == 1 || offset)) {
		*number = offset ? (int64_t)ops[1].number : 0;
		return value ? CFI_VAL_OFFSET : CFI_OFFSET;
	}
	return value ? CFI_VAL_EXPRESSION : CFI_EXPRESSION;
}

static void compare(const char *name, vaddr_t pc, const struct cfi_row *row, Dwarf_Frame *frame)
{
	Dwarf_Op *ops = NULL;
	size_t n = 0;
	bool signal_frame = false;
	Dwarf_Addr start;
	Dwarf_Addr end;
	cr_assert_eq(dwarf_frame_info(frame, &start, &end, &signal_frame), ARCH_DWARF_REGS - 1);
	cr_expect_eq(row->signal_frame, signal_frame, "%s 0x%lx: a signal frame", name, pc);
	cr_assert_eq(dwarf_frame_cfa(frame, &ops, &n), 0);
	if (row->cfa.kind == CFI_REGISTER)
		cr_expect(n == 1 && ops[0].atom == DW_OP_bregx && ops[0].number == row->cfa_register &&
			      (int64_t)ops[0].number2 == row->cfa.n,
			  "%s 0x%lx: another CFA", name, pc);
	else
		cr_expect(n > 1, "%s 0x%lx: another kind of CFA", name, pc);
	for (unsigned reg = 0; reg < ARCH_DWARF_REGS; reg++) {
		Dwarf_Op mem[3];
		int64_t number = 0;
		struct cfi_rule r = row->reg[reg];
		cr_assert_eq(dwarf_frame_register(frame, (int)reg, mem, &ops, &n), 0);
		enum cfi_kind kind = kind_of(mem, ops, n, &number);
		bool same =
		    r.kind == CFI_UNSPECIFIED ? nothing_said(reg, kind, number) : r.kind == kind && r.n == number;
		cr_assert(same, "%s 0x%lx: register %u is %d %ld, libdw says %d %ld", name, pc, reg, r.kind, r.n, kind,
			  number);
	}
}

struct counts {
	size_t rows, handling;
};

static void compare_at(const char *name, const struct cfi *cfi, Dwarf_CFI *oracle, vaddr_t pc, struct counts *n)
{
	struct cfi_row row;
	Dwarf_Frame *frame = NULL;
	bool theirs = dwarf_cfi_addrframe(oracle, pc, &frame) == 0;
	bool ours = cfi__row(cfi, pc, &row);
	cr_expect_eq(ours, theirs, "%s 0x%lx: known to %s", name, pc, ours ? "us alone" : "libdw alone");
	if (ours && theirs)
		compare(name, pc, &row, frame);
	n->rows += ours;
	n->handling += ours && row.handles;
	free(frame);
}

static struct counts compare_library(const char *name, const char *path)
{
	struct counts n = {0};
	CLOSE_CLEANUP int fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_geq(fd, 0, "%s", path);
	struct elf_file *e = NULL;
	fde_list fdes = {0};
	OK(elf_file__read(path, &e));
	OK(fdes__read(e, &fdes));
	struct cfi *cfi = cfi__read(fd);
	elf_version(EV_CURRENT);
	Elf *elf = elf_begin(fd, ELF_C_READ, NULL);
	Dwarf_CFI *oracle = dwarf_getcfi_elf(elf);
	cr_assert(cfi && oracle);
	for (size_t i = 0; i < fdes.n; i++) {
		const struct fde *f = &fdes.items[i];
		for (vaddr_t pc = f->start; pc < f->end; pc += pc - f->start < CLOSE ? STEP : FAR)
			compare_at(name, cfi, oracle, pc, &n);
		compare_at(name, cfi, oracle, f->end - 1, &n);
	}
	dwarf_cfi_end(oracle);
	elf_end(elf);
	cfi__free(cfi);
	vec__free(&fdes);
	elf_file__free(e);
	return n;
}

Test(cfi, as_libdw_has_it)
{
	size_t seen = 0;
	for (size_t i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++) {
		const char *path = path_of("/usr/lib/x86_64-linux-gnu/%s", libraries[i]);
		if (access(path, R_OK) != 0)
			path = path_of("/lib/x86_64-linux-gnu/%s", libraries[i]);
		if (access(path, R_OK) != 0)
			continue;
		struct counts n = compare_library(libraries[i], path);
		cr_log_info("%s: %zu rows, %zu with handlers", libraries[i], n.rows, n.handling);
		cr_expect_gt(n.rows, 1000);
		seen++;
	}
	cr_assert_gt(seen, 3);
}

/* The expressions that linkers and C libraries write, and what is not understood. */
static bool read_memory(void *arg, taddr_t at, uint64_t *out)
{
	*out = at.v + 1;
	return arg == NULL;
}

static void evaluates(const uint8_t *expr, size_t len, bool good, uint64_t value)
{
	struct cfi_frame f = {.reg = {[7] = 0x1000, [16] = 0x40000b}, .known = 1u << 7 | 1u << 16, .read = read_memory};
	uint64_t out = 0;
	cr_expect_eq(cfi__evaluate(&f, expr, len, NULL, &out), good);
	cr_expect(!good || out == value, "is 0x%lx", out);
}
#define EVALUATES(value, ...)                                                                                          \
	evaluates((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), true, value)
#define REFUSES(...) evaluates((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), false, 0)

Test(cfi, expressions)
{
	/* a PLT entry, behind its push */
	EVALUATES(0x1010, DW_OP_breg7, 8, DW_OP_breg16, 0, DW_OP_lit15, DW_OP_and, DW_OP_lit11, DW_OP_ge, DW_OP_lit3,
		  DW_OP_shl, DW_OP_plus);
	/* a signal frame */
	EVALUATES(0x10a1, DW_OP_breg7, 0xa0, 0x01, DW_OP_deref);
	EVALUATES(0x101, DW_OP_const2u, 0, 1, DW_OP_deref);
	EVALUATES((uint64_t)-3, DW_OP_const1s, 0xfd);
	EVALUATES(2, DW_OP_lit1, DW_OP_lit2, DW_OP_bra, 1, 0, DW_OP_lit7, DW_OP_lit2);
	EVALUATES(0x1014, DW_OP_breg7, 0, DW_OP_plus_uconst, 0x14);
	EVALUATES(5, DW_OP_lit2, DW_OP_lit7, DW_OP_swap, DW_OP_minus);
	EVALUATES(3, DW_OP_lit1, DW_OP_lit2, DW_OP_lit3, DW_OP_rot, DW_OP_drop, DW_OP_drop);
	/* a register that is lost, one that does not exist */
	REFUSES(DW_OP_breg3, 0);
	REFUSES(DW_OP_bregx, 40, 0);
	REFUSES(DW_OP_lit0, DW_OP_lit0, DW_OP_div);
	REFUSES(DW_OP_plus);
	REFUSES(DW_OP_lit1, DW_OP_skip, 0xfc, 0xff);
	REFUSES(DW_OP_lit1, DW_OP_skip, 0x10, 0);
	REFUSES(DW_OP_lit1, DW_OP_const4u, 1);
	REFUSES(DW_OP_call_frame_cfa);
	REFUSES(0xff);
	REFUSES(DW_OP_nop);
}
