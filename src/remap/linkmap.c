/* See linkmap.h. */
#include "remap/linkmap.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

enum { OBJECTS_MAX = 4096 }; /* ends a list that loops */

struct object {
	taddr_t bias;
	char name[PATH_MAX];
};

struct objects {
	struct object *items;
	size_t n;
};

/* ---- reading the list ---- */

/* AT_PHDR of the auxiliary vector leads to the program's headers (proc(5), getauxval(3)). */
static struct err *program_headers(const struct process *p, taddr_t *at, uint64_t *n)
{
	FREE_CLEANUP char *path = xasprintf("/proc/%d/auxv", process__pid(p));
	FILE *f = fopen(path, "re");
	Elf64_auxv_t a;
	at->v = 0;
	*n = 0;
	while (f && fread(&a, sizeof(a), 1, f) == 1) {
		if (a.a_type == AT_PHDR)
			at->v = a.a_un.a_val;
		if (a.a_type == AT_PHNUM)
			*n = a.a_un.a_val;
	}
	if (f)
		fclose(f);
	if (!at->v || *n == 0 || *n > 256)
		return err__new(ERR_UNREADABLE, 0, process__name(p), NULL, "cannot find the program headers");
	return NULL;
}

/* DT_DEBUG of the program holds the address of struct r_debug. */
static struct err *find_r_debug(const struct process *p, taddr_t *out)
{
	taddr_t at;
	uint64_t n;
	TRY(program_headers(p, &at, &n));
	Elf64_Phdr ph[256];
	TRY(process__read(p, at, ph, n * sizeof(ph[0])));
	uint64_t bias = 0, dynamic = 0, size = 0;
	for (uint64_t i = 0; i < n; i++) {
		if (ph[i].p_type == PT_PHDR)
			bias = at.v - ph[i].p_vaddr;
		if (ph[i].p_type == PT_DYNAMIC) {
			dynamic = ph[i].p_vaddr;
			size = ph[i].p_memsz;
		}
	}
	for (uint64_t i = 0; i < size / sizeof(Elf64_Dyn) && i < 512; i++) {
		Elf64_Dyn d;
		TRY(process__read(p, taddr(bias + dynamic + i * sizeof(d)), &d, sizeof(d)));
		if (d.d_tag == DT_DEBUG && d.d_un.d_ptr) {
			out->v = d.d_un.d_ptr;
			return NULL;
		}
	}
	return err__new(ERR_REFUSED, 0, process__name(p), NULL,
			"the program is static or its dynamic loader is unknown");
}

/* Reads a string up to the end of its page, and on. */
static void read_name(const struct process *p, taddr_t at, char *out, size_t max)
{
	size_t n = 0;
	out[0] = 0;
	while (n + 1 < max) {
		size_t step = LLU_PAGE - (at.v + n) % LLU_PAGE;
		if (step > max - 1 - n)
			step = max - 1 - n;
		ERR_CLEANUP struct err *e = process__read(p, taddr_add(at, n), out + n, step);
		if (e)
			break;
		if (memchr(out + n, 0, step))
			return;
		n += step;
	}
	out[n] = 0;
}

static struct err *read_objects(const struct process *p, struct objects *out)
{
	taddr_t at = {0};
	struct r_debug debug;
	TRY(find_r_debug(p, &at));
	TRY(process__read(p, at, &debug, sizeof(debug)));
	VEC(struct object) list = {0};
	uint64_t next = (uint64_t)(uintptr_t)debug.r_map;
	struct err *err = NULL;
	while (next && list.n < OBJECTS_MAX && !err) {
		struct link_map m;
		err = process__read(p, taddr(next), &m, sizeof(m));
		if (err)
			break;
		struct object o = {.bias = taddr(m.l_addr)};
		read_name(p, taddr((uint64_t)(uintptr_t)m.l_name), o.name, sizeof(o.name));
		vec__push(&list, o);
		next = (uint64_t)(uintptr_t)m.l_next;
	}
	if (err) {
		vec__free(&list);
		return err;
	}
	out->items = list.items;
	out->n = list.n;
	return NULL;
}

char *linkmap__name(const struct process *p, taddr_t bias)
{
	struct objects o = {0};
	char *name = NULL;
	ERR_CLEANUP struct err *e = read_objects(p, &o);
	for (size_t i = 0; !e && i < o.n; i++)
		if (o.items[i].bias.v == bias.v && o.items[i].name[0])
			name = xstrdup(o.items[i].name);
	free(o.items);
	return name;
}

/* ---- look-up ---- */

struct scope_entry {
	taddr_t bias;
	struct elf_file *elf;
	bool in_scope;
};

struct scope {
	struct scope_entry *items;
	size_t n;
};

static void scope__free(struct scope *s)
{
	for (size_t i = 0; i < s->n; i++)
		elf_file__free(s->items[i].elf);
	free(s->items);
}

/* Reads the file of every object, the program's included; only the vDSO has none. */
static struct err *open_objects(const struct process *p, const struct objects *o, struct scope *s)
{
	struct mappings maps;
	TRY(process__maps(p, &maps));
	s->items = xcalloc(o->n, sizeof(*s->items));
	struct err *err = NULL;
	for (size_t i = 0; i < o->n && !err; i++) {
		struct scope_entry *x = &s->items[s->n++];
		x->bias = o->items[i].bias;
		/* a program with fixed addresses has no bias; its file is the process's own */
		const struct mapping *m = mappings__at(&maps, x->bias);
		CLOSE_CLEANUP int fd = -1;
		if (x->bias.v == 0)
			fd = openat(process__dirfd(p), "exe", O_RDONLY | O_CLOEXEC);
		else if (m && m->inode && m->offset == 0)
			err = process__open_mapped(p, m, &fd);
		else
			continue;
		if (!err)
			err = elf_file__read_fd(fd, *o->items[i].name ? o->items[i].name : "the program", &x->elf);
	}
	mappings__free(&maps);
	return err;
}

static void add_needed(struct scope *s, size_t of)
{
	const struct elf_file *e = s->items[of].elf;
	for (size_t i = 0; e && i < e->needed.n; i++)
		for (size_t k = 0; k < s->n; k++) {
			if (s->items[k].in_scope || !s->items[k].elf ||
			    strcmp(s->items[k].elf->soname, e->needed.items[i]) != 0)
				continue;
			s->items[k].in_scope = true;
			add_needed(s, k);
		}
}

static bool defines(const struct elf_symbol *s, const char *name, const char *version)
{
	uint8_t bind = ELF64_ST_BIND(s->s.st_info);
	return s->s.st_shndx != SHN_UNDEF && bind != STB_LOCAL && strcmp(s->name, name) == 0 &&
	       (strcmp(s->version, version) == 0 || (*s->version == 0) || (*version == 0 && !s->hidden_version));
}

static const struct elf_symbol *find_definition(const struct scope *s, bool in_scope, const char *name,
						const char *version, size_t *where)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct elf_file *e = s->items[i].in_scope == in_scope ? s->items[i].elf : NULL;
		for (size_t k = 1; e && k < e->n_symbols; k++)
			if (defines(&e->symbols[k], name, version)) {
				*where = i;
				return &e->symbols[k];
			}
	}
	return NULL;
}

/* What another object's GOT holds for the same symbol, once bound: not within that object itself,
 * where an unresolved slot points to its PLT. */
static struct err *find_binding(const struct process *p, const struct scope *s, const char *name, const char *version,
				bool *found, taddr_t *out)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct elf_file *e = s->items[i].elf;
		for (size_t k = 0; e && k < e->relocs.n; k++) {
			const struct elf_reloc *r = &e->relocs.items[k];
			if ((r->type != R_X86_64_JUMP_SLOT && r->type != R_X86_64_GLOB_DAT) ||
			    strcmp(e->symbols[r->symbol].name, name) != 0 ||
			    strcmp(e->symbols[r->symbol].version, version) != 0)
				continue;
			uint64_t value;
			TRY(process__read(p, taddr_add(s->items[i].bias, r->where), &value, sizeof(value)));
			uint64_t end = s->items[i].bias.v;
			for (size_t h = 0; h < e->n_phdrs; h++)
				if (e->phdrs[h].p_type == PT_LOAD)
					end = s->items[i].bias.v + e->phdrs[h].p_vaddr + e->phdrs[h].p_memsz;
			if (value == 0 || (value >= s->items[i].bias.v && value < end))
				continue;
			*found = true;
			out->v = value;
			return NULL;
		}
	}
	return err__new(ERR_REFUSED, 0, name, NULL,
			"a new import is an IFUNC that nothing in the process has bound yet");
}

/* The defining library's own use of its IFUNC: an IRELATIVE slot of the same resolver, which the loader filled. */
static struct err *find_own_choice(const struct process *p, const struct scope_entry *x, vaddr_t resolver, bool *found,
				   taddr_t *out)
{
	*found = false;
	for (size_t k = 0; k < x->elf->relocs.n; k++) {
		const struct elf_reloc *r = &x->elf->relocs.items[k];
		if (r->type != R_X86_64_IRELATIVE || (vaddr_t)r->addend != resolver)
			continue;
		uint64_t value;
		TRY(process__read(p, taddr_add(x->bias, r->where), &value, sizeof(value)));
		*found = true;
		out->v = value;
		break;
	}
	return NULL;
}

static struct err *look_up(const struct process *p, const struct objects *o, struct scope *s, taddr_t bias,
			   const char *name, const char *version, bool *found, taddr_t *out)
{
	TRY(open_objects(p, o, s));
	size_t self = SIZE_MAX;
	for (size_t i = 0; i < s->n; i++)
		if (s->items[i].bias.v == bias.v)
			self = i;
	if (self == SIZE_MAX)
		return err__new(ERR_REFUSED, 0, name, NULL, "the library is not in the dynamic loader's list");
	s->items[self].in_scope = true;
	add_needed(s, self);
	size_t where = 0;
	const struct elf_symbol *d = find_definition(s, true, name, version, &where);
	size_t elsewhere;
	if (find_definition(s, false, name, version, &elsewhere))
		return err__new(ERR_REFUSED, 0, name, NULL,
				"a new import is defined outside of the library's needed libraries as well");
	*found = d != NULL;
	if (!d)
		return NULL;
	uint8_t type = ELF64_ST_TYPE(d->s.st_info);
	if (type == STT_GNU_IFUNC) {
		TRY(find_own_choice(p, &s->items[where], d->s.st_value, found, out));
		return *found ? NULL : find_binding(p, s, name, version, found, out);
	}
	if (type == STT_TLS || d->s.st_shndx == SHN_ABS)
		return err__new(ERR_REFUSED, 0, name, NULL, "a new import is no function and no data");
	*out = taddr_add(s->items[where].bias, d->s.st_value);
	return NULL;
}

struct err *linkmap__lookup(const struct process *p, taddr_t bias, const char *name, const char *version, bool *found,
			    taddr_t *out)
{
	struct objects o = {0};
	struct scope s = {0};
	TRY(read_objects(p, &o));
	struct err *err = look_up(p, &o, &s, bias, name, version, found, out);
	scope__free(&s);
	free(o.items);
	return err;
}
