/* The text of /proc/PID/maps, in which names of files are whatever somebody called them. */
#include <string.h>

#include "fuzz.h"
#include "inject/proc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mappings m = {0};
	size_t sum = 0;
	FREE_CLEANUP char *text = malloc(size + 1);
	MUST(text);
	if (size)
		memcpy(text, data, size);
	text[size] = 0;
	if (mappings__parse(text, &m))
		return 0;
	for (size_t i = 0; i < m.n; i++) {
		sum += strlen(m.items[i].path);
		const struct mapping *at = mappings__at(&m, m.items[i].range.start);
		MUST(!at || trange__has(at->range, m.items[i].range.start));
	}
	MUST(sum <= size);
	free(m.items);
	return 0;
}
