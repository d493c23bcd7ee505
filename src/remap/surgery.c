/* See surgery.h; the layout of the window is in surgery_parts.h. */
#include "remap/surgery.h"

#include <string.h>
#include <sys/syscall.h>

#include "remap/bring.h"
#include "remap/surgery_parts.h"

enum { SEGMENTS_MAX = 16 };

struct err *surgery__refuse(const struct surgery *s, const char *why)
{
	return err__new(ERR_REFUSED, 0, s->l->path, NULL, "%s", why);
}

/* ---- before anything is touched ---- */

struct err *surgery__new(const struct process *p, const struct loaded *l, const struct plan *plan,
			 const taddr_t *imports, struct surgery **out)
{
	struct surgery *s = xcalloc(1, sizeof(*s));
	s->p = p;
	s->l = l;
	s->plan = plan;
	s->imports = imports;
	struct mappings maps;
	struct err *err = process__maps(p, &maps);
	if (!err) {
		err = surgery__lay_out(s, &maps);
		mappings__free(&maps);
	}
	if (!err && !s->mapped) {
		FREE_CLEANUP char *id = elf_file__build_id(plan->next);
		const char *soname = strchr(plan->next->soname, '/') ? "" : plan->next->soname;
		FREE_CLEANUP char *name = xasprintf("%s-%.16s", *soname ? soname : "image", id);
		s->bytes = image_file__make(plan, s->base, &s->bytes_len);
		err = store__put(name, s->bytes, s->bytes_len, &s->stored);
	}
	if (err) {
		surgery__free(s);
		return err;
	}
	*out = s;
	return NULL;
}

void surgery__free(struct surgery *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->shadows.n; i++) {
		free(s->shadows.items[i].content);
		free(s->shadows.items[i].before);
	}
	vec__free(&s->shadows);
	vec__free(&s->leftovers);
	free(s->bytes);
	free(s->stored.path);
	free(s->got);
	free(s->own);
	free(s->table);
	free(s);
}

size_t surgery__live_ranges(const struct surgery *s, struct trange *out, size_t max)
{
	struct image_segment segments[SEGMENTS_MAX];
	size_t n = image_file__segments(s->plan->live, segments, SEGMENTS_MAX), count = 0;
	for (size_t i = 0; i < n && count < max; i++)
		if (segments[i].exec) {
			taddr_t start = surgery__at(s, s->l->map.base + segments[i].at);
			out[count++] = (struct trange){start, taddr_add(start, segments[i].len)};
		}
	return count;
}

/* ---- calls of the hand ---- */

static struct err *reserve(struct surgery *s, struct hand *h, vaddr_t a, uint64_t len)
{
	return bring__reserve(h, surgery__at(s, a), len);
}

/* ---- prepare ---- */

/* Law 2: what is begun is written down first. The entry is complete before it is marked. */
static struct err *announce(struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	struct vapi_image i = {.state = VAPI_IMAGE_FREE,
			       .build_id_len = s->plan->next->build_id_len,
			       .base = s->mapped ? s->shadow_at : s->base,
			       .len = s->shadow_at + s->shadow_len - (s->mapped ? s->shadow_at : s->base)};
	memcpy(i.build_id, s->plan->next->build_id, sizeof(i.build_id));
	uint32_t slot = s->mapped ? UINT32_MAX : s->entry;
	for (uint32_t k = 0; k < VAPI_IMAGES_MAX && slot == UINT32_MAX; k++)
		if (!vapi_image__is_there(&s->l->header.image[k]))
			slot = k;
	if (slot == UINT32_MAX)
		return surgery__refuse(s, "too many earlier images are still mapped in the process");
	taddr_t entry = surgery__at(s, v->header + offsetof(struct vapi_header, image) + slot * sizeof(i));
	uint32_t preparing = VAPI_IMAGE_PREPARING;
	uint64_t magic = VAPI_HEADER_MAGIC;
	TRY(process__write(s->p, entry, &i, sizeof(i)));
	TRY(process__write(s->p, taddr_add(entry, offsetof(struct vapi_image, state)), &preparing, sizeof(preparing)));
	return process__write(s->p, surgery__at(s, v->header), &magic, sizeof(magic));
}

static struct err *map_image(struct surgery *s, struct hand *h)
{
	struct image_segment segments[SEGMENTS_MAX];
	size_t n = image_file__segments(s->plan->next, segments, SEGMENTS_MAX);
	int64_t fd, ignored;
	TRY(bring__open(s->p, h, &s->stored, s->bytes, s->bytes_len, "llu-image", &fd, &s->shared));
	struct err *err = NULL;
	for (size_t i = 0; i < n && !err; i++)
		err = bring__map(h, "map the new image", surgery__at(s, s->base + segments[i].at), segments[i].len,
				 PROT_READ | (segments[i].exec ? PROT_EXEC : 0), MAP_PRIVATE, (int)fd,
				 segments[i].offset);
	const uint64_t arg[6] = {(uint64_t)fd};
	struct err *closed = hand__call(h, SYS_close, arg, &ignored);
	if (err) {
		err__free(closed);
		return err;
	}
	return closed;
}

/* Words behind the image, read-only once they are written. */
static struct err *map_words(struct surgery *s, struct hand *h, uint64_t offset, const uint64_t *words, size_t n)
{
	taddr_t place = surgery__at(s, s->base + offset);
	uint64_t len = align_up(n * 8, LLU_PAGE);
	if (!n)
		return NULL;
	TRY(bring__map(h, "map the new image", place, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	TRY(process__write(s->p, place, words, n * 8));
	return bring__protect(h, place, len, PROT_READ);
}

static struct err *map_shadows(struct surgery *s, struct hand *h)
{
	TRY(bring__map(h, "map pages", surgery__at(s, s->shadow_at), s->shadow_len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (size_t i = 0; i < s->shadows.n; i++) {
		const struct shadow *x = &s->shadows.items[i];
		TRY(process__write(s->p, surgery__at(s, x->at), x->content, x->len));
		if (!x->writable)
			TRY(bring__protect(h, surgery__at(s, x->at), x->len, PROT_READ));
	}
	return NULL;
}

struct err *surgery__prepare(struct surgery *s, struct hand *h)
{
	s->begun = true;
	TRY(announce(s));
	for (size_t i = 0; i < s->leftovers.n; i++)
		TRY(reserve(s, h, s->leftovers.items[i].start,
			    s->leftovers.items[i].end - s->leftovers.items[i].start));
	if (!s->mapped) {
		TRY(map_image(s, h));
		TRY(map_words(s, h, s->plan->got_at, s->got, s->plan->new_got.n));
		TRY(map_words(s, h, s->plan->own_at, s->own, s->plan->own_words.n));
	}
	return map_shadows(s, h);
}

/* ---- undo, verify ---- */

struct err *surgery__undo(struct surgery *s, struct hand *h)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	if (!s->begun)
		return NULL;
	vaddr_t start = s->mapped ? s->shadow_at : s->base;
	TRY(reserve(s, h, start, s->shadow_at + s->shadow_len - start));
	return process__write(s->p, surgery__at(s, v->header), &s->l->header, sizeof(s->l->header));
}

struct err *surgery__clear_shadows(struct surgery *s, struct hand *h)
{
	return reserve(s, h, s->shadow_at, s->shadow_len);
}

struct err *surgery__verify(const struct surgery *s)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	FREE_CLEANUP uint64_t *table = xmalloc(v->table_len);
	struct vapi_header h;
	TRY(process__read(s->p, surgery__at(s, v->table), table, v->table_len));
	TRY(process__read(s->p, surgery__at(s, v->header), &h, sizeof(h)));
	if (memcmp(table, s->table, v->table_len) != 0 || memcmp(&h, &s->header, sizeof(h)) != 0)
		return err__new(ERR_SURGERY, 0, s->l->path, NULL, "the process does not hold what was committed");
	return NULL;
}

void surgery__places(const struct surgery *s, struct surgery_places *out)
{
	*out = (struct surgery_places){.image = s->base, .image_len = s->plan->image_len, .shared = s->shared};
	for (size_t i = 0; i < s->shadows.n; i++)
		out->pages_replaced += s->shadows.items[i].len / LLU_PAGE;
}
