/* See build.h. */
#include "machine/build.h"

#include <elf.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

enum { PHDRS_MAX = 256, NOTES_MAX = 64 << 10, ID_MAX = 64, CHUNK = 64 << 10 };
/* A larger file without a build-id is not compared. */
#define COMPARED_MAX ((off_t)256 << 20)

struct build_id {
	size_t len; /* 0: there is none */
	uint8_t bytes[ID_MAX];
};

/* What is needed of a program header, of both classes. */
struct segment {
	uint32_t type;
	uint64_t offset, size, align;
};

static bool read_all(int fd, void *to, size_t len, uint64_t at)
{
	return at <= INT64_MAX - len && pread(fd, to, len, (off_t)at) == (ssize_t)len;
}

static size_t padded(size_t n, size_t align)
{
	return (n + align - 1) & ~(align - 1);
}

/* Finds the build-id in one segment of notes (gABI, "Note Section"). */
static bool find_note(const uint8_t *notes, size_t len, size_t align, struct build_id *out)
{
	Elf64_Nhdr n; /* the same in both classes */
	for (size_t at = 0; len - at >= sizeof(n);) {
		memcpy(&n, notes + at, sizeof(n));
		at += sizeof(n);
		if (n.n_namesz > len - at || padded(n.n_namesz, align) > len - at)
			return false;
		const uint8_t *name = notes + at;
		at += padded(n.n_namesz, align);
		if (n.n_descsz > len - at)
			return false;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && memcmp(name, "GNU", 4) == 0 && n.n_descsz &&
		    n.n_descsz <= ID_MAX) {
			out->len = n.n_descsz;
			memcpy(out->bytes, notes + at, n.n_descsz);
			return true;
		}
		if (padded(n.n_descsz, align) > len - at)
			return false;
		at += padded(n.n_descsz, align);
	}
	return false;
}

static struct segment segment_at(const uint8_t *phdr, bool is_64)
{
	Elf64_Phdr l;
	Elf32_Phdr s;
	if (is_64) {
		memcpy(&l, phdr, sizeof(l));
		return (struct segment){l.p_type, l.p_offset, l.p_filesz, l.p_align};
	}
	memcpy(&s, phdr, sizeof(s));
	return (struct segment){s.p_type, s.p_offset, s.p_filesz, s.p_align};
}

static void read_build_id(int fd, struct build_id *out)
{
	union {
		unsigned char ident[EI_NIDENT];
		Elf64_Ehdr l;
		Elf32_Ehdr s;
	} h;
	out->len = 0;
	if (!read_all(fd, &h.s, sizeof(h.s), 0) || memcmp(h.ident, ELFMAG, SELFMAG) != 0)
		return;
	bool is_64 = h.ident[EI_CLASS] == ELFCLASS64;
	if (is_64 && !read_all(fd, &h.l, sizeof(h.l), 0))
		return;
	size_t n = is_64 ? h.l.e_phnum : h.s.e_phnum, size = is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	if (n > PHDRS_MAX || (is_64 ? h.l.e_phentsize : h.s.e_phentsize) != size)
		return;
	FREE_CLEANUP uint8_t *phdrs = xmalloc(n * size + 1), *notes = xmalloc(NOTES_MAX);
	if (!read_all(fd, phdrs, n * size, is_64 ? h.l.e_phoff : h.s.e_phoff))
		return;
	for (size_t i = 0; i < n; i++) {
		struct segment s = segment_at(phdrs + i * size, is_64);
		if (s.type == PT_NOTE && s.size <= NOTES_MAX && read_all(fd, notes, s.size, s.offset) &&
		    find_note(notes, s.size, s.align == 8 ? 8 : 4, out))
			return;
	}
}

static bool same_bytes(int a, int b)
{
	struct stat one, other;
	if (fstat(a, &one) < 0 || fstat(b, &other) < 0 || one.st_size != other.st_size || one.st_size > COMPARED_MAX)
		return false;
	FREE_CLEANUP uint8_t *p = xmalloc(CHUNK), *q = xmalloc(CHUNK);
	for (off_t at = 0; at < one.st_size;) {
		size_t n = one.st_size - at < CHUNK ? (size_t)(one.st_size - at) : CHUNK;
		if (!read_all(a, p, n, (uint64_t)at) || !read_all(b, q, n, (uint64_t)at) || memcmp(p, q, n) != 0)
			return false;
		at += (off_t)n;
	}
	return true;
}

bool build__same(int a, int b)
{
	struct build_id one, other;
	read_build_id(a, &one);
	read_build_id(b, &other);
	if (one.len && other.len)
		return one.len == other.len && memcmp(one.bytes, other.bytes, one.len) == 0;
	return same_bytes(a, b);
}
