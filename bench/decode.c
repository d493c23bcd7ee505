/* Times two decoders over the functions of a library: the product's (arch/decode.h) and capstone's.
 *
 *     decode LIBRARY
 *
 * prints `zydis MILLISECONDS BYTES` and `capstone MILLISECONDS BYTES`: for each one sweep over every function that
 * has an unwind entry, and how many bytes of them are in functions that it cannot decode to the end. */
#include <capstone/capstone.h>
#include <stdio.h>
#include <time.h>

#include "arch/decode.h"
#include "image/code.h"

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static bool sweep_zydis(const uint8_t *p, size_t n, vaddr_t at)
{
	for (size_t i = 0; i < n;) {
		struct insn x;
		if (!insn__decode(p + i, n - i, at + i, &x))
			return false;
		i += x.len;
	}
	return true;
}

static csh handle;
static cs_insn *insn;

static bool sweep_capstone(const uint8_t *p, size_t n, vaddr_t at)
{
	while (n)
		if (!cs_disasm_iter(handle, &p, &n, &at, insn))
			return false;
	return true;
}

static void measure(const char *name, const struct code *c, bool (*sweep)(const uint8_t *, size_t, vaddr_t))
{
	size_t missed = 0;
	double start = now_ms();
	for (size_t i = 0; i < c->functions.n; i++) {
		const struct function *f = &c->functions.items[i];
		if (f->fde && !sweep(elf_file__at(c->elf, f->start, f->end - f->start), f->end - f->start, f->start))
			missed += f->end - f->start;
	}
	printf("%s %.1f %zu\n", name, now_ms() - start, missed);
}

int main(int argc, char **argv)
{
	struct elf_file *elf;
	struct code *code;

	if (argc != 2)
		return 2;
	struct err *e = elf_file__read(argv[1], &elf);
	if (!e)
		e = code__analyse(elf, &code);
	if (e) {
		fprintf(stderr, "%s\n", err__text(e));
		return 1;
	}
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
		return 1;
	cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON); /* operands are what the product asks for */
	insn = cs_malloc(handle);
	measure("zydis", code, sweep_zydis);
	measure("capstone", code, sweep_capstone);
	return 0;
}
