/* See linkmap.h. */
#include "remap/linkmap.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "image/file_memo.h"
#include "inject/clock.h"

enum { OBJECTS_MAX = 4096, NAMESPACES_MAX = 64 }; /* end lists that loop */
enum { TRIES = 20 };                              /* a millisecond apart, for a list that is being changed */
#define BYTES_MAX (2ULL << 30)                    /* of the objects' files, which are all held at once */

struct object {
	taddr_t at, bias;
	unsigned space; /* namespace: 0 for the program's */
	char *name;
	bool opened;          /* `elf` is settled */
	struct elf_file *elf; /* NULL: it has no file (the vDSO) */
	bool in_scope;        /* of the look-up under way */
};

typedef VEC(struct object) object_list;

struct linkmap {
	const struct process *p;
	struct mappings maps;
	object_list objects;
	bool by_name;   /* the process's executable is the dynamic loader, not the program */
	uint64_t bytes; /* of the files that were read */
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

/* A program that was started through the dynamic loader by name (`ld.so PROGRAM`): AT_PHDR leads to the loader's own
 * headers, and struct r_debug is its symbol _r_debug (glibc elf/Versions). */
static struct err *find_in_loader(const struct process *p, taddr_t headers, taddr_t *out)
{
	struct mappings maps;
	CLOSE_CLEANUP int fd = -1;
	ELF_CLEANUP struct elf_file *loader = NULL;
	TRY(process__maps(p, &maps));
	const struct mapping *m = mappings__at(&maps, headers);
	taddr_t bias = m && m->inode && m->offset == 0 ? m->range.start : taddr(0);
	struct err *e = bias.v ? process__open_mapped(p, m, &fd) : NULL;
	mappings__free(&maps);
	TRY(e);
	if (fd >= 0)
		TRY(file_memo__elf(process__files(p), fd, "the dynamic loader", &loader));
	for (size_t i = 0; loader && i < loader->n_symbols; i++) {
		const struct elf_symbol *s = &loader->symbols[i];
		if (s->s.st_shndx == SHN_UNDEF || strcmp(s->name, "_r_debug") != 0)
			continue;
		*out = taddr_add(bias, s->s.st_value);
		return NULL;
	}
	return err__new(ERR_REFUSED, 0, process__name(p), NULL,
			"the program is static or its dynamic loader is unknown");
}

/* DT_DEBUG of the program holds the address of struct r_debug. *by_name: the loader was started, with the program as
 * its argument. */
static struct err *find_r_debug(const struct process *p, taddr_t *out, bool *by_name)
{
	taddr_t at;
	uint64_t n;
	TRY(program_headers(p, &at, &n));
	Elf64_Phdr ph[256];
	TRY(process__read(p, at, ph, n * sizeof(ph[0])));
	uint64_t bias = 0, dynamic = 0, size = 0;
	*by_name = true; /* the loader's headers have no PT_PHDR */
	for (uint64_t i = 0; i < n; i++) {
		if (ph[i].p_type == PT_PHDR) {
			bias = at.v - ph[i].p_vaddr;
			*by_name = false;
		}
		if (ph[i].p_type == PT_DYNAMIC) {
			dynamic = ph[i].p_vaddr;
			size = ph[i].p_memsz;
		}
	}
	for (uint64_t i = 0; !*by_name && i < size / sizeof(Elf64_Dyn) && i < 512; i++) {
		Elf64_Dyn d;
		TRY(process__read(p, taddr(bias + dynamic + i * sizeof(d)), &d, sizeof(d)));
		if (d.d_tag == DT_DEBUG && d.d_un.d_ptr) {
			out->v = d.d_un.d_ptr;
			return NULL;
		}
	}
	return find_in_loader(p, at, out);
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

static void free_objects(object_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->items[i].name);
		elf_file__free(l->items[i].elf);
	}
	vec__free(l);
}

static struct err *read_namespace(const struct process *p, uint64_t first, unsigned space, object_list *out)
{
	for (uint64_t next = first; next && out->n < OBJECTS_MAX;) {
		struct link_map m;
		char name[PATH_MAX];
		TRY(process__read(p, taddr(next), &m, sizeof(m)));
		read_name(p, taddr((uint64_t)(uintptr_t)m.l_name), name, sizeof(name));
		struct object o = {.at = taddr(next), .bias = taddr(m.l_addr), .space = space, .name = xstrdup(name)};
		vec__push(out, o);
		next = (uint64_t)(uintptr_t)m.l_next;
	}
	return NULL;
}

/* From version 2 on there is a struct r_debug_extended for each namespace (<link.h>, glibc 2.35). *calm: none of the
 * lists is being changed (r_state). */
static struct err *read_objects(const struct process *p, object_list *out, bool *by_name, bool *calm)
{
	taddr_t at = {0};
	*by_name = false;
	*calm = true;
	TRY(find_r_debug(p, &at, by_name));
	for (unsigned space = 0; at.v && space < NAMESPACES_MAX; space++) {
		struct r_debug_extended debug = {0};
		TRY(process__read(p, at, &debug, sizeof(debug.base)));
		*calm = *calm && debug.base.r_state == RT_CONSISTENT;
		TRY(read_namespace(p, (uint64_t)(uintptr_t)debug.base.r_map, space, out));
		if (debug.base.r_version < 2)
			break;
		TRY(process__read(p, at, &debug, sizeof(debug)));
		at = taddr((uint64_t)(uintptr_t)debug.r_next);
	}
	return NULL;
}

char *linkmap__name(const struct process *p, taddr_t bias)
{
	object_list o = {0};
	char *name = NULL;
	bool by_name, calm;
	ERR_CLEANUP struct err *e = read_objects(p, &o, &by_name, &calm);
	for (size_t i = 0; !e && i < o.n && !name; i++)
		if (o.items[i].bias.v == bias.v && o.items[i].name[0])
			name = xstrdup(o.items[i].name);
	free_objects(&o);
	return name;
}

struct err *linkmap__lists(const struct process *p, taddr_t bias, bool *out)
{
	object_list o = {0};
	bool by_name, calm;
	struct err *e = read_objects(p, &o, &by_name, &calm);
	*out = false;
	for (size_t i = 0; !e && i < o.n && !*out; i++)
		*out = o.items[i].bias.v == bias.v;
	free_objects(&o);
	return e;
}

/* What is being changed may be gone before it is read. */
static struct err *unless_unreadable(struct err *e)
{
	if (!e || err__kind(e) != ERR_UNREADABLE)
		return e;
	err__free(e);
	return NULL;
}

static bool same_object(const struct object *a, const struct object *b)
{
	return a->at.v == b->at.v && a->bias.v == b->bias.v && a->space == b->space && strcmp(a->name, b->name) == 0;
}

/* Are the lists and the files mapped still those that were read? */
static struct err *is_as_it_was(const struct linkmap *m, bool *same)
{
	object_list now = {0};
	bool by_name, calm;
	struct err *e = read_objects(m->p, &now, &by_name, &calm);
	*same = !e && calm && now.n == m->objects.n;
	for (size_t i = 0; *same && i < now.n; i++)
		*same = same_object(&now.items[i], &m->objects.items[i]);
	FREE_CLEANUP taddr_t *at = xcalloc(now.n, sizeof(*at));
	for (size_t i = 0; i < now.n; i++)
		at[i] = now.items[i].bias;
	if (*same)
		e = process__same_files(m->p, &m->maps, at, now.n, same);
	*same = *same && !e;
	free_objects(&now);
	return unless_unreadable(e);
}

static struct err *is_changing(const struct process *p)
{
	return err__new(ERR_RETRY, 0, process__name(p), NULL,
			"its dynamic loader is in the middle of loading or unloading a library");
}

struct err *linkmap__read(const struct process *p, struct linkmap **out)
{
	struct linkmap *m = xcalloc(1, sizeof(*m));
	m->p = p;
	struct err *err = NULL;
	bool calm = false;
	for (unsigned i = 0; i < TRIES && !err && !calm; i++) {
		if (i > 0)
			clock_pause(1);
		free_objects(&m->objects);
		mappings__free(&m->maps);
		err = process__maps(p, &m->maps);
		if (!err)
			err = read_objects(p, &m->objects, &m->by_name, &calm);
		if (!err && calm)
			err = is_as_it_was(m, &calm);
		if (i + 1 < TRIES) {
			calm = calm && !err;
			err = unless_unreadable(err);
		}
	}
	if (!err && !calm)
		err = is_changing(p);
	if (err) {
		linkmap__free(m);
		return err;
	}
	*out = m;
	return NULL;
}

void linkmap__free(struct linkmap *m)
{
	if (!m)
		return;
	free_objects(&m->objects);
	mappings__free(&m->maps);
	free(m);
}

void linkmap__cleanup(struct linkmap **m)
{
	linkmap__free(*m);
}

size_t linkmap__count(const struct linkmap *m)
{
	return m->objects.n;
}

struct linkmap_object linkmap__object(const struct linkmap *m, size_t i)
{
	const struct object *o = &m->objects.items[i];
	return (struct linkmap_object){o->at, o->bias, o->name, mappings__at(&m->maps, o->bias)};
}

static size_t index_of(const struct linkmap *m, taddr_t bias)
{
	for (size_t i = 0; i < m->objects.n; i++)
		if (m->objects.items[i].bias.v == bias.v)
			return i;
	return SIZE_MAX;
}

bool linkmap__same_namespace(const struct linkmap *m, taddr_t a, taddr_t b)
{
	size_t i = index_of(m, a), k = index_of(m, b);
	return i != SIZE_MAX && k != SIZE_MAX && m->objects.items[i].space == m->objects.items[k].space;
}

/* ---- the objects' files ---- */

/* One file may be in the list many times. */
static struct err *read_file(struct linkmap *m, struct object *o, int fd)
{
	const char *path = *o->name ? o->name : "the program";
	struct stat st;
	if (fstat(fd, &st) < 0)
		return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot look at the file");
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > BYTES_MAX - m->bytes)
		return err__new(ERR_REFUSED, 0, path, NULL,
				"the files that the dynamic loader lists are too large together");
	TRY(file_memo__elf(process__files(m->p), fd, path, &o->elf));
	m->bytes += o->elf->size;
	return NULL;
}

/* Has the process these headers where the file should be? By its range alone another one might have been opened that
 * took its place. */
static struct err *check_headers(const struct linkmap *m, const struct object *o)
{
	uint8_t now[1024];
	size_t n = o->elf->size < sizeof(now) ? o->elf->size : sizeof(now);
	TRY(process__read(m->p, o->bias, now, n));
	return memcmp(now, o->elf->data, n) == 0
		   ? NULL
		   : err__new(ERR_UNREADABLE, 0, o->name, NULL, "what is mapped is not what the file says");
}

static struct err *open_file(struct linkmap *m, size_t i, const struct elf_file **out)
{
	struct object *o = &m->objects.items[i];
	*out = o->elf;
	if (o->opened)
		return NULL;
	if (o->bias.v == 0 && m->by_name)
		return err__new(ERR_REFUSED, 0, process__name(m->p), "start it without naming the dynamic loader",
				"the program has fixed addresses and was started through the dynamic loader");
	/* a program with fixed addresses has no bias; its file is the process's own */
	const struct mapping *at = mappings__at(&m->maps, o->bias);
	CLOSE_CLEANUP int fd = -1;
	if (o->bias.v == 0)
		fd = openat(process__dirfd(m->p), "exe", O_RDONLY | O_CLOEXEC);
	else if (at && at->inode && at->offset == 0)
		TRY(process__open_mapped(m->p, at, &fd));
	if (fd >= 0 || o->bias.v == 0)
		TRY(read_file(m, o, fd));
	if (o->elf && o->bias.v)
		TRY(check_headers(m, o));
	o->opened = true;
	*out = o->elf;
	return NULL;
}

/* What could not be read may not have been there any more. */
struct err *linkmap__file(struct linkmap *m, size_t i, const struct elf_file **out)
{
	bool same = true;
	struct err *e = open_file(m, i, out);
	ERR_CLEANUP struct err *gone = e ? is_as_it_was(m, &same) : NULL;
	if (gone || same)
		return e;
	err__free(e);
	return is_changing(m->p);
}

/* Reads the file of every object, the program's included; only the vDSO has none. */
static struct err *open_all(struct linkmap *m)
{
	const struct elf_file *ignored;
	for (size_t i = 0; i < m->objects.n; i++)
		TRY(linkmap__file(m, i, &ignored));
	return NULL;
}

/* ---- look-up ---- */

static void add_needed(object_list *s, size_t of)
{
	const struct elf_file *e = s->items[of].elf;
	for (size_t i = 0; e && i < e->needed.n; i++)
		for (size_t k = 0; k < s->n; k++) {
			if (s->items[k].in_scope || !s->items[k].elf || s->items[k].space != s->items[of].space ||
			    strcmp(s->items[k].elf->soname, e->needed.items[i]) != 0)
				continue;
			s->items[k].in_scope = true;
			add_needed(s, k);
		}
}

static struct err *set_scope(struct linkmap *m, taddr_t bias, const char *subject)
{
	TRY(open_all(m));
	size_t self = index_of(m, bias);
	if (self == SIZE_MAX)
		return err__new(ERR_REFUSED, 0, subject, NULL, "the library is not in the dynamic loader's list");
	for (size_t i = 0; i < m->objects.n; i++)
		m->objects.items[i].in_scope = i == self;
	add_needed(&m->objects, self);
	return NULL;
}

struct err *linkmap__in_scope(struct linkmap *m, taddr_t bias, taddr_t other, bool *out)
{
	TRY(set_scope(m, bias, NULL));
	size_t i = index_of(m, other);
	*out = i != SIZE_MAX && m->objects.items[i].in_scope;
	return NULL;
}

static bool defines(const struct elf_symbol *s, const char *name, const char *version)
{
	uint8_t bind = ELF64_ST_BIND(s->s.st_info);
	return s->s.st_shndx != SHN_UNDEF && bind != STB_LOCAL && strcmp(s->name, name) == 0 &&
	       (strcmp(s->version, version) == 0 || (*s->version == 0) || (*version == 0 && !s->hidden_version));
}

const struct elf_symbol *linkmap__definition(const struct elf_file *e, const char *name, const char *version)
{
	for (size_t k = 1; k < e->n_symbols; k++)
		if (defines(&e->symbols[k], name, version))
			return &e->symbols[k];
	return NULL;
}

static const struct elf_symbol *find_definition(const object_list *s, size_t self, bool in_scope, const char *name,
						const char *version, size_t *where)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->items[i].in_scope != in_scope || !s->items[i].elf || s->items[i].space != s->items[self].space)
			continue;
		const struct elf_symbol *d = linkmap__definition(s->items[i].elf, name, version);
		if (d) {
			*where = i;
			return d;
		}
	}
	return NULL;
}

/* What another object's GOT holds for the same symbol, once bound: not within that object itself,
 * where an unresolved slot points to its PLT. */
static struct err *find_binding(const struct process *p, const object_list *s, unsigned space, const char *name,
				const char *version, bool *found, taddr_t *out)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct elf_file *e = s->items[i].space == space ? s->items[i].elf : NULL;
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
static struct err *find_own_choice(const struct process *p, const struct object *x, vaddr_t resolver, bool *found,
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

struct err *linkmap__lookup(struct linkmap *m, taddr_t bias, const char *name, const char *version, bool *found,
			    taddr_t *out)
{
	const object_list *s = &m->objects;
	TRY(set_scope(m, bias, name));
	size_t self = index_of(m, bias), where = 0, elsewhere;
	const struct elf_symbol *d = find_definition(s, self, true, name, version, &where);
	if (find_definition(s, self, false, name, version, &elsewhere))
		return err__new(ERR_REFUSED, 0, name, NULL,
				"a new import is defined outside of the library's needed libraries as well");
	*found = d != NULL;
	if (!d)
		return NULL;
	uint8_t type = ELF64_ST_TYPE(d->s.st_info);
	if (type == STT_GNU_IFUNC) {
		TRY(find_own_choice(m->p, &s->items[where], d->s.st_value, found, out));
		return *found ? NULL : find_binding(m->p, s, s->items[self].space, name, version, found, out);
	}
	if (type == STT_TLS || d->s.st_shndx == SHN_ABS)
		return err__new(ERR_REFUSED, 0, name, NULL, "a new import is no function and no data");
	*out = taddr_add(s->items[where].bias, d->s.st_value);
	return NULL;
}
