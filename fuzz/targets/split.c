/* Making a split library: whatever is split must be readable, and be the library that it was made from. */
#include "image/split.h"

#include <string.h>

#include "fuzz.h"
#include "mutate.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	struct dice d = dice__of(seed);
	return mutate__elf(data, size, max, &d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct split_options none = {0};
	ELF_CLEANUP struct elf_file *in = NULL, *out = NULL;
	FREE_CLEANUP uint8_t *bytes = NULL;
	size_t len = 0;
	ERR_CLEANUP struct err *failed = elf_file__read_memory(data, size, "input", &in);
	if (failed)
		return 0;
	failed = split__make(in, &none, &bytes, &len);
	if (failed)
		return 0;
	failed = elf_file__read_memory(bytes, len, "output", &out);
	if (failed)
		fprintf(stderr, "the output: %s\n", err__text(failed));
	MUST(!failed && out->split);
	MUST(strcmp(out->soname, in->soname) == 0 && out->n_symbols == in->n_symbols);
	MUST(build_id__equal(out->build_id, out->build_id_len, in->build_id, in->build_id_len));
	for (size_t i = 0; i < in->n_symbols; i++)
		MUST(out->symbols[i].function == in->symbols[i].function);
	return 0;
}
