/* See plans.h. */
#include "plans.h"

#include <criterion/criterion.h>
#include <string.h>

static void must(struct err *e)
{
	cr_assert(e == NULL, "%s", err__text(e));
}

struct elf_file *library__read(const char *path, bool split)
{
	struct split_options opt = {0};
	struct elf_file *e, *out;
	uint8_t *bytes;
	size_t size;

	must(elf_file__read(path, &e));
	if (!split || e->split)
		return e;
	must(split__make(e, &opt, &bytes, &size));
	must(elf_file__read_memory(bytes, size, path, &out));
	free(bytes);
	elf_file__free(e);
	return out;
}

struct step step__first(const char *old, const char *new)
{
	struct step s = {.vapi = library__read(old, true), .next = library__read(new, true)};

	s.live = s.vapi;
	return s;
}

struct plan *step__plan(const struct step *s)
{
	struct plan *p;

	must(plan__make(s->vapi, s->live, &s->map, s->next, &p));
	return p;
}

void step__go_on(struct step *s, const struct plan *p, const char *next, const struct elf_file *held)
{
	size_t size;
	uint8_t *image = image_file__make(p, s->vapi->vapi.window, 0, &size);
	struct elf_file *live;
	struct live_map map;

	must(image_file__read(image, size, "image", &live, &map));
	free(image);
	for (uint32_t i = 0; held && i < map.n_slots; i++) {
		if (map.slots[i] != SLOT_HELD)
			continue;
		map.held = xreallocarray(map.held, map.n_held + 1, sizeof(*map.held));
		/* as the table of the process would say: the function of the build before */
		map.held[map.n_held] =
		    (struct held_slot){.slot = i, .function = s->map.slots[i], .build_id_len = held->build_id_len};
		memcpy(map.held[map.n_held++].build_id, held->build_id, held->build_id_len);
	}
	if (s->live != s->vapi)
		elf_file__free(s->live);
	live_map__free(&s->map);
	elf_file__free(s->next);
	s->live = live;
	s->map = map;
	s->next = library__read(next, true);
}

void step__free(struct step *s)
{
	if (s->live != s->vapi)
		elf_file__free(s->live);
	elf_file__free(s->vapi);
	elf_file__free(s->next);
	live_map__free(&s->map);
}

static bool same_text(const char *a, const char *b)
{
	return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

#define SAME_LENGTH(list) cr_assert_eq(a->list.n, b->list.n, #list ": %zu and %zu", a->list.n, b->list.n)
/* Of items without pointers and padding. */
#define SAME_ITEMS(list)                                                                                               \
	do {                                                                                                           \
		SAME_LENGTH(list);                                                                                     \
		cr_assert(!a->list.n ||                                                                                \
			      memcmp(a->list.items, b->list.items, a->list.n * sizeof(a->list.items[0])) == 0,         \
			  #list);                                                                                      \
	} while (0)

static void same_texts(const struct plan *a, const struct plan *b)
{
	SAME_LENGTH(refusals);
	for (size_t i = 0; i < a->refusals.n; i++)
		cr_assert(same_text(a->refusals.items[i].code, b->refusals.items[i].code) &&
			      same_text(a->refusals.items[i].text, b->refusals.items[i].text),
			  "refusal %zu", i);
	SAME_LENGTH(remarks);
	for (size_t i = 0; i < a->remarks.n; i++)
		cr_assert(same_text(a->remarks.items[i], b->remarks.items[i]), "remark %zu", i);
}

static void same_references(const struct plan *a, const struct plan *b)
{
	SAME_LENGTH(patches);
	for (size_t i = 0; i < a->patches.n; i++) {
		const struct patch *x = &a->patches.items[i], *y = &b->patches.items[i];
		cr_assert(x->site == y->site && x->from == y->from && x->to == y->to && x->own_got == y->own_got,
			  "patch %zu", i);
	}
	SAME_LENGTH(new_got);
	for (size_t i = 0; i < a->new_got.n; i++) {
		const struct new_got *x = &a->new_got.items[i], *y = &b->new_got.items[i];
		cr_assert(x->kind == y->kind && same_text(x->name, y->name) && same_text(x->version, y->version) &&
			      x->weak == y->weak && x->value == y->value && x->relative == y->relative &&
			      x->in_image == y->in_image,
			  "own GOT %zu", i);
	}
	SAME_LENGTH(words);
	for (size_t i = 0; i < a->words.n; i++) {
		const struct relro_word *x = &a->words.items[i], *y = &b->words.items[i];
		cr_assert(x->where == y->where && x->value == y->value && x->in_image == y->in_image, "word %zu", i);
	}
}

static void same_image(const struct plan *a, const struct plan *b)
{
	size_t n, m;
	uint8_t *x = image_file__make(a, a->vapi->vapi.window, 0, &n),
		*y = image_file__make(b, a->vapi->vapi.window, 0, &m);

	cr_assert(n == m && memcmp(x, y, n) == 0, "the images differ");
	free(x);
	free(y);
}

void plan__expect_same(const struct plan *a, const struct plan *b)
{
	cr_assert(a->vapi == b->vapi && a->live == b->live && a->next == b->next);
	cr_assert_eq(a->layout, b->layout);
	same_texts(a, b);
	same_references(a, b);
	SAME_ITEMS(consts);
	SAME_ITEMS(unwind);
	SAME_ITEMS(functions);
	cr_assert_eq(a->slots != NULL, b->slots != NULL);
	cr_assert(!a->slots || memcmp(a->slots, b->slots, a->vapi->vapi.n_slots * sizeof(vaddr_t)) == 0, "slots");
	cr_assert_eq(a->image_len, b->image_len);
	cr_assert_eq(a->got_at, b->got_at);
	cr_assert(memcmp(&a->counts, &b->counts, sizeof(a->counts)) == 0, "counts");
	for (size_t i = 0; i < a->functions.n; i++) {
		const struct succession *f = &a->functions.items[i];
		cr_assert(plan__successor(b, f->start) == f->next && plan__successor(b, f->end - 1) == f->next);
	}
	if (a->slots)
		same_image(a, b);
}
