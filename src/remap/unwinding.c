/* See unwinding.h. */
#include "remap/unwinding.h"

#include <string.h>
#include <unistd.h>

enum { NAMES_MAX = 1 << 16, SECTIONS_MAX = 4096 };

static bool read_at(int fd, void *to, size_t n, uint64_t at)
{
	return at <= INT64_MAX && pread(fd, to, n, (off_t)at) == (ssize_t)n;
}

/* Has the ELF file a section of that name? False, too, in *known when it cannot be told. */
static bool has_section(int fd, const char *name, bool *known)
{
	Elf64_Ehdr h;
	Elf64_Shdr names;
	*known = false;
	if (!read_at(fd, &h, sizeof(h), 0) || memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || !h.e_shnum ||
	    h.e_shnum > SECTIONS_MAX || h.e_shentsize != sizeof(Elf64_Shdr) || h.e_shstrndx >= h.e_shnum)
		return false;
	FREE_CLEANUP Elf64_Shdr *s = xcalloc(h.e_shnum, sizeof(*s));
	if (!read_at(fd, s, h.e_shnum * sizeof(*s), h.e_shoff))
		return false;
	names = s[h.e_shstrndx];
	if (names.sh_size == 0 || names.sh_size > NAMES_MAX)
		return false;
	FREE_CLEANUP char *text = xcalloc(names.sh_size + 1, 1);
	if (!read_at(fd, text, names.sh_size, names.sh_offset))
		return false;
	*known = true;
	for (size_t i = 0; i < h.e_shnum; i++)
		if (s[i].sh_name < names.sh_size && strcmp(text + s[i].sh_name, name) == 0)
			return true;
	return false;
}

static bool is_c_library(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	return strncmp(name, "libc.so", 7) == 0 || strncmp(name, "libc-2.", 7) == 0 ||
	       strncmp(name, "libpthread", 10) == 0 || strncmp(name, "ld-linux", 8) == 0;
}

struct err *unwinding__check(const struct process *p, const struct linkmap *map)
{
	for (size_t i = 0; i < linkmap__count(map); i++) {
		const struct mapping *m = linkmap__object(map, i).mapping;
		CLOSE_CLEANUP int fd = -1;
		bool known;
		if (!m || !m->inode || is_c_library(m->path))
			continue;
		TRY(process__open_mapped(p, m, &fd));
		bool has = has_section(fd, ".gcc_except_table", &known);
		if (has || !known)
			return err__new(ERR_REFUSED, 0, m->path, "restart the process to run the new build",
					has ? "it catches exceptions or cleans up behind them, and those could not pass "
					      "through new code of a library that is not split"
					    : "it cannot be told whether it catches exceptions");
	}
	return NULL;
}
