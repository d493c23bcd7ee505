/* See elf_notes.h. */
#include "image/elf_notes.h"

#include <string.h>

static struct err *bad(const struct elf_file *e, const char *why)
{
	return err__new(ERR_UNREADABLE, 0, e->path, NULL, "%s", why);
}

static struct err *unsupported(const struct elf_file *e, const char *why)
{
	return err__new(ERR_REFUSED, 0, e->path, NULL, "%s", why);
}

/* Are the `len` bytes in one segment behind the library's own, with just these permissions? */
static bool appended(const struct elf_file *e, vaddr_t a, uint64_t len, uint32_t flags)
{
	for (size_t i = 0; i < e->n_phdrs; i++) {
		const Elf64_Phdr *p = &e->phdrs[i];
		if (p->p_type == PT_LOAD && p->p_vaddr >= e->vapi.end && a - p->p_vaddr < p->p_memsz &&
		    len <= p->p_memsz - (a - p->p_vaddr))
			return (p->p_flags & (PF_R | PF_W | PF_X)) == flags;
	}
	return false;
}

/* What an update writes to, maps over and runs must be the VAPI's own: nothing of the library, and nothing beyond it,
 * where a process has whatever comes next. `v` is ordered. */
static bool is_apart(const struct elf_file *e, const struct vapi_note *v)
{
	return appended(e, v->text, v->text_end - v->text, PF_R | PF_X) &&
	       appended(e, v->table, v->scratch + v->scratch_len - v->table, PF_R | PF_W) &&
	       appended(e, v->window, v->window_len, 0) &&
	       (v->eh_frame_hdr == 0 || appended(e, v->eh_frame_hdr, v->eh_frame_hdr_cap, PF_R));
}

static struct err *check_vapi(struct elf_file *e)
{
	const struct vapi_note *v = &e->vapi;
	if (v->version != VAPI_VERSION)
		return unsupported(e, "split by another version of llusplit");
	if (v->n_used > v->n_slots || v->n_slots > 1u << 20 || v->n_lazy > 1u << 20)
		return bad(e, "the VAPI note is damaged");
	const uint8_t *slots = elf_file__at(e, v->slots, (uint64_t)v->n_slots * sizeof(struct vapi_slot));
	bool ordered = v->end % LLU_PAGE == 0 && v->end <= v->slots && v->slots <= v->text && v->text <= v->stubs &&
		       v->stubs <= v->lazy_head && v->lazy_head - v->stubs >= (uint64_t)v->n_slots * ARCH_STUB_SIZE &&
		       v->lazy_head <= v->ifunc_returns && v->ifunc_returns <= v->text_end && v->text_end <= v->table &&
		       v->table % LLU_PAGE == 0 && v->table_len % LLU_PAGE == 0 && v->table_len <= INT32_MAX &&
		       v->table_len >= (uint64_t)v->n_slots * 8 && v->table + v->table_len <= v->header &&
		       v->header + LLU_PAGE <= v->scratch && v->scratch_len <= INT32_MAX &&
		       v->scratch + v->scratch_len <= v->window && v->window % LLU_PAGE == 0 &&
		       v->window_len % LLU_PAGE == 0 && v->window_len <= INT32_MAX && v->window <= INT32_MAX;
	bool text = elf_file__at(e, v->text, v->text_end - v->text) != NULL;
	bool unwind = v->eh_frame_hdr == 0 ||
		      (v->eh_frame_hdr % LLU_PAGE == 0 && v->eh_frame_hdr_cap % LLU_PAGE == 0 &&
		       v->eh_frame_hdr_cap <= INT32_MAX && elf_file__at(e, v->eh_frame_hdr, v->eh_frame_hdr_cap));
	bool trampoline = v->trampoline == 0 || v->trampoline < v->end;
	if (!slots || !ordered || !text || !unwind || !trampoline || !is_apart(e, v))
		return bad(e, "the VAPI note is damaged");
	e->slots = (const struct vapi_slot *)slots;
	if ((uintptr_t)slots % _Alignof(struct vapi_slot) != 0)
		return bad(e, "the VAPI note is damaged");
	return NULL;
}

static struct err *read_note(struct elf_file *e, const char *name, uint32_t type, const uint8_t *desc, uint32_t len)
{
	if (strcmp(name, ELF_NOTE_GNU) == 0 && type == NT_GNU_BUILD_ID && e->build_id_len == 0) {
		if (len == 0 || len > sizeof(e->build_id))
			return unsupported(e, "a build-id of unusual length");
		memcpy(e->build_id, desc, len);
		e->build_id_len = len;
	}
	if (strcmp(name, VAPI_NOTE_NAME) == 0 && type == VAPI_NOTE_TYPE && !e->split) {
		if (len != sizeof(e->vapi))
			return unsupported(e, "split by another version of llusplit");
		memcpy(&e->vapi, desc, len);
		e->split = true;
	}
	return NULL;
}

struct err *elf_notes__read(struct elf_file *e)
{
	for (size_t i = 1; i < e->n_sections; i++) {
		const struct elf_section *s = &e->sections[i];
		if (s->h.sh_type != SHT_NOTE || !(s->h.sh_flags & SHF_ALLOC))
			continue;
		uint64_t at = 0;
		while (at < s->h.sh_size && s->h.sh_size - at >= sizeof(Elf64_Nhdr)) {
			Elf64_Nhdr n;
			memcpy(&n, s->data + at, sizeof(n));
			uint64_t name = at + sizeof(n), desc = name + align_up(n.n_namesz, 4);
			if (desc > s->h.sh_size || n.n_descsz > s->h.sh_size - desc)
				return bad(e, "a note runs out of its section");
			if (n.n_namesz && s->data[name + n.n_namesz - 1] == 0)
				TRY(read_note(e, (const char *)s->data + name, n.n_type, s->data + desc, n.n_descsz));
			at = desc + align_up(n.n_descsz, s->h.sh_addralign == 8 ? 8 : 4);
		}
	}
	return e->split ? check_vapi(e) : NULL;
}

/* ---- build-ids (elf_file.h) ---- */

char *build_id__hex(const uint8_t *id, uint32_t len)
{
	if (len == 0)
		return xstrdup("none");
	char *s = xmalloc(2 * (size_t)len + 1);
	for (size_t i = 0; i < len; i++) {
		static const char digits[] = "0123456789abcdef";
		s[2 * i] = digits[id[i] >> 4];
		s[2 * i + 1] = digits[id[i] & 15];
	}
	s[2 * (size_t)len] = 0;
	return s;
}

char *elf_file__build_id(const struct elf_file *e)
{
	return build_id__hex(e->build_id, e->build_id_len);
}

bool build_id__equal(const uint8_t *a, uint32_t a_len, const uint8_t *b, uint32_t b_len)
{
	return a_len == b_len && memcmp(a, b, a_len) == 0;
}
