/* Reading an ELF file, and every question that elf_file.h answers about it. */
#include "image/elf_file.h"

#include <string.h>

#include "fuzz.h"
#include "mutate.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	struct dice d = dice__of(seed);
	return mutate__elf(data, size, max, &d);
}

/* Bytes that are offered must be there: they are touched. */
static unsigned touch(const uint8_t *p, size_t n)
{
	unsigned sum = 0;
	for (size_t i = 0; p && i < n; i++)
		sum += p[i];
	return sum;
}

static unsigned ask_about(const struct elf_file *e, vaddr_t a)
{
	uint64_t offset;
	unsigned sum = touch(elf_file__at(e, a, 16), 16);
	if (elf_file__offset(e, a, 4, &offset))
		sum += touch(e->data + offset, 4);
	const struct vapi_slot *slot = elf_file__slot_at(e, a);
	sum += slot ? slot->flags : 0;
	const struct elf_section *s = elf_file__section_at(e, a);
	return sum + (s ? (unsigned)strlen(s->name) : 0) + (elf_file__reloc_at(e, a) != NULL) +
	       elf_file__is_code(e, a) + elf_file__is_data(e, a) + (unsigned)elf_file__behind_stub(e, a);
}

static unsigned ask(const struct elf_file *e)
{
	FREE_CLEANUP char *id = elf_file__build_id(e);
	unsigned sum =
	    (unsigned)strlen(id) + elf_file__binds_now(e) + (unsigned)strlen(e->soname) + (unsigned)elf_file__end(e);
	for (size_t i = 0; i < e->n_sections; i++) {
		sum += (unsigned)strlen(e->sections[i].name) + ask_about(e, e->sections[i].h.sh_addr);
		sum += touch(e->sections[i].data, e->sections[i].data ? e->sections[i].h.sh_size : 0);
	}
	for (size_t i = 0; i < e->n_symbols; i++)
		sum += (unsigned)strlen(e->symbols[i].name) + (unsigned)strlen(e->symbols[i].version) +
		       ask_about(e, e->symbols[i].s.st_value);
	for (size_t i = 0; i < e->relocs.n; i++)
		sum += e->symbols ? (unsigned)strlen(e->symbols[e->relocs.items[i].symbol].name) : 0;
	for (size_t i = 0; i < e->locals.n; i++)
		sum += (unsigned)strlen(e->locals.items[i].name) + ask_about(e, e->locals.items[i].value);
	for (uint32_t i = 0; e->split && i < e->vapi.n_slots; i++)
		sum += ask_about(e, vapi__stub(&e->vapi, i)) + e->slots[i].flags;
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static volatile unsigned sink; /* so that no question is optimised away */
	ELF_CLEANUP struct elf_file *e = NULL;
	ERR_CLEANUP struct err *failed = elf_file__read_memory(data, size, "input", &e);
	MUST(!failed == (e != NULL));
	if (e)
		sink = ask(e);
	(void)sink;
	return 0;
}
