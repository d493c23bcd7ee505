/* Finding the debug information of a build with libdwfl (see types.h). */
#include <elfutils/libdwelf.h>
#include <elfutils/libdwfl.h>
#include <stdlib.h>
#include <string.h>

#include "image/types_read.h"

static int no_elf(Dwfl_Module *mod, void **userdata, const char *name, Dwarf_Addr base, char **file, Elf **elf)
{
	(void)mod, (void)userdata, (void)name, (void)base, (void)file, (void)elf;
	return -1;
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

static struct err *find_in(Dwfl *dwfl, const struct elf_file *e, struct types *t)
{
	/* libelf only reads it; the interface has no const. */
	Dwfl_Module *mod = dwfl_report_offline_memory(dwfl, "library", e->path, (char *)e->data, e->size);
	Dwarf_Addr bias = 0;
	const char *main_file = NULL, *debug_file = NULL, *alt = NULL;
	const void *alt_id = NULL;
	if (!mod || dwfl_report_end(dwfl, NULL, NULL) != 0)
		return err__new(ERR_UNREADABLE, 0, e->path, NULL, "libdwfl: %s", dwfl_errmsg(-1));
	Dwarf *dw = dwfl_module_getdwarf(mod, &bias);
	const char *message = dw ? NULL : dwfl_errmsg(-1);
	dwfl_module_info(mod, NULL, NULL, NULL, NULL, NULL, &main_file, &debug_file);
	if (!dw && (debug_file || elf_file__section(e, ".debug_info")))
		return err__new(ERR_UNREADABLE, 0, debug_file ? debug_file : e->path, NULL,
				"damaged debug information: %s", message);
	if (!dw) {
		say_none(t, "no debug information in the file, and none was found for its build-id");
		return NULL;
	}
	bool separate = debug_file && (!main_file || strcmp(debug_file, main_file) != 0);
	t->source = xstrdup(separate ? debug_file : e->path);
	if (separate && !belongs(dw, e)) {
		say_none(t, "the file that was found is of another build");
		return NULL;
	}
	if (dwelf_dwarf_gnu_debugaltlink(dw, &alt, &alt_id) > 0 && !dwarf_getalt(dw)) {
		FREE_CLEANUP char *why = xasprintf("%s: its supplementary file %s is missing", t->source, alt);
		say_none(t, why);
		return NULL;
	}
	return types__read(t, dw, e);
}

struct err *types__find(const struct elf_file *e, const char *debug_root, struct types **out)
{
	FREE_CLEANUP char *root = debug_root ? realpath(debug_root, NULL) : NULL;
	*out = NULL;
	if (root && strchr(root, ':'))
		return err__new(ERR_USAGE, 0, root, NULL, "a directory of debug information has no ':' in its name");
	/* not beside the library: that may be the directory of a hostile process, and a FIFO there would block us */
	FREE_CLEANUP char *path = xasprintf("%s%s/usr/lib/debug", root ? root : "", root ? ":" : "");
	const Dwfl_Callbacks callbacks = {.find_elf = no_elf,
					  .find_debuginfo = dwfl_standard_find_debuginfo,
					  .section_address = dwfl_offline_section_address,
					  .debuginfo_path = &path};
	Dwfl *dwfl = dwfl_begin(&callbacks);
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
