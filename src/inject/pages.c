/* See pages.h. */
#include "inject/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/vec.h"
#include "inject/proc.h"

/* ---- smaps ---- */

static bool has_flag(const char *flags, const char *flag)
{
	for (const char *s = flags; (s = strstr(s, flag)); s++)
		if (s[-1] == ' ' && (s[2] == ' ' || s[2] == '\0'))
			return true;
	return false;
}

/* One line: the head of a mapping as in maps, or a field of the last one. */
static bool parse_line(const char *line, struct area *last, struct area *head)
{
	uint64_t start;
	uint64_t end;
	char perms[5];
	unsigned long kib;
	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, perms) == 3) {
		*head = (struct area){.range = {taddr(start), taddr(end)}};
		return true;
	}
	if (!last)
		return false;
	if (sscanf(line, "Rss: %lu kB", &kib) == 1 || sscanf(line, "Swap: %lu kB", &kib) == 1)
		last->resident += (uint64_t)kib * 1024;
	if (strncmp(line, "VmFlags:", 8) == 0) {
		last->device = has_flag(line, "io") || has_flag(line, "pf");
		last->served = has_flag(line, "um") || has_flag(line, "uw") || has_flag(line, "ui");
	}
	return false;
}

struct err *process__areas(const struct process *p, struct areas *out)
{
	FREE_CLEANUP char *text = NULL;
	size_t len = 0;
	VEC(struct area) v = {0};
	*out = (struct areas){0};
	int r = proc_slurp(p->dirfd, "smaps", &text, &len);
	if (r < 0) {
		TRY(process__alive(p));
		return process__err(p, 0, r == -EACCES || r == -EPERM ? ERR_PERMISSION : ERR_UNREADABLE, -r, NULL,
				    "what its memory is made of cannot be read");
	}
	char *rest = text;
	for (char *line; (line = strsep(&rest, "\n"));) {
		struct area head;
		if (parse_line(line, v.n ? &v.items[v.n - 1] : NULL, &head))
			vec__push(&v, head);
	}
	*out = (struct areas){v.items, v.n};
	return NULL;
}

void areas__free(struct areas *a)
{
	free(a->items);
	*a = (struct areas){0};
}

const struct area *areas__at(const struct areas *a, taddr_t at)
{
	size_t lo = 0;
	size_t hi = a->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (at.v >= a->items[mid].range.end.v)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < a->n && trange__has(a->items[lo].range, at) ? &a->items[lo] : NULL;
}

/* ---- pagemap ---- */

enum { CHUNK = 4096 }; /* pages asked for at once */

struct err *process__pages(const struct process *p, taddr_t from, size_t n, uint8_t *out)
{
	CLOSE_CLEANUP int fd = openat(p->dirfd, "pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entries[CHUNK];
	if (fd < 0) {
		int why = errno;
		TRY(process__alive(p));
		return process__err(p, 0, why == EACCES || why == EPERM ? ERR_PERMISSION : ERR_UNREADABLE, why, NULL,
				    "its page table cannot be read");
	}
	for (size_t done = 0; done < n;) {
		size_t want = n - done < CHUNK ? n - done : CHUNK;
		off_t at = (off_t)((from.v / LLU_PAGE + done) * sizeof(uint64_t));
		ssize_t got = pread(fd, entries, want * sizeof(uint64_t), at);
		if (got < (ssize_t)sizeof(uint64_t)) {
			TRY(process__alive(p));
			return process__err(p, 0, ERR_UNREADABLE, got < 0 ? errno : 0, NULL,
					    "its page table cannot be read at 0x%" PRIx64, from.v + done * LLU_PAGE);
		}
		for (size_t i = 0; i < (size_t)got / sizeof(uint64_t); i++, done++)
			out[done] = (uint8_t)((entries[i] >> 63 & 1 ? PAGE_THERE : 0) |
					      (entries[i] >> 62 & 1 ? PAGE_SWAPPED : 0) |
					      (entries[i] >> 61 & 1 ? PAGE_OF_FILE : 0));
	}
	return NULL;
}
