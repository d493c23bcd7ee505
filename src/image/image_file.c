/* See image_file.h. */
#include "image/image_file.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TAIL_MAGIC 0x3347414d49554c4cULL /* "LLUIMAG3" */

struct image_tail {
	uint64_t next_size; /* bytes of next's file */
	uint64_t base;
	uint64_t shift;
	uint64_t n_patches, n_slots, n_consts, n_pieces, n_jumps;
};

struct tail_patch {
	uint64_t site;     /* file offset */
	uint32_t original; /* the value that was there */
	uint32_t zero;
};

struct tail_end {
	uint64_t tail_at, magic;
};

static size_t tail_size(const struct image_tail *t)
{
	return sizeof(*t) + t->n_patches * sizeof(struct tail_patch) + t->n_slots * sizeof(vaddr_t) +
	       t->n_consts * sizeof(struct live_const) + t->n_jumps * sizeof(struct entry_jump) +
	       t->n_pieces * sizeof(struct piece) + sizeof(struct tail_end);
}

static uint8_t *put(uint8_t *p, const void *from, size_t n)
{
	memcpy(p, from, n);
	return p + n;
}

static int by_at(const void *a, const void *b)
{
	const struct live_const *x = a, *y = b;
	return (x->at > y->at) - (x->at < y->at);
}

uint64_t image_file__page(const struct plan *p, size_t i)
{
	return align_up(p->next->size, LLU_PAGE) + i * LLU_PAGE;
}

/* Where an address of VAPI space is, as a distance from the load bias. */
static vaddr_t real(const struct elf_file *vapi, uint64_t shift, vaddr_t a)
{
	return a >= vapi->vapi.end ? a + shift : a;
}

void image_file__entries(const struct elf_file *vapi, const struct entry_jump *jumps, size_t n, vaddr_t base,
			 uint64_t shift, vaddr_t page, uint8_t *out)
{
	const struct elf_file *plain = vapi->plain;
	uint64_t offset = 0;
	memset(out, 0, LLU_PAGE);
	bool found = elf_file__offset(plain, page, 1, &offset);
	for (size_t i = 0; i < plain->n_phdrs && !found; i++) { /* the first page of a segment, as lld lays them */
		const Elf64_Phdr *h = &plain->phdrs[i];
		if (h->p_type == PT_LOAD && (h->p_flags & PF_X) && align_down(h->p_vaddr, LLU_PAGE) == page) {
			offset = align_down(h->p_offset, LLU_PAGE);
			found = true;
		}
	}
	if (found) /* where segments are mapped, the file goes on behind them */
		memcpy(out, plain->data + offset, plain->size - offset < LLU_PAGE ? plain->size - offset : LLU_PAGE);
	size_t first = 0, behind = n; /* jumps lie in address order */
	while (first < behind) {
		size_t mid = first + (behind - first) / 2;
		if (jumps[mid].entry + ARCH_JUMP_SIZE <= page)
			first = mid + 1;
		else
			behind = mid;
	}
	for (size_t i = first; i < n && jumps[i].entry < page + LLU_PAGE; i++) {
		uint8_t code[ARCH_JUMP_SIZE];
		arch_jump__write(code, jumps[i].entry, real(vapi, shift, base + jumps[i].to));
		for (size_t k = 0; k < sizeof(code); k++)
			if (jumps[i].entry + k - page < LLU_PAGE)
				out[jumps[i].entry + k - page] = code[k];
	}
}

uint8_t *image_file__make(const struct plan *p, vaddr_t base, uint64_t shift, size_t *size)
{
	struct image_tail t = {.next_size = p->next->size,
			       .base = base,
			       .shift = shift,
			       .n_patches = p->patches.n,
			       .n_slots = p->vapi->vapi.n_slots,
			       .n_consts = p->consts.n,
			       .n_pieces = p->pieces.n,
			       .n_jumps = p->jumps.n};
	uint64_t tail_at = image_file__page(p, p->pages.n);
	*size = tail_at + tail_size(&t);
	uint8_t *out = xcalloc(*size, 1);
	for (size_t i = 0; i < p->pages.n; i++)
		image_file__entries(p->vapi, p->jumps.items, p->jumps.n, base, shift, p->pages.items[i],
				    out + image_file__page(p, i));
	memcpy(out, p->next->data, p->next->size);
	uint8_t *tail = put(out + tail_at, &t, sizeof(t));
	for (size_t i = 0; i < p->patches.n; i++) {
		const struct patch *x = &p->patches.items[i];
		struct tail_patch saved = {0};
		elf_file__offset(p->next, x->site, 4, &saved.site); /* decoded from there, so it is in the file */
		memcpy(&saved.original, p->next->data + saved.site, 4);
		tail = put(tail, &saved, sizeof(saved));
		vaddr_t to = x->own_got ? base + p->got_at + x->to : plan__place(p, base, x->to);
		int32_t value = (int32_t)(real(p->vapi, shift, to) - real(p->vapi, shift, base + x->from));
		memcpy(out + saved.site, &value, 4);
	}
	tail = put(tail, p->slots, t.n_slots * 8);
	if (t.n_consts) {
		FREE_CLEANUP struct live_const *consts = xmemdup(p->consts.items, t.n_consts * sizeof(*consts));
		qsort(consts, t.n_consts, sizeof(*consts), by_at);
		tail = put(tail, consts, t.n_consts * sizeof(*consts));
	}
	if (t.n_jumps)
		tail = put(tail, p->jumps.items, t.n_jumps * sizeof(struct entry_jump));
	for (size_t i = 0; i < p->pieces.n; i++) {
		struct piece q = p->pieces.items[i];
		q.home = plan__place(p, base, q.home);
		tail = put(tail, &q, sizeof(q));
	}
	struct tail_end end = {tail_at, TAIL_MAGIC};
	put(tail, &end, sizeof(end));
	return out;
}

static struct err *damaged(const char *path)
{
	return err__new(ERR_UNREADABLE, 0, path, NULL, "no relinked image, or a damaged one");
}

static bool sane(const struct image_tail *t, size_t size, uint64_t tail_at)
{
	const uint64_t max = 1u << 28;
	return t->next_size <= tail_at && t->n_patches < max && t->n_slots < max && t->n_consts < max &&
	       t->n_pieces < max && t->n_jumps < max && tail_size(t) == size - tail_at;
}

static vaddr_t address_of(const struct elf_file *e, uint64_t offset)
{
	for (size_t i = 0; i < e->n_phdrs; i++)
		if (e->phdrs[i].p_type == PT_LOAD && offset - e->phdrs[i].p_offset < e->phdrs[i].p_filesz)
			return e->phdrs[i].p_vaddr + (offset - e->phdrs[i].p_offset);
	return 0;
}

/* Objects are in the order of their addresses and lie side by side, so that their lengths are bounded together. */
static bool pieces_are_sane(const struct piece *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i].len > INT32_MAX || p[i].at > INT32_MAX || p[i].home > INT32_MAX ||
		    (i > 0 && p[i].at < p[i - 1].at + p[i - 1].len))
			return false;
	return true;
}

static bool jumps_are_sane(const struct entry_jump *j, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (j[i].entry > INT32_MAX || j[i].to > INT32_MAX ||
		    (i > 0 && j[i].entry < j[i - 1].entry + ARCH_JUMP_SIZE))
			return false;
	return true;
}

static bool consts_are_sane(const struct live_const *c, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (c[i].at < c[i - 1].at)
			return false;
	return true;
}

struct err *image_file__read(const uint8_t *data, size_t size, const char *path, struct elf_file **next,
			     struct live_map *map)
{
	struct tail_end end;
	struct image_tail t;
	if (size < sizeof(end))
		return damaged(path);
	memcpy(&end, data + size - sizeof(end), sizeof(end));
	if (end.magic != TAIL_MAGIC || end.tail_at > size || size - end.tail_at < sizeof(t) || end.tail_at % LLU_PAGE)
		return damaged(path);
	memcpy(&t, data + end.tail_at, sizeof(t));
	if (!sane(&t, size, end.tail_at))
		return damaged(path);
	FREE_CLEANUP uint8_t *original = xmemdup(data, t.next_size);
	FREE_CLEANUP uint64_t *sites = xcalloc(t.n_patches, sizeof(*sites));
	const uint8_t *p = data + end.tail_at + sizeof(t);
	for (uint64_t i = 0; i < t.n_patches; i++, p += sizeof(struct tail_patch)) {
		struct tail_patch x;
		memcpy(&x, p, sizeof(x));
		if (x.site > t.next_size || t.next_size - x.site < 4)
			return damaged(path);
		memcpy(original + x.site, &x.original, 4);
		sites[i] = x.site;
	}
	TRY(elf_file__read_memory(original, t.next_size, path, next));
	*map = (struct live_map){.base = t.base,
				 .shift = t.shift,
				 .n_slots = t.n_slots,
				 .n_consts = t.n_consts,
				 .n_pieces = t.n_pieces,
				 .n_jumps = t.n_jumps};
	map->slots = xmemdup(p, t.n_slots * sizeof(vaddr_t));
	p += t.n_slots * sizeof(vaddr_t);
	map->consts = xmemdup(p, t.n_consts * sizeof(struct live_const));
	p += t.n_consts * sizeof(struct live_const);
	map->jumps = xmemdup(p, t.n_jumps * sizeof(struct entry_jump));
	p += t.n_jumps * sizeof(struct entry_jump);
	map->pieces = xmemdup(p, t.n_pieces * sizeof(struct piece));
	map->leads_to = xcalloc(t.n_patches, sizeof(vaddr_t));
	map->n_leads_to = t.n_patches;
	for (uint64_t i = 0; i < t.n_patches; i++) {
		int32_t value;
		memcpy(&value, data + sites[i], 4);
		map->leads_to[i] = t.base + t.shift + address_of(*next, sites[i]) + 4 + (uint64_t)(int64_t)value;
	}
	if (pieces_are_sane(map->pieces, map->n_pieces) && jumps_are_sane(map->jumps, map->n_jumps) &&
	    consts_are_sane(map->consts, map->n_consts))
		return NULL;
	live_map__free(map);
	*map = (struct live_map){0};
	elf_file__free(*next);
	*next = NULL;
	return damaged(path);
}

/* The tail alone: an image may be megabytes, and its pieces are few. */
struct err *image_file__read_pieces(int fd, const char *path, struct piece **out, size_t *n)
{
	struct stat st;
	struct tail_end end;
	struct image_tail t;
	if (fstat(fd, &st) < 0 || (size_t)st.st_size < sizeof(end) || st.st_size > 1 << 30 ||
	    pread(fd, &end, sizeof(end), st.st_size - (off_t)sizeof(end)) != sizeof(end) || end.magic != TAIL_MAGIC ||
	    end.tail_at > (size_t)st.st_size || (size_t)st.st_size - end.tail_at < sizeof(t) ||
	    pread(fd, &t, sizeof(t), (off_t)end.tail_at) != sizeof(t) || !sane(&t, (size_t)st.st_size, end.tail_at))
		return damaged(path);
	size_t len = t.n_pieces * sizeof(struct piece);
	struct piece *p = xmalloc(len);
	if (pread(fd, p, len, st.st_size - (off_t)(sizeof(end) + len)) != (ssize_t)len ||
	    !pieces_are_sane(p, t.n_pieces)) {
		free(p);
		return damaged(path);
	}
	*out = p;
	*n = t.n_pieces;
	return NULL;
}

size_t image_file__segments(const struct elf_file *next, struct image_segment *out, size_t max)
{
	size_t n = 0;
	for (size_t i = 0; i < next->n_phdrs && n < max; i++) {
		const Elf64_Phdr *p = &next->phdrs[i];
		if (p->p_type != PT_LOAD || (p->p_flags & PF_W) || p->p_vaddr >= elf_file__end(next) || !p->p_filesz)
			continue;
		uint64_t start = align_down(p->p_vaddr, LLU_PAGE);
		out[n++] = (struct image_segment){
		    .at = start,
		    .len = align_up(p->p_vaddr + p->p_filesz, LLU_PAGE) - start,
		    .offset = align_down(p->p_offset, LLU_PAGE),
		    .exec = (p->p_flags & PF_X) != 0,
		};
	}
	return n;
}
