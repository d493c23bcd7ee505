/* Reading the unwind table of a VAPI, which is in the process's memory, and writing what was read. */
#include "image/unwind_table.h"

#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const vaddr_t at = 0x5000;
	unwind_rows rows = {0}, again = {0};
	if (unwind_table__read(data, size, at, &rows)) {
		size_t len = unwind_table__size(rows.n);
		MUST(len <= size);
		FREE_CLEANUP uint8_t *out = malloc(len);
		MUST(out);
		unwind_table__write(out, at, 0x4000, &rows);
		MUST(unwind_table__read(out, len, at, &again) && again.n == rows.n);
		MUST(!rows.n || memcmp(rows.items, again.items, rows.n * sizeof(rows.items[0])) == 0);
	}
	vec__free(&rows);
	vec__free(&again);
	return 0;
}
