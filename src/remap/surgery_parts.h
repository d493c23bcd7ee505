/* Shared by the files of the surgery (surgery.c, surgery_room.c, surgery_pages.c, exchange.c); not for others.
 *
 * Where things lie in the window while an update is under way (VAPI space):
 *
 *     base                         image: next's code and constants, mapped from the store
 *     base + plan->got_at          its own GOT, if it has one: private, read-only once filled
 *     base + plan->own_at          its own data, if it has any: the same
 *     shadow_at                    shadow pages, one after the other; gone after the commit
 *     shadow_at + shadow_len       end of what this update takes
 */
#ifndef LLU_REMAP_SURGERY_PARTS_H
#define LLU_REMAP_SURGERY_PARTS_H

#include "remap/bring.h"
#include "remap/surgery.h"

/* Pages with new contents, to be moved to `to`. */
struct shadow {
	vaddr_t to, at; /* VAPI space */
	uint64_t len;
	bool writable;
	bool exec; /* code, mapped from the image's file at `offset` */
	uint64_t offset;
	bool moved;                /* by an exchange that stopped: there may be a hole at `at` */
	uint8_t *content, *before; /* len bytes each */
};

struct surgery {
	const struct process *p;
	const struct loaded *l;
	const struct plan *plan;
	struct mappings maps;                 /* when the pages were read that are replaced */
	VEC(const struct mapping *) replaced; /* those of the loaded library that hold some of these pages */
	const taddr_t *imports;               /* imports.h */
	vaddr_t base;
	bool mapped;    /* the image is there already: an older one that is still mapped, or vapi's own */
	bool code_only; /* of that image only the code is missing, which was retired (retire.h) */
	bool claimed;   /* the header names this tool as its owner */
	bool begun;     /* something may have been mapped */
	uint32_t entry; /* of the header: images[entry]; or UINT32_MAX for vapi's own code */
	uint8_t *bytes; /* the image file */
	size_t bytes_len;
	struct stored stored;
	bool shared;
	uint64_t *got, *own; /* words of the image's own GOT and data */
	uint64_t *table;     /* what each slot will hold */
	vaddr_t shadow_at;
	uint64_t shadow_len;
	VEC(struct shadow) shadows;   /* in the order of commit: ..., table, header */
	struct vapi_header header;    /* what it will be */
	struct vapi_header announced; /* what it is from the claim on, when nobody else writes to it */
	uint32_t announced_at;        /* the entry that says PREPARING */
	VEC(struct vrange) leftovers; /* of an earlier update that did not come to its end */
};

static inline taddr_t surgery__at(const struct surgery *s, vaddr_t a)
{
	return loaded__at(s->l, a);
}

/* ERR_REFUSED about the library of `s`. */
struct err *surgery__refuse(const struct surgery *s, const char *why) __attribute__((returns_nonnull));

/* surgery_room.c: chooses where the image and the shadow pages go (base, mapped, entry, shadow_at), and fills the
 * shadows. ERR_REFUSED when there is no room. */
MUST_CHECK struct err *surgery__lay_out(struct surgery *s, const struct mappings *maps);

/* surgery_pages.c: the image's own GOT and data as they are to be at `base`. */
MUST_CHECK struct err *surgery__fill_got(struct surgery *s);
/* What each slot will hold, and the shadow pages with their contents; `base` and `entry` are settled. */
MUST_CHECK struct err *surgery__fill_pages(struct surgery *s);
/* Pages of vapi that are read-only after relocation, and nothing else. */
struct vrange surgery__relro_pages(const struct elf_file *vapi);
/* The contents of shadows with code, once there is the image's file. */
void surgery__fill_entries(struct surgery *s);
/* An upper bound of what the shadow pages take, in bytes. */
uint64_t surgery__pages_bound(const struct surgery *s);

#endif
