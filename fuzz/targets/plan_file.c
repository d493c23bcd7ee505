/* Reading a plan from the cache. Its checksum keeps damage out; here damage gets a right one, as from somebody who can
 * write to the folder. The plan is for the two libraries of seeds/; what is read must be usable. */
#include "image/plan_file.h"
#include "image/image_file.h"

#include <nettle/sha2.h>
#include <string.h>

#include "fuzz.h"

enum { HEAD_SIZE = 56, LEN_AT = 48 }; /* struct head of plan_file.c */

static struct elf_file *vapi, *next;
static const struct plan_key key;
static uint8_t head[HEAD_SIZE];

static void must(struct err *e)
{
	if (e)
		fprintf(stderr, "%s\n", err__text(e));
	MUST(!e);
}

/* Once: the files, and a head as the cache writes it. */
static void prepare(void)
{
	struct elf_file *old;
	struct plan *p;
	uint8_t *bytes;
	size_t len;
	must(elf_file__read(SEEDS "/v1.so", &old));
	must(split__make(old, &(struct split_options){0}, &bytes, &len));
	must(elf_file__read_memory(bytes, len, "v1", &vapi));
	elf_file__free(old);
	free(bytes);
	must(elf_file__read(SEEDS "/v2.so", &next));
	must(plan__make(vapi, vapi, NULL, next, &p));
	bytes = plan_file__encode(p, &key, &len);
	memcpy(head, bytes, HEAD_SIZE);
	free(bytes);
	plan__free(p);
}

/* Head, input, checksum. */
static uint8_t *whole(const uint8_t *data, size_t size, size_t *len)
{
	uint8_t *out = malloc(HEAD_SIZE + size + SHA256_DIGEST_SIZE);
	uint64_t len64 = size;
	struct sha256_ctx sum;
	MUST(out);
	memcpy(out, head, HEAD_SIZE);
	memcpy(out + LEN_AT, &len64, sizeof(len64));
	if (size)
		memcpy(out + HEAD_SIZE, data, size);
	sha256_init(&sum);
	sha256_update(&sum, HEAD_SIZE + size, out);
	sha256_digest(&sum, SHA256_DIGEST_SIZE, out + HEAD_SIZE + size);
	*len = HEAD_SIZE + size + SHA256_DIGEST_SIZE;
	return out;
}

static void use(struct plan *p)
{
	size_t size;
	ELF_CLEANUP struct elf_file *e = NULL;
	struct live_map map = {0};
	for (size_t i = 0; i < p->functions.n && i < 64; i++)
		(void)plan__successor(p, p->functions.items[i].start);
	if (p->refusals.n)
		return;
	FREE_CLEANUP uint8_t *image = image_file__make(p, p->vapi->vapi.window, 0, &size);
	err__free(image_file__read(image, size, "image", &e, &map));
	live_map__free(&map);
	for (size_t i = 1; i < next->n_symbols; i++)
		if (elf_file__is_code(next, next->symbols[i].function))
			(void)plan__stub(p, next->symbols[i].function);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len;
	if (!vapi)
		prepare();
	const struct plan_inputs in = {.vapi = vapi, .live = vapi, .next = next};
	FREE_CLEANUP uint8_t *bytes = whole(data, size, &len);
	struct plan *p = plan_file__decode(bytes, len, &in, &key);
	if (!p)
		return 0;
	use(p);
	plan__free(p);
	return 0;
}
