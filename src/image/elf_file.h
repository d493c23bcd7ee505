/* An ELF shared library (or a dynamic program), read whole and checked.
 *
 * Every offset, size and index of the file is hostile until checked here; what this header offers
 * afterwards may be used without further checks. Supported: ELFCLASS64, little-endian, EM_X86_64,
 * ET_DYN or ET_EXEC, with section headers (gABI 4.1, chapters 4 and 5). Anything else is an error that says so.
 */
#ifndef LLU_IMAGE_ELF_FILE_H
#define LLU_IMAGE_ELF_FILE_H

#include <elf.h>

#include "base/error.h"
#include "base/types.h"
#include "base/vec.h"
#include "image/vapi.h"

struct elf_section {
	const char *name;
	Elf64_Shdr h;
	const uint8_t *data; /* h.sh_size bytes in our memory; NULL for SHT_NOBITS and empty sections */
};

/* An entry of .dynsym. */
struct elf_symbol {
	const char *name;
	const char *version; /* "" when unversioned; of the definition or of the need */
	bool hidden_version; /* a non-default version (name@VERSION) */
	Elf64_Sym s;
	vaddr_t function; /* for a defined function: the Implementation's address, never a stub */
};

enum elf_reloc_table { ELF_RELA, ELF_RELR, ELF_JMPREL };

struct elf_reloc {
	vaddr_t where;
	uint32_t type;
	uint32_t symbol; /* index into .dynsym */
	int64_t addend;  /* for ELF_RELR: the word in place */
	enum elf_reloc_table table;
	uint32_t index; /* position in its table */
};

/* A named function of .symtab, if the file has one. */
struct elf_local {
	const char *name;
	vaddr_t value;
	uint64_t size;
	uint8_t type, bind;
};

struct elf_file {
	char *path; /* for messages */
	uint8_t *data;
	size_t size;
	Elf64_Ehdr ehdr;
	Elf64_Phdr *phdrs;
	size_t n_phdrs;
	struct elf_section *sections;
	size_t n_sections;
	struct elf_symbol *symbols;
	size_t n_symbols;
	VEC(struct elf_local) locals;
	VEC(struct elf_reloc) relocs; /* in address order */
	VEC(const char *) needed;
	const char *soname; /* "" when there is none */
	Elf64_Dyn *dyn;     /* up to and with DT_NULL */
	size_t n_dyn;       /* without it */
	vaddr_t dyn_addr;
	size_t dyn_room; /* unused entries behind DT_NULL */
	uint8_t build_id[VAPI_BUILD_ID_MAX];
	uint32_t build_id_len;  /* 0: none */
	bool program;           /* a program, not a library */
	struct elf_file *plain; /* the plain library of whose process this is the VAPI (unprepared.h), or NULL; owned */
	bool split;             /* has a VAPI; then: */
	struct vapi_note vapi;
	const struct vapi_slot *slots; /* vapi.n_slots of them, in our memory */
	/* What elf_file__copy() made shares everything but `path` and `plain` with its origin, which stays until the
	 * last of them is freed. */
	struct elf_file *origin; /* NULL: it is none */
	unsigned copies;         /* of this one, that are there */
	bool apart;              /* `data` is a mapping of its own */
	struct elf_digest *digest;
};

/* Reads from an open file; `path` is for messages only. The caller frees it with elf_file__free(). */
MUST_CHECK struct err *elf_file__read_fd(int fd, const char *path, struct elf_file **out);
/* The same; the bytes are put where fork(2) has nothing to copy, and nobody can write. */
MUST_CHECK struct err *elf_file__read_apart(int fd, const char *path, struct elf_file **out);
MUST_CHECK struct err *elf_file__read(const char *path, struct elf_file **out);
/* From memory; the bytes are copied. */
MUST_CHECK struct err *elf_file__read_memory(const void *data, size_t size, const char *path, struct elf_file **out);
/* The same file once more, for messages at `path`; the caller frees it with elf_file__free(), as the origin. */
struct elf_file *elf_file__copy(struct elf_file *origin, const char *path);
void elf_file__free(struct elf_file *e);

enum { ELF_DIGEST_LEN = 32 };
/* SHA-256 of the file's bytes, worked out once. */
const uint8_t *elf_file__digest(const struct elf_file *e);

/* The `len` bytes at an address as the file holds them, or NULL when not all are in the file. */
const uint8_t *elf_file__at(const struct elf_file *e, vaddr_t a, size_t len);
/* The file offset of the `len` bytes at an address; false when not all are in the file. */
bool elf_file__offset(const struct elf_file *e, vaddr_t a, size_t len, uint64_t *offset);
/* Dynamic entry with this tag, or NULL. */
const Elf64_Dyn *elf_file__dyn(const struct elf_file *e, int64_t tag);
/* The PT_LOAD of the library itself (never of an appended VAPI) that holds `a`, or NULL. */
const Elf64_Phdr *elf_file__segment(const struct elf_file *e, vaddr_t a);
/* Is `a` in an executable, in a writable segment of the library itself? */
bool elf_file__is_code(const struct elf_file *e, vaddr_t a);
bool elf_file__is_data(const struct elf_file *e, vaddr_t a);
/* The allocated, non-TLS section that holds `a`, or NULL; .tbss takes no address space. */
const struct elf_section *elf_file__section_at(const struct elf_file *e, vaddr_t a);
const struct elf_section *elf_file__section(const struct elf_file *e, const char *name);
/* Where the library's own address space ends, page-aligned (the VAPI not included). */
vaddr_t elf_file__end(const struct elf_file *e);
/* The function behind a stub (for an IFUNC, its resolver), or behind the pad that signal handlers return to; any other
 * address unchanged. */
vaddr_t elf_file__behind_stub(const struct elf_file *e, vaddr_t a);
/* The function that runs when the library is run as a program; 0: it cannot be. (Linkers of old wrote the start of
 * .text into e_entry of every library.) */
vaddr_t elf_file__entry(const struct elf_file *e);
/* The one address by which the function of a slot of a VAPI is known: its stub, or in a plain library its own. */
vaddr_t elf_file__canonical(const struct elf_file *vapi, uint32_t slot);
/* The slot of a split library whose stub is at `a`, or NULL. */
const struct vapi_slot *elf_file__slot_at(const struct elf_file *e, vaddr_t a);
/* The relocation of the word at `where`, or NULL. */
const struct elf_reloc *elf_file__reloc_at(const struct elf_file *e, vaddr_t where);
/* Does the dynamic loader bind all imports at load time (DF_BIND_NOW, DF_1_NOW, DT_BIND_NOW)? */
bool elf_file__binds_now(const struct elf_file *e);
/* The build-id in hex, or "none"; the caller frees it. */
char *elf_file__build_id(const struct elf_file *e);
bool build_id__equal(const uint8_t *a, uint32_t a_len, const uint8_t *b, uint32_t b_len);
char *build_id__hex(const uint8_t *id, uint32_t len);

void elf_file__cleanup(struct elf_file **e);
#define ELF_CLEANUP __attribute__((cleanup(elf_file__cleanup)))

#endif
