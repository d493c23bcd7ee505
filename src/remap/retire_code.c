/* Which code of a library is old, and what is known to hold it. See retire_parts.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "image/file_memo.h"
#include "remap/retire_parts.h"

void old_code__hold(struct old_code *o, const char *fmt, ...)
{
	va_list args;
	if (o->held)
		return;
	va_start(args, fmt);
	if (vasprintf(&o->held, fmt, args) < 0)
		o->held = xstrdup("");
	va_end(args);
}

void old_code__free(old_code_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->items[i].held);
	vec__free(l);
}

bool old_code__has(const struct old_code *o, taddr_t a)
{
	for (size_t i = 0; i < o->n_exec; i++)
		if (trange__has(o->exec[i], a) || (o->full[i] && a.v == o->exec[i].end.v))
			return true;
	return false;
}

/* Is the end of the last page more than what a linker fills it up with? */
static bool is_full(const struct process *p, const struct mapping *m)
{
	uint64_t last = 0;
	ERR_CLEANUP struct err *e = process__read(p, taddr(m->range.end.v - sizeof(last)), &last, sizeof(last));
	return e || last != 0;
}

/* The executable mappings in a range; they are all of files, one for each segment. */
static void list_exec(const struct process *p, const struct mappings *maps, struct trange r, struct old_code *o)
{
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->items[i];
		if (!(m->prot & PROT_EXEC) || m->range.end.v <= r.start.v || m->range.start.v >= r.end.v)
			continue;
		if (o->n_exec == OLD_EXEC_MAX || m->range.start.v < r.start.v || m->range.end.v > r.end.v) {
			old_code__hold(o, "its mappings were changed");
			return;
		}
		if (!m->inode || m->shared || (m->prot & PROT_WRITE))
			old_code__hold(o, "its code is not mapped from a file any more");
		o->full[o->n_exec] = is_full(p, m);
		o->exec[o->n_exec++] = m->range;
	}
}

/* Does a segment with code hold anything else? Linkers could put constants there (ld -z noseparate-code). */
static bool mixes(const struct elf_file *e)
{
	for (size_t i = 0; i < e->n_sections; i++) {
		const Elf64_Shdr *s = &e->sections[i].h;
		if ((s->sh_flags & SHF_ALLOC) && !(s->sh_flags & SHF_EXECINSTR) && s->sh_size &&
		    elf_file__is_code(e, s->sh_addr))
			return true;
	}
	return false;
}

/* The build that an image was made from, as far as its sections go. */
static struct err *read_build(const struct process *p, const struct mappings *maps, taddr_t base, struct elf_file **out)
{
	const struct mapping *m = mappings__at(maps, base);
	CLOSE_CLEANUP int fd = -1;
	if (!m || !m->inode)
		return err__new(ERR_REFUSED, 0, NULL, NULL, "the image is not mapped");
	TRY(process__open_mapped(p, m, &fd));
	return file_memo__elf(process__files(p), fd, m->path, out);
}

static bool in_exec(const struct old_code *o, vaddr_t v, uint64_t reach)
{
	uint64_t a = loaded__at(o->l, v).v;
	for (size_t i = 0; i < o->n_exec; i++)
		if (a + reach >= o->exec[i].start.v && a < o->exec[i].end.v)
			return true;
	return false;
}

/* What the code that runs now refers to: its operands, constants and objects that live on at older places. */
static void ask_live(struct old_code *o)
{
	const struct live_map *m = &o->l->map;
	for (size_t i = 0; i < m->n_leads_to; i++) {
		if (in_exec(o, m->leads_to[i], 4))
			old_code__hold(o, "the new code refers to it");
		o->constants = o->constants || trange__has(o->all, loaded__at(o->l, m->leads_to[i]));
	}
	for (size_t i = 0; i < m->n_consts; i++)
		o->constants = o->constants || trange__has(o->all, loaded__at(o->l, m->consts[i].home));
	for (size_t i = 0; i < m->n_pieces; i++)
		o->constants = o->constants || trange__has(o->all, loaded__at(o->l, m->pieces[i].home));
}

static struct err *list_own(const struct process *p, const struct mappings *maps, const struct loaded *l,
			    old_code_list *out)
{
	struct old_code o = {.l = l, .image = OLD_OWN, .constants = true};
	struct trange r = loaded__own(l);
	if (!l->header.live || l->header.own_code != VAPI_OWN_MAPPED || l->vapi->plain)
		return NULL; /* what did not change of a plain library runs there */
	list_exec(p, maps, r, &o);
	if (mixes(l->vapi))
		old_code__hold(&o, "code and constants are in the same segment of its file");
	ask_live(&o);
	vec__push(out, o);
	return NULL;
}

static struct err *list_image(const struct process *p, const struct mappings *maps, const struct loaded *l, uint32_t i,
			      old_code_list *out)
{
	const struct vapi_image *m = &l->header.image[i];
	ELF_CLEANUP struct elf_file *build = NULL;
	struct old_code o = {.l = l, .image = i};
	o.all = (struct trange){loaded__at(l, m->base), loaded__at(l, m->base + m->len)};
	list_exec(p, maps, o.all, &o); /* there may be some behind constants: of an update that was interrupted */
	if (m->state == VAPI_IMAGE_MAPPED) {
		TRY(read_build(p, maps, o.all.start, &build));
		if (!build || mixes(build))
			old_code__hold(&o, "code and constants are in the same segment of its file");
	}
	/* objects of its own: pointers to them are not told from pointers to nothing, so they stay */
	for (size_t k = 0; k < l->map.n_past; k++)
		for (size_t n = 0; n < l->map.past[k].n_pieces; n++)
			o.constants = o.constants || trange__has(o.all, loaded__at(l, l->map.past[k].pieces[n].home));
	ask_live(&o);
	vec__push(out, o);
	return NULL;
}

struct err *old_code__list(const struct process *p, const struct mappings *maps, const struct loaded *l,
			   old_code_list *out)
{
	TRY(list_own(p, maps, l, out));
	for (uint32_t i = 0; i < VAPI_IMAGES_MAX; i++)
		if (vapi_image__is_there(&l->header.image[i]) && i + 1 != l->header.live)
			TRY(list_image(p, maps, l, i, out));
	return NULL;
}
