/* Finding the debug information of a build with libdwfl (see types.h). */
#include <elfutils/libdwelf.h>
#include <elfutils/libdwfl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "image/types_read.h"

static int no_elf(Dwfl_Module *mod, void **userdata, const char *name, Dwarf_Addr base, char **file, Elf **elf)
{
	(void)mod, (void)userdata, (void)name, (void)base, (void)file, (void)elf;
	return -1;
}

/* Not beside the library: that may be the directory of a hostile process, and a FIFO there would block us. */
#define DEBUG_FOLDER "/usr/lib/debug"

/* What a library says of itself (its path, the names in .gnu_debuglink and .gnu_debugaltlink) may be a hostile user's
 * word, and must not lead out of the folders that are searched. What a file of DEBUG_FOLDER says is root's. Marks in
 * *userdata that something was found. */
static int find_debuginfo(Dwfl_Module *mod, void **userdata, const char *name, Dwarf_Addr base, const char *file,
			  const char *link, GElf_Word crc, char **found)
{
	bool ours = file && strncmp(file, DEBUG_FOLDER "/", sizeof(DEBUG_FOLDER)) == 0 && !strstr(file, "/../");
	if (!ours && file && strstr(file, ".."))
		file = "library";
	if (!ours && link && strchr(link, '/'))
		link = NULL;
	int fd = dwfl_standard_find_debuginfo(mod, userdata, name, base, file, link, crc, found);
	if (fd >= 0)
		*userdata = mod;
	return fd;
}

/* Does the separate file that libdwfl chose belong to the build? */
static bool belongs(Dwarf *dw, const struct elf_file *e)
{
	const void *id = NULL;
	if (e->build_id_len == 0)
		return true; /* libdwfl compared the CRC */
	ssize_t len = dwelf_elf_gnu_build_id(dwarf_getelf(dw), &id);
	return len > 0 && build_id__equal(id, (uint32_t)len, e->build_id, e->build_id_len);
}

static void say_none(struct types *t, const char *why)
{
	free(t->source);
	t->source = xasprintf("none: %s", why);
}

/* What libdwfl found for a build; all of it lives as long as the session. */
struct found {
	Dwarf *dw;            /* NULL: nothing */
	const char *separate; /* the file that it is in, NULL: the build's own */
	const char *alt;      /* the supplementary file that it names, or NULL */
	bool alt_missing;
};

static struct err *look(Dwfl *dwfl, const struct elf_file *e, struct found *f)
{
	/* libelf only reads it; the interface has no const. */
	Dwfl_Module *mod = dwfl_report_offline_memory(dwfl, "library", e->path, (char *)e->data, e->size);
	Dwarf_Addr bias = 0;
	const char *main_file = NULL, *debug_file = NULL;
	const void *alt_id = NULL;
	void **any = NULL;
	*f = (struct found){0};
	if (!mod || dwfl_report_end(dwfl, NULL, NULL) != 0)
		return err__new(ERR_UNREADABLE, 0, e->path, NULL, "libdwfl: %s", dwfl_errmsg(-1));
	f->dw = dwfl_module_getdwarf(mod, &bias);
	const char *message = f->dw ? NULL : dwfl_errmsg(-1);
	dwfl_module_info(mod, &any, NULL, NULL, NULL, NULL, &main_file, &debug_file);
	if (!f->dw && (debug_file || elf_file__section(e, ".debug_info")))
		return err__new(ERR_UNREADABLE, 0, debug_file ? debug_file : e->path, NULL,
				"damaged debug information: %s", message);
	if (!f->dw)
		return NULL;
	if (debug_file && (!main_file || strcmp(debug_file, main_file) != 0))
		f->separate = debug_file;
	else if (*any && !elf_file__section(e, ".debug_info"))
		f->separate = "debuginfod"; /* libdwfl keeps no name for what a server sent */
	if (dwelf_dwarf_gnu_debugaltlink(f->dw, &f->alt, &alt_id) <= 0)
		f->alt = NULL;
	/* dwarf_getalt() opens whatever the name says: only where root has written it */
	f->alt_missing = f->alt && (f->separate ? !dwarf_getalt(f->dw) : !*any);
	return NULL;
}

static struct err *find_in(Dwfl *dwfl, const struct elf_file *e, struct types *t)
{
	struct found f;
	TRY(look(dwfl, e, &f));
	if (!f.dw) {
		say_none(t, "no debug information in the file, and none was found for its build-id");
		return NULL;
	}
	t->source = xstrdup(f.separate ? f.separate : e->path);
	if (f.separate && !belongs(f.dw, e)) {
		say_none(t, "the file that was found is of another build");
		return NULL;
	}
	if (f.alt_missing) {
		FREE_CLEANUP char *why = xasprintf("%s: its supplementary file %s is missing", t->source, f.alt);
		say_none(t, why);
		return NULL;
	}
	return types__read(t, f.dw, e);
}

/* Begins a session of libdwfl that searches below the folders of `path`, which must outlive it. */
static Dwfl *begin(char **path, Dwfl_Callbacks *callbacks)
{
	*callbacks = (Dwfl_Callbacks){.find_elf = no_elf,
				      .find_debuginfo = find_debuginfo,
				      .section_address = dwfl_offline_section_address,
				      .debuginfo_path = path};
	return dwfl_begin(callbacks);
}

static char *file_stamp(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return xasprintf("%s: gone", path);
	return xasprintf("%s: device %lx file %lu size %ld changed %ld.%09ld %ld.%09ld", path, st.st_dev, st.st_ino,
			 st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

char *types__stamp(const struct elf_file *e)
{
	FREE_CLEANUP char *path = xstrdup(DEBUG_FOLDER);
	Dwfl_Callbacks callbacks;
	Dwfl *dwfl = begin(&path, &callbacks);
	struct found f = {0};
	char *stamp = NULL;
	ERR_CLEANUP struct err *failed = dwfl ? look(dwfl, e, &f) : NULL;
	if (dwfl && !failed) {
		FREE_CLEANUP char *file = f.separate ? file_stamp(f.separate) : xstrdup(f.dw ? "in the file" : "none");
		stamp = xasprintf("%s%s%s%s", file, f.alt ? "; " : "", f.alt ? f.alt : "",
				  f.alt_missing ? " is missing" : "");
	}
	dwfl_end(dwfl);
	return stamp;
}

static void add_constant(const struct elf_file *e, const char *name, vaddr_t at, uint64_t size, constant_symbols *out)
{
	const struct elf_section *s = elf_file__section_at(e, at);
	if (!s || !s->data || (s->h.sh_flags & (SHF_WRITE | SHF_EXECINSTR)) || size == 0 ||
	    size > s->h.sh_size - (at - s->h.sh_addr))
		return;
	struct constant_symbol c = {xstrdup(name), at, size};
	vec__push(out, c);
}

/* Of a file whose addresses are those of `e`. */
static void read_symbols(Elf *elf, const struct elf_file *e, constant_symbols *out)
{
	for (Elf_Scn *s = NULL; (s = elf_nextscn(elf, s));) {
		GElf_Shdr h;
		Elf_Data *data = gelf_getshdr(s, &h) && h.sh_type == SHT_SYMTAB ? elf_getdata(s, NULL) : NULL;
		GElf_Sym sym;
		for (int i = 0; data && gelf_getsym(data, i, &sym); i++) {
			const char *name = elf_strptr(elf, h.sh_link, sym.st_name);
			if (name && GELF_ST_TYPE(sym.st_info) == STT_OBJECT && sym.st_shndx != SHN_UNDEF)
				add_constant(e, name, sym.st_value, sym.st_size, out);
		}
	}
}

/* By address; the longest of several that start alike first. */
static int by_place(const void *a, const void *b)
{
	const struct constant_symbol *x = a, *y = b;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	if (x->size != y->size)
		return x->size > y->size ? -1 : 1;
	return strcmp(x->name, y->name);
}

void types__constants(const struct elf_file *e, constant_symbols *out)
{
	FREE_CLEANUP char *path = xstrdup(DEBUG_FOLDER);
	Dwfl_Callbacks callbacks;
	Dwfl *dwfl = begin(&path, &callbacks);
	struct found f = {0};
	ERR_CLEANUP struct err *failed = dwfl ? look(dwfl, e, &f) : NULL;
	if (dwfl && !failed && f.separate && belongs(f.dw, e))
		read_symbols(dwarf_getelf(f.dw), e, out);
	dwfl_end(dwfl);
	for (size_t i = 0; i < e->locals.n; i++) {
		const struct elf_local *l = &e->locals.items[i];
		if (l->type == STT_OBJECT)
			add_constant(e, l->name, l->value, l->size, out);
	}
	if (out->n)
		qsort(out->items, out->n, sizeof(out->items[0]), by_place);
}

void constant_symbols__free(constant_symbols *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->items[i].name);
	vec__free(l);
}

struct err *types__find(const struct elf_file *e, const char *debug_root, struct types **out)
{
	FREE_CLEANUP char *root = debug_root ? realpath(debug_root, NULL) : NULL;
	*out = NULL;
	if (root && strchr(root, ':'))
		return err__new(ERR_USAGE, 0, root, NULL, "a directory of debug information has no ':' in its name");
	FREE_CLEANUP char *path = xasprintf("%s%s" DEBUG_FOLDER, root ? root : "", root ? ":" : "");
	Dwfl_Callbacks callbacks;
	Dwfl *dwfl = begin(&path, &callbacks);
	if (!dwfl)
		return err__new(ERR_SYSTEM, 0, e->path, NULL, "libdwfl: %s", dwfl_errmsg(-1));
	struct types *t = xcalloc(1, sizeof(*t));
	vec__push(&t->nodes, (struct type_node){.kind = TYPE_VOID});
	struct err *failed = find_in(dwfl, e, t);
	dwfl_end(dwfl);
	if (failed) {
		types__free(t);
		return failed;
	}
	*out = t;
	return NULL;
}
