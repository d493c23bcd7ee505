/* The pages of a process: what kind of memory they are, and which of them are there.
 *
 * Read-only, like process.h. Reading a page that is there disturbs nothing; reading one that is not may allocate it,
 * wait for somebody who serves page faults (userfaultfd(2), FUSE), or touch a device. So whoever looks
 * through memory asks here first.
 */
#ifndef LLU_INJECT_PAGES_H
#define LLU_INJECT_PAGES_H

#include "inject/process.h"

/* What /proc/PID/smaps says of a mapping beyond maps (proc(5), "VmFlags"). */
struct area {
	struct trange range;
	uint64_t resident; /* bytes that are in memory or in swap */
	bool device;       /* io, pf: pages of a device */
	bool served;       /* um, uw, ui: somebody serves its page faults */
};

struct areas {
	struct area *items; /* in address order */
	size_t n;
};

/* Takes time in proportion to what is resident, in the kernel. Errors: as process__maps(). */
MUST_CHECK struct err *process__areas(const struct process *p, struct areas *out);
void areas__free(struct areas *a);
/* The area that holds `a`, or NULL. */
const struct area *areas__at(const struct areas *a, taddr_t at);

/* What /proc/PID/pagemap says of a page (Documentation/admin-guide/mm/pagemap.rst). */
enum {
	PAGE_THERE = 1,   /* in memory, and in the page table of this very process */
	PAGE_SWAPPED = 2, /* in swap; or a migration entry, or the like */
	PAGE_OF_FILE = 4, /* of a file, or shared memory; not a private copy */
};

/* Bits of enum above for `n` pages from `from` (page-aligned). A page in no mapping has none.
 * Errors: ERR_GONE, ERR_PERMISSION, ERR_UNREADABLE. */
MUST_CHECK struct err *process__pages(const struct process *p, taddr_t from, size_t n, uint8_t *out);

#endif
