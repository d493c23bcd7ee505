/* Plans as bytes: the same plan comes back, and nothing else does. */
#include <criterion/criterion.h>
#include <nettle/sha2.h>
#include <string.h>

#include "engine/plans.h"
#include "image/plan_file.h"
#include "support/support.h"

TestSuite(plan_file, .fini = support__teardown, .timeout = 240);

static const char *fixture(const char *variant, const char *name)
{
	return path_of(FIXTURE_DIR "/lib/%s/lib%s.so.1", variant, name);
}

static struct plan_inputs inputs_of(const struct step *s)
{
	return (struct plan_inputs){.vapi = s->vapi,
				    .live = s->live,
				    .next = s->next,
				    .map = &s->map,
				    .live_debug = "none",
				    .next_debug = "none",
				    .maker = "test",
				    .maker_len = 4};
}

static void goes_and_comes(const struct step *s, const struct plan *fresh)
{
	struct plan_inputs in = inputs_of(s);
	struct plan_key key = plan_key__make(&in);
	size_t size;
	uint8_t *bytes = plan_file__encode(fresh, &key, &size);
	struct plan *back = plan_file__decode(bytes, size, &in, &key);

	cr_assert(back != NULL, "%s: not read back", s->next->path);
	free(bytes); /* nothing may point into it */
	plan__expect_same(fresh, back);
	plan__free(back);
}

/* Each chain is walked as an updated process would be: from the second step on an image runs. */
Test(plan_file, the_same_plan_comes_back)
{
	static const char *const chains[][6] = {
	    {"state", "v1", "v2", "v3", "v1"},
	    {"state", "v1", "v2-new-callback", "v1", "v2-new-callback", "v3"}, /* slots that are held */
	    {"state", "v1-emit", "v2-emit", "v3-emit"},
	    {"state", "v1-debug", "v2-debug"},
	    {"tls", "v1", "v2", "v3"},
	    {"ifunc", "v1", "v2", "v3"},
	    {"symver", "v1", "v2", "v1"},
	    {"imports", "v1", "v2", "v3"}, /* a GOT of its own */
	    {"callback", "v1", "v2", "v3"},
	    {"throwxx", "v1", "v2"},
	};

	for (size_t i = 0; i < sizeof(chains) / sizeof(chains[0]); i++) {
		const char *const *c = chains[i];
		struct step s = step__first(fixture(c[1], c[0]), fixture(c[2], c[0]));
		struct elf_file *held = library__read(fixture(c[2], c[0]), true);
		for (size_t k = 2; k < 6 && c[k]; k++) {
			struct plan *p = step__plan(&s);
			cr_assert_eq(p->refusals.n, 0, "%s: %s", s.next->path,
				     p->refusals.n ? p->refusals.items[0].text : "");
			goes_and_comes(&s, p);
			if (k + 1 < 6 && c[k + 1])
				step__go_on(&s, p, fixture(c[k + 1], c[0]), held);
			plan__free(p);
		}
		elf_file__free(held);
		step__free(&s);
	}
}

Test(plan_file, a_refused_plan_too)
{
	static const char *const pairs[][3] = {{"state", "v1", "bad-data"},
					       {"state", "v1", "bad-soname"},
					       {"state", "v1", "bad-export"},
					       {"stream", "v1", "heap-grown"},
					       {"stream", "v1-debug", "heap-grown-debug"}};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		struct step s = step__first(fixture(pairs[i][1], pairs[i][0]), fixture(pairs[i][2], pairs[i][0]));
		struct plan *p = step__plan(&s);
		cr_assert_gt(p->refusals.n, 0);
		goes_and_comes(&s, p);
		plan__free(p);
		step__free(&s);
	}
}

/* ---- damage ---- */

struct written {
	struct step s;
	struct plan_inputs in;
	struct plan_key key;
	uint8_t *bytes;
	size_t size;
};

static struct written write_one(const char *name)
{
	struct written w = {.s = step__first(fixture("v1", name), fixture("v2", name))};
	struct plan *p = step__plan(&w.s);

	w.in = inputs_of(&w.s);
	w.key = plan_key__make(&w.in);
	w.bytes = plan_file__encode(p, &w.key, &w.size);
	plan__free(p);
	return w;
}

static void written__free(struct written *w)
{
	free(w->bytes);
	step__free(&w->s);
}

Test(plan_file, damage_is_seen)
{
	struct written w = write_one("imports");

	for (size_t i = 0; i < w.size; i++) {
		w.bytes[i] ^= 1 << i % 8;
		cr_assert(plan_file__decode(w.bytes, w.size, &w.in, &w.key) == NULL, "byte %zu", i);
		w.bytes[i] ^= 1 << i % 8;
	}
	for (size_t n = 0; n < w.size; n++) { /* in memory of its own, so that reading behind it is seen */
		uint8_t *part = xmemdup(w.bytes, n);
		cr_assert(plan_file__decode(part, n, &w.in, &w.key) == NULL, "%zu bytes", n);
		free(part);
	}
	struct plan *p = plan_file__decode(w.bytes, w.size, &w.in, &w.key);
	cr_assert(p != NULL);
	plan__free(p);
	w.key.bytes[7] ^= 1;
	cr_assert(plan_file__decode(w.bytes, w.size, &w.in, &w.key) == NULL, "a plan of another key");
	written__free(&w);
}

static void seal(uint8_t *bytes, size_t size)
{
	struct sha256_ctx h;

	sha256_init(&h);
	sha256_update(&h, size - SHA256_DIGEST_SIZE, bytes);
	sha256_digest(&h, SHA256_DIGEST_SIZE, bytes + size - SHA256_DIGEST_SIZE);
}

/* What the checksum does not catch, as it was made after the damage: a plan or none, but no harm here. */
Test(plan_file, hostile_bytes_do_no_harm)
{
	enum { HEAD = 56 };
	static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
	struct written w = write_one("imports");
	size_t accepted = 0;

	for (size_t i = HEAD; i < w.size - SHA256_DIGEST_SIZE; i++) {
		uint8_t was = w.bytes[i];
		for (size_t k = 0; k < sizeof(values); k++) {
			w.bytes[i] = values[k];
			seal(w.bytes, w.size);
			struct plan *p = plan_file__decode(w.bytes, w.size, &w.in, &w.key);
			accepted += p != NULL;
			if (p && !p->refusals.n) {
				size_t size;
				free(image_file__make(p, w.s.vapi->vapi.window, 0, &size));
			}
			plan__free(p);
		}
		w.bytes[i] = was;
	}
	cr_assert_gt(accepted, 0, "nothing but the checksum was tried");
	written__free(&w);
}

/* ---- the key ---- */

static void differs(const struct plan_inputs *a, const struct plan_inputs *b, const char *what)
{
	struct plan_key x = plan_key__make(a), y = plan_key__make(b), again = plan_key__make(a);

	cr_assert(memcmp(&x, &again, sizeof(x)) == 0, "not the same twice: %s", what);
	cr_assert(memcmp(&x, &y, sizeof(x)) != 0, "the key does not depend on %s", what);
}

Test(plan_file, the_key_is_all_that_matters)
{
	struct step s = step__first(fixture("v1", "state"), fixture("v2", "state"));
	struct plan *p = step__plan(&s);
	struct elf_file *plain = library__read(fixture("v2", "state"), false), *other, *twin;
	uint8_t *bytes;
	size_t size;

	step__go_on(&s, p, fixture("v3", "state"), NULL);
	plan__free(p);
	s.map.held = xcalloc(1, sizeof(*s.map.held));
	s.map.held[0] = (struct held_slot){.slot = 3, .function = 4, .build_id_len = 1};
	s.map.n_held = 1;
	const struct plan_inputs in = inputs_of(&s);
	struct plan_inputs x = in;
	/* the same build-id, other contents */
	cr_assert_null(split__make(plain, &(struct split_options){.window_percent = 300}, &bytes, &size));
	cr_assert_null(elf_file__read_memory(bytes, size, "other", &other));
	x.live = other;
	differs(&in, &x, "the live file");
	cr_assert_null(elf_file__read_memory(s.live->data, s.live->size, "elsewhere", &twin));
	x.live = twin;
	struct plan_key a = plan_key__make(&in), b = plan_key__make(&x);
	cr_assert(memcmp(&a, &b, sizeof(a)) == 0, "the key depends on where a file lies");
	x = in;
	x.vapi = other;
	differs(&in, &x, "the VAPI");
	x = in;
	x.next = plain;
	differs(&in, &x, "the new file");
	x = in;
	x.live = in.vapi;
	differs(&in, &x, "which build is live");
	x = in;
	x.live_debug = "in the file";
	differs(&in, &x, "the debug information");
	x = in;
	x.next_debug = "in the file";
	differs(&in, &x, "the new debug information");
	x = in;
	x.maker_len = 3;
	differs(&in, &x, "who made it");
	x = in;
	struct live_map map = s.map;
	x.map = &map;
	map.base += LLU_PAGE;
	differs(&in, &x, "the image's place");
	map = s.map;
	map.slots = NULL;
	differs(&in, &x, "whether slots are known");
	map = s.map;
	map.n_held = 0;
	differs(&in, &x, "held slots");
	map = s.map;
	map.n_consts = map.n_consts ? map.n_consts - 1 : 0;
	cr_assert_gt(s.map.n_consts, 0);
	differs(&in, &x, "constants");
	map = s.map;
	map.slots = xmemdup(s.map.slots, s.map.n_slots * sizeof(vaddr_t));
	map.slots[1]++;
	differs(&in, &x, "a slot");
	free(map.slots);
	free(bytes);
	elf_file__free(plain);
	elf_file__free(other);
	elf_file__free(twin);
	step__free(&s);
}
