/* Where the new image goes: room in the window, or an image that is there already. See surgery_parts.h. */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "remap/surgery_parts.h"

enum { SEGMENTS_MAX = 16 };

/* ---- images that are there already ---- */

static bool is_vapis_own(const struct surgery *s)
{
	const struct elf_file *n = s->plan->next, *v = s->plan->vapi;
	if (s->l->header.own_code != VAPI_OWN_MAPPED ||
	    !build_id__equal(n->build_id, n->build_id_len, v->build_id, v->build_id_len) || s->plan->new_got.n ||
	    s->plan->own_words.n || s->plan->jumps.n)
		return false;
	for (size_t i = 0; i < s->plan->patches.n; i++) {
		const struct patch *x = &s->plan->patches.items[i];
		const uint8_t *p = elf_file__at(v->plain ? v->plain : v, x->site, 4);
		int32_t value = (int32_t)(x->to - x->from);
		if (!p || memcmp(p, &value, 4) != 0)
			return false;
	}
	return true;
}

/* Does the own GOT of the image that is mapped at `i` hold what it would be filled with now? */
static struct err *has_same_got(struct surgery *s, const struct vapi_image *i, bool *same)
{
	size_t len = s->plan->new_got.n * sizeof(uint64_t);
	*same = i->len == s->plan->image_len;
	if (!*same || !len)
		return NULL;
	FREE_CLEANUP uint64_t *have = xmalloc(len);
	s->base = i->base; /* an own GOT may point into its image */
	TRY(surgery__fill_got(s));
	TRY(process__read(s->p, surgery__at(s, i->base + s->plan->got_at), have, len));
	*same = memcmp(have, s->got, len) == 0;
	return NULL;
}

/* Is all of it reservation, in the mappings too, or a leftover of ours? Never map over anything else. */
static bool is_reservation(const struct surgery *s, const struct mappings *maps, vaddr_t start, uint64_t len)
{
	for (vaddr_t a = start; a < start + len;) {
		const struct mapping *m = mappings__at(maps, surgery__at(s, a));
		bool leftover = false;
		for (size_t i = 0; i < s->leftovers.n; i++)
			leftover = leftover || vrange__has(s->leftovers.items[i], a);
		if (leftover) {
			a += LLU_PAGE;
			continue;
		}
		if (!m || m->prot != PROT_NONE || m->inode != 0)
			return false;
		a = loaded__from_end(s->l, m->range.end);
	}
	return true;
}

/* Has the code of an image at `base` made room, and nobody has taken it? */
static bool code_is_gone(const struct surgery *s, const struct mappings *maps, vaddr_t base)
{
	struct image_segment segments[SEGMENTS_MAX];
	size_t n = image_file__segments(s->plan->next, segments, SEGMENTS_MAX);
	for (size_t i = 0; i < n; i++)
		if (segments[i].exec && !is_reservation(s, maps, base + segments[i].at, segments[i].len))
			return false;
	return true;
}

/* Is the image at `i` the very one that this plan makes for that place, at least its constants? */
static bool is_same_image(struct surgery *s, const struct mappings *maps, const struct vapi_image *i)
{
	const struct elf_file *n = s->plan->next;
	if (!vapi_image__is_there(i) || s->plan->own_words.n ||
	    !build_id__equal(n->build_id, n->build_id_len, i->build_id, i->build_id_len))
		return false;
	const struct mapping *m = mappings__at(maps, surgery__at(s, i->base));
	CLOSE_CLEANUP int fd = -1;
	bool same = false;
	ERR_CLEANUP struct err *e = m && m->inode ? process__open_mapped(s->p, m, &fd) : NULL;
	struct stat st;
	if (e || fd < 0 || fstat(fd, &st) < 0)
		return false;
	size_t size;
	FREE_CLEANUP uint8_t *want = image_file__make(s->plan, i->base, s->l->shift, &size);
	FREE_CLEANUP uint8_t *have = xmalloc(size);
	if ((uint64_t)st.st_size != size || pread(fd, have, size, 0) != (ssize_t)size || memcmp(want, have, size) != 0)
		return false;
	e = has_same_got(s, i, &same);
	return !e && same && (i->state == VAPI_IMAGE_MAPPED || code_is_gone(s, maps, i->base));
}

/* ---- free room ---- */

static bool is_free(const struct surgery *s, const struct mappings *maps, vaddr_t start, uint64_t len)
{
	const struct vapi_header *h = &s->l->header;
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (vapi_image__is_there(&h->image[i]) && start < h->image[i].base + h->image[i].len &&
		    h->image[i].base < start + len)
			return false;
	return is_reservation(s, maps, start, len);
}

static bool find_room(struct surgery *s, const struct mappings *maps, uint64_t len)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	vaddr_t candidates[VAPI_IMAGES_MAX + 1] = {v->window};
	size_t n = 1;
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (vapi_image__is_there(&s->l->header.image[i]))
			candidates[n++] = s->l->header.image[i].base + s->l->header.image[i].len;
	bool found = false;
	for (size_t i = 0; i < n; i++)
		if (candidates[i] + len <= v->window + v->window_len && is_free(s, maps, candidates[i], len) &&
		    (!found || candidates[i] < s->base)) {
			s->base = candidates[i];
			found = true;
		}
	return found;
}

static struct err *choose_place(struct surgery *s, const struct mappings *maps)
{
	const struct vapi_header *h = &s->l->header;
	s->entry = UINT32_MAX;
	if (is_vapis_own(s)) {
		s->base = 0;
		s->mapped = true;
		return NULL;
	}
	for (uint32_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (is_same_image(s, maps, &h->image[i])) {
			s->base = h->image[i].base;
			s->entry = i;
			s->mapped = true;
			s->code_only = h->image[i].state == VAPI_IMAGE_CONSTANTS;
			return NULL;
		}
	for (uint32_t i = 0; i < VAPI_IMAGES_MAX && s->entry == UINT32_MAX; i++)
		if (!vapi_image__is_there(&h->image[i]))
			s->entry = i;
	return s->entry == UINT32_MAX ? surgery__refuse(s, "too many earlier images are still mapped in the process")
				      : NULL;
}

/* ---- all of it ---- */

/* Do the process's `n` words from `at` on? */
static struct err *words_refer_to(const struct surgery *s, vaddr_t at, size_t n, struct vrange r, bool *out)
{
	FREE_CLEANUP uint64_t *words = xcalloc(n, sizeof(*words));
	*out = false;
	if (n)
		TRY(process__read(s->p, surgery__at(s, at), words, n * sizeof(*words)));
	for (size_t i = 0; i < n && !*out; i++)
		*out = vrange__has(r, loaded__from(s->l, taddr(words[i])));
	return NULL;
}

/* Do objects that lie behind older images refer to `r`? */
static struct err *object_refers_to(const struct surgery *s, const struct piece *pieces, size_t n, struct vrange r,
				    bool *out)
{
	for (size_t i = 0; i < n && !*out; i++)
		if (pieces[i].home >= s->l->vapi->vapi.window && pieces[i].len >= sizeof(uint64_t))
			TRY(words_refer_to(s, pieces[i].home, pieces[i].len / sizeof(uint64_t), r, out));
	return NULL;
}

/* Does read-only data of the library refer to `r`? Its pages are the first of an exchange that are moved and lead to
 * the new image. */
static struct err *is_referred_to(const struct surgery *s, struct vrange r, bool *out)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	struct vrange pages = surgery__relro_pages(s->l->vapi);
	TRY(words_refer_to(s, pages.start, (pages.end - pages.start) / sizeof(uint64_t), r, out));
	if (!*out && s->l->vapi->plain) /* there the table is the first */
		TRY(words_refer_to(s, v->table, v->table_len / sizeof(uint64_t), r, out));
	for (size_t i = 0; i < s->l->map.n_past && !*out; i++)
		TRY(object_refers_to(s, s->l->map.past[i].pieces, s->l->map.past[i].n_pieces, r, out));
	return *out ? NULL : object_refers_to(s, s->l->map.pieces, s->l->map.n_pieces, r, out);
}

/* Are there holes in it? Only an exchange makes them. */
static bool is_whole(const struct surgery *s, const struct mappings *maps, struct vrange r)
{
	for (vaddr_t a = r.start; a < r.end;) {
		const struct mapping *m = mappings__at(maps, surgery__at(s, a));
		if (!m)
			return false;
		a = loaded__from_end(s->l, m->range.end);
	}
	return true;
}

/* What an update that was killed before its exchange has mapped is free. One whose exchange stopped, with nobody left
 * to mend it, may be in use; recover.h can tell. */
static struct err *list_leftovers(struct surgery *s, const struct mappings *maps)
{
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++) {
		const struct vapi_image *m = &s->l->header.image[i];
		bool in_use;
		if (m->state != VAPI_IMAGE_PREPARING)
			continue;
		struct vrange r = {m->base, m->base + m->len};
		TRY(is_referred_to(s, r, &in_use));
		if (in_use || !is_whole(s, maps, r))
			return err__new(ERR_REFUSED, 0, s->l->path, "run cllvupdate -u first",
					"an update was interrupted while it exchanged pages, and what it mapped is in "
					"use");
		vec__push(&s->leftovers, r);
	}
	return NULL;
}

static void place_shadows(struct surgery *s, vaddr_t start)
{
	s->shadow_at = start;
	for (size_t i = 0; i < s->shadows.n; i++) {
		s->shadows.items[i].at = start;
		start += s->shadows.items[i].len;
	}
	s->shadow_len = start - s->shadow_at;
}

/* Room for the image depends on the shadows' length, and their contents on the image's place: the
 * lengths do not depend on the place, so room is found for the most that they may take. */
struct err *surgery__lay_out(struct surgery *s, const struct mappings *maps)
{
	const struct vapi_note *v = &s->l->vapi->vapi;
	TRY(list_leftovers(s, maps));
	TRY(choose_place(s, maps));
	uint64_t image = s->mapped ? 0 : s->plan->image_len, shadows = surgery__pages_bound(s);
	vaddr_t place = s->base;
	if (!find_room(s, maps, image + shadows))
		return err__new(ERR_REFUSED, 0, s->l->path, "restart the process to get a new window",
				"the new image (%lu KiB) does not fit into what is free of the window (%lu KiB in all)",
				(image + shadows) / 1024, v->window_len / 1024);
	vaddr_t room = s->base;
	if (s->mapped)
		s->base = place;
	TRY(surgery__fill_pages(s));
	place_shadows(s, room + image);
	return NULL;
}
