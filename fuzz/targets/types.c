/* Reading debug information. The input is a library with some, which is compared with itself. */
#include "image/types.h"

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
	ELF_CLEANUP struct elf_file *e = NULL;
	TYPES_CLEANUP struct types *t = NULL;
	struct types_report r = {0};
	size_t n = 0, sum = 0;
	ERR_CLEANUP struct err *failed = elf_file__read_memory(data, size, "input", &e);
	if (failed)
		return 0;
	failed = types__find(e, NULL, &t);
	if (failed || !types__found(t))
		return 0;
	const struct type_static *statics = types__statics(t, &n);
	for (size_t i = 0; i < n; i++)
		sum += strlen(statics[i].name) + strlen(statics[i].type);
	(void)types__covers(t, e->symbols ? e->symbols[0].function : sum);
	failed = types__compare(t, t, &r);
	if (!failed)
		failed = types__compare_statics(t, t, &r);
	types_report__free(&r);
	return 0;
}
