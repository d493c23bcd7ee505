/* Reading an overrule file, and applying it to a plan that is refused for the layout of objects. */
#include "image/overrule.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

/* In a folder of our own: the reader takes no other. */
static char folder[] = "/tmp/llu-fuzz-XXXXXX", path[sizeof(folder) + 16];

static void remove_file(void)
{
	unlink(path);
	rmdir(folder);
}

static void write_file(const uint8_t *data, size_t size)
{
	static int fd = -1;
	if (fd < 0) {
		MUST(mkdtemp(folder));
		atexit(remove_file);
		snprintf(path, sizeof(path), "%s/overrule", folder);
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	}
	MUST(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
}

static void refuse(struct plan *p, const char *code)
{
	struct reason r = {code, strdup("for a reason")};
	vec__push(&p->refusals, r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct elf_file live = {.build_id_len = 8}, next = {.build_id_len = 8};
	struct plan *p = xcalloc(1, sizeof(*p));
	memset(live.build_id, 0x11, live.build_id_len); /* as in the seeds */
	memset(next.build_id, 0x22, next.build_id_len);
	p->live = &live;
	p->next = &next;
	refuse(p, "layout-changed");
	refuse(p, "state-size");
	write_file(data, size);
	struct overrules *o = overrules__read(path, true);
	overrules__apply(o, p);
	MUST(p->refusals.n == 2 || (p->refusals.n == 1 && p->overrule && p->layout == LAYOUT_OVERRULED));
	MUST(strcmp(p->refusals.items[p->refusals.n - 1].code, "state-size") == 0);
	for (const char *c = p->overrule; c && *c; c++)
		MUST((unsigned char)*c >= ' ' || *c == '\t');
	overrules__free(o);
	plan__free(p);
	return 0;
}
