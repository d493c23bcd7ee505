/* The plan. The input is several files (mutate.h): the library that the process loaded, the image that runs in it (a
 * relinked image, or nothing), and the new build. What is plain of the first and must be split is split here.
 *
 * A plan without refusals is used as the surgery uses it: image, and the bytes of the cache, there and back. */
#include "image/image_file.h"
#include "image/plan_file.h"

#include <string.h>

#include "fuzz.h"
#include "mutate.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	struct dice d = dice__of(seed);
	return mutate__parts(data, size, max, &d);
}

static struct elf_file *read_library(const uint8_t *data, size_t size)
{
	struct elf_file *e = NULL;
	err__free(elf_file__read_memory(data, size, "library", &e));
	return e;
}

static struct elf_file *read_split(const uint8_t *data, size_t size)
{
	const struct split_options none = {0};
	struct elf_file *e = read_library(data, size);
	uint8_t *bytes = NULL;
	size_t len = 0;
	if (!e || e->split)
		return e;
	ERR_CLEANUP struct err *failed = split__make(e, &none, &bytes, &len);
	elf_file__free(e);
	e = failed ? NULL : read_library(bytes, len);
	free(bytes);
	return e;
}

/* What the image says of the slots is taken as discover takes what the process's table says: code of the image, or
 * held by some older image. IFUNC slots are as the image has them. */
static void settle_slots(const struct elf_file *vapi, const struct elf_file *live, struct live_map *map)
{
	map->held = xcalloc(map->n_slots, sizeof(*map->held));
	for (uint32_t i = 0; i < map->n_slots; i++) {
		vaddr_t f = map->slots[i];
		if ((i < vapi->vapi.n_used && (vapi->slots[i].flags & VAPI_SLOT_IFUNC)) || !f ||
		    elf_file__is_code(live, f))
			continue;
		struct held_slot h = {.slot = i, .function = f, .build_id_len = live->build_id_len};
		memcpy(h.build_id, live->build_id, sizeof(h.build_id));
		map->held[map->n_held++] = h;
		map->slots[i] = SLOT_HELD;
	}
}

/* The running image; NULL: not one that discover takes. */
static struct elf_file *read_image(const struct parts *in, const struct elf_file *vapi, struct live_map *map)
{
	const struct vapi_note *v = &vapi->vapi;
	struct elf_file *live = NULL;
	ERR_CLEANUP struct err *failed = image_file__read(in->data[1], in->size[1], "image", &live, map);
	if (failed)
		return NULL;
	if (map->n_slots == v->n_slots && map->base % LLU_PAGE == 0 && map->base >= v->window &&
	    map->base <= v->window + v->window_len) {
		settle_slots(vapi, live, map);
		return live;
	}
	elf_file__free(live);
	live_map__free(map);
	*map = (struct live_map){0};
	return NULL;
}

static void use(struct plan *p, const struct plan_inputs *in)
{
	const struct plan_key key = {{0}};
	ELF_CLEANUP struct elf_file *next = NULL;
	struct live_map map = {0};
	size_t size;
	FREE_CLEANUP uint8_t *kept = plan_file__encode(p, &key, &size);
	struct plan *back = plan_file__decode(kept, size, in, &key);
	MUST(back);
	plan__free(back);
	if (p->refusals.n)
		return;
	FREE_CLEANUP uint8_t *image = image_file__make(p, p->vapi->vapi.window, 0, &size);
	ERR_CLEANUP struct err *failed = image_file__read(image, size, "image", &next, &map);
	MUST(!failed);
	MUST(next->size == p->next->size && memcmp(next->data, p->next->data, next->size) == 0);
	live_map__free(&map);
	for (size_t i = 0; i < p->next->n_symbols && i < 100; i++)
		if (elf_file__is_code(p->next, p->next->symbols[i].function))
			(void)plan__stub(p, p->next->symbols[i].function);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct parts in = parts__of(data, size);
	struct live_map map = {0};
	if (!in.data[0])
		return 0;
	ELF_CLEANUP struct elf_file *vapi = read_split(in.data[0], in.size[0]);
	ELF_CLEANUP struct elf_file *next = vapi ? read_library(in.data[2], in.size[2]) : NULL;
	ELF_CLEANUP struct elf_file *live = next && in.size[1] ? read_image(&in, vapi, &map) : NULL;
	if (next) {
		struct plan *p = NULL;
		const struct plan_inputs inputs = {.vapi = vapi, .live = live ? live : vapi, .next = next};
		ERR_CLEANUP struct err *failed = plan__make(vapi, inputs.live, live ? &map : NULL, next, &p);
		MUST(!failed == (p != NULL));
		if (p)
			use(p, &inputs);
		plan__free(p);
	}
	live_map__free(&map);
	return 0;
}
