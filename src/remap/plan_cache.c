/* See plan_cache.h. */
#include "remap/plan_cache.h"

#include <Zydis/Zydis.h>
#include <elf.h>
#include <elfutils/libdwfl.h>
#include <libelf.h>
#include <link.h>
#include <string.h>

#include "image/plan_file.h"
#include "image/types.h"
#include "remap/store.h"

/* The store is held below 256 MiB in all; one plan of libcrypto takes half of one. */
enum { PLAN_MAX = 32 << 20, MEMORY_MAX = 64 << 20 };

struct kept_plan {
	struct plan_key key;
	uint8_t *data;
	size_t size;
};

typedef VEC(uint8_t) byte_list;

/* Which debug information a file has. To find it is slow (libdw unpacks it), and processes share files. */
struct stamp {
	uint8_t file[ELF_DIGEST_LEN];
	char *text;
};

struct plan_cache {
	char *folder;    /* NULL: the usual */
	byte_list maker; /* build-ids of this program and of what judges with it; empty: not known, nothing is kept */
	VEC(struct kept_plan) plans;
	size_t size; /* bytes of them all */
	VEC(struct stamp) stamps;
	const struct turns *turns;
};

/* ---- who we are ---- */

/* Looks for the build-id among the notes of one segment. */
static bool add_build_id(byte_list *out, const uint8_t *p, size_t len)
{
	while (len >= sizeof(ElfW(Nhdr))) {
		ElfW(Nhdr) n;
		memcpy(&n, p, sizeof(n));
		uint64_t name = align_up(n.n_namesz, 4), desc = align_up(n.n_descsz, 4);
		if (name + desc > len - sizeof(n))
			return false;
		const uint8_t *at = p + sizeof(n);
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == sizeof(ELF_NOTE_GNU) &&
		    memcmp(at, ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU)) == 0 && n.n_descsz) {
			vec__push(out, (uint8_t)n.n_descsz);
			for (size_t i = 0; i < n.n_descsz; i++)
				vec__push(out, at[name + i]);
			return true;
		}
		p += sizeof(n) + name + desc;
		len -= sizeof(n) + name + desc;
	}
	return false;
}

/* Zydis, libdw and libelf judge as well: another build of one of them makes other plans. What else is loaded does
 * not matter, and depends on when one looks (libdw loads libdebuginfod when it first searches). */
static bool judges(const struct dl_phdr_info *o)
{
	const uintptr_t parts[] = {(uintptr_t)plan_cache__open, (uintptr_t)ZydisDecoderInit, (uintptr_t)dwfl_begin,
				   (uintptr_t)elf_version};
	for (size_t i = 0; i < o->dlpi_phnum; i++)
		for (size_t k = 0; o->dlpi_phdr[i].p_type == PT_LOAD && k < sizeof(parts) / sizeof(parts[0]); k++)
			if (parts[k] - o->dlpi_addr - o->dlpi_phdr[i].p_vaddr < o->dlpi_phdr[i].p_memsz)
				return true;
	return false;
}

static int add_object(struct dl_phdr_info *o, size_t size, void *list)
{
	(void)size;
	byte_list *out = list;
	if (!judges(o))
		return 0;
	for (size_t i = 0; i < o->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &o->dlpi_phdr[i];
		if (p->p_type == PT_NOTE && add_build_id(out, (const uint8_t *)(o->dlpi_addr + p->p_vaddr), p->p_memsz))
			return 0;
	}
	vec__free(out); /* one that cannot be told from another build of it */
	return 1;
}

struct plan_cache *plan_cache__open(const char *folder)
{
	struct plan_cache *c = xcalloc(1, sizeof(*c));
	c->folder = folder ? xstrdup(folder) : NULL;
	dl_iterate_phdr(add_object, &c->maker);
	return c;
}

void plan_cache__close(struct plan_cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->plans.n; i++)
		free(c->plans.items[i].data);
	vec__free(&c->plans);
	for (size_t i = 0; i < c->stamps.n; i++)
		free(c->stamps.items[i].text);
	vec__free(&c->stamps);
	vec__free(&c->maker);
	free(c->folder);
	free(c);
}

void plan_cache__take_turns(struct plan_cache *c, const struct turns *turns)
{
	c->turns = turns;
}

/* ---- keeping ---- */

static char *name_of(const struct plan_key *key)
{
	FREE_CLEANUP char *hex = plan_key__hex(key);
	return xasprintf("plan-%s", hex);
}

static const struct kept_plan *find(const struct plan_cache *c, const struct plan_key *key)
{
	for (size_t i = 0; i < c->plans.n; i++)
		if (memcmp(&c->plans.items[i].key, key, sizeof(*key)) == 0)
			return &c->plans.items[i];
	return NULL;
}

/* Takes over `data`. */
static void remember(struct plan_cache *c, const struct plan_key *key, uint8_t *data, size_t size)
{
	if (find(c, key) || size > MEMORY_MAX - c->size) {
		free(data);
		return;
	}
	struct kept_plan k = {*key, data, size};
	vec__push(&c->plans, k);
	c->size += size;
}

static struct plan *take(struct plan_cache *c, const struct plan_inputs *in, const struct plan_key *key)
{
	const struct kept_plan *k = find(c, key);
	if (k)
		return plan_file__decode(k->data, k->size, in, key);
	FREE_CLEANUP char *name = name_of(key);
	uint8_t *data;
	size_t size;
	ERR_CLEANUP struct err *e = store__fetch(c->folder, name, PLAN_MAX, &data, &size);
	if (e)
		return NULL;
	struct plan *p = plan_file__decode(data, size, in, key);
	if (p)
		remember(c, key, data, size);
	else
		free(data);
	return p;
}

static void keep(struct plan_cache *c, const struct plan_key *key, const struct plan *p)
{
	FREE_CLEANUP char *name = name_of(key);
	size_t size;
	uint8_t *data = plan_file__encode(p, key, &size);
	if (size <= PLAN_MAX) {
		ERR_CLEANUP struct err *ignored = store__keep(c->folder, name, data, size);
		(void)ignored; /* no folder, no room: the next operation makes it again */
	}
	remember(c, key, data, size);
}

/* NULL: not known. */
static const char *stamp_of(struct plan_cache *c, const struct elf_file *e)
{
	struct stamp s;
	memcpy(s.file, elf_file__digest(e), sizeof(s.file));
	for (size_t i = 0; i < c->stamps.n; i++)
		if (memcmp(c->stamps.items[i].file, s.file, sizeof(s.file)) == 0)
			return c->stamps.items[i].text;
	s.text = types__stamp(e);
	if (s.text)
		vec__push(&c->stamps, s);
	return s.text;
}

/* Is there other debug information by now, which the plan may have been made with? */
static bool is_other(const struct elf_file *e, const char *stamp)
{
	FREE_CLEANUP char *now = types__stamp(e);
	return !now || strcmp(now, stamp) != 0;
}

struct err *plan_cache__plan(struct plan_cache *c, const struct elf_file *vapi, const struct elf_file *live,
			     const struct live_map *map, const struct elf_file *next, struct plan **out, bool *cached)
{
	*cached = false;
	const char *live_debug = stamp_of(c, live), *next_debug = stamp_of(c, next);
	if (!live_debug || !next_debug || !c->maker.n || !vapi->split)
		return plan__make(vapi, live, map, next, out);
	const struct plan_inputs in = {.vapi = vapi,
				       .live = live,
				       .next = next,
				       .map = map,
				       .live_debug = live_debug,
				       .next_debug = next_debug,
				       .maker = c->maker.items,
				       .maker_len = c->maker.n};
	struct plan_key key = plan_key__make(&in);
	*out = take(c, &in, &key);
	*cached = *out != NULL;
	if (*cached)
		return NULL;
	turn__take(c->turns, TURN_PLAN);
	*out = c->turns ? take(c, &in, &key) : NULL; /* somebody else may have made it meanwhile */
	*cached = *out != NULL;
	struct err *e = *cached ? NULL : plan__make(vapi, live, map, next, out);
	if (!e && !*cached && !(*out)->not_to_keep && !is_other(live, live_debug) && !is_other(next, next_debug))
		keep(c, &key, *out);
	turn__give(c->turns, TURN_PLAN);
	return e;
}
