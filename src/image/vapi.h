/* The VAPI as it lies in a split library: what the split writes and every later stage reads.
 *
 * A split library is the finished library with this appended (addresses grow downwards in the
 * drawing; everything above the first line is the library as it was):
 *
 *     IN's own segments        code, constants, data: same addresses as before
 *     ------------------------ page
 *     R    .note.llu           struct vapi_note, found through its own PT_NOTE
 *          moved sections      what had to make room for more program headers (.gnu.hash, ...)
 *          .rela.dyn           IN's, and one relocation for each slot
 *          .llu.slots          struct vapi_slot, one for each slot
 *          .llu.eh_frame       unwind entries of stubs and pads
 *          .llu.eh_frame_hdr   page-aligned; PT_GNU_EH_FRAME points here; room to grow
 *     ------------------------ page
 *     RX   .llu.text           pads, stubs (slot order), lazy head and lazy stubs, IFUNC returns
 *     ------------------------ page
 *     RW   .llu.table          one code address for each slot; read-only after DT_INIT
 *          .llu.header         struct vapi_header, a page of its own
 *          .llu.scratch        no bytes in the file: stack and data of the hand, record of the parking pad
 *     ------------------------ page
 *     ---  window              no bytes in the file, no permissions: where new images are mapped
 *
 * All integers are little-endian; all addresses are virtual addresses of the ELF file (before the
 * load bias) unless said otherwise.
 */
#ifndef LLU_IMAGE_VAPI_H
#define LLU_IMAGE_VAPI_H

#include "arch/code.h"
#include "base/types.h"

#define VAPI_NOTE_NAME "LLU"
enum { VAPI_NOTE_TYPE = 1, VAPI_VERSION = 3, VAPI_SCRATCH_SIZE = 64 * 1024 };

struct vapi_note {
	uint32_t version; /* VAPI_VERSION */
	uint32_t n_slots; /* used and spare */
	uint32_t n_used;  /* slots that have a function; the rest is for functions of later builds */
	uint32_t n_lazy;  /* lazy stubs, one for each JUMP_SLOT, or 0 */
	vaddr_t end;      /* where IN's own address space ended, page-aligned: R starts here */
	vaddr_t text, stubs, lazy_head, ifunc_returns, text_end;
	vaddr_t slots;
	vaddr_t table;
	uint64_t table_len; /* bytes, whole pages */
	vaddr_t header;
	vaddr_t scratch;
	uint64_t scratch_len;
	vaddr_t window;
	uint64_t window_len;
	vaddr_t eh_frame_hdr;      /* 0 when IN has no unwind table */
	uint64_t eh_frame_hdr_cap; /* bytes, whole pages */
	vaddr_t trampoline; /* IN's code that signal handlers return to, for which ARCH_PAD_SIGRETURN stands; or 0 */
};

enum vapi_slot_flags {
	VAPI_SLOT_EXPORT = 1, /* name and version say which symbol */
	VAPI_SLOT_IFUNC = 2,  /* `function` is an IFUNC resolver; the slot holds what it chose */
	VAPI_SLOT_SPARE = 4,  /* no function yet */
};

struct vapi_slot {
	vaddr_t function; /* IN's function behind the stub */
	uint32_t symbol;  /* index into .dynsym for an export, else 0 */
	uint32_t flags;
};

static inline vaddr_t vapi__stub(const struct vapi_note *v, size_t slot)
{
	return v->stubs + slot * ARCH_STUB_SIZE;
}

static inline vaddr_t vapi__table_slot(const struct vapi_note *v, size_t slot)
{
	return v->table + slot * 8;
}

/* The header, in the target's memory; all zero in the file. `live` is the only word that decides:
 * 0 means IN's own code, n means image[n - 1]. An image entry is complete before `live` names it. */
#define VAPI_HEADER_MAGIC 0x325245444548554cULL /* "LUHEDER2" */
enum { VAPI_IMAGES_MAX = 24, VAPI_BUILD_ID_MAX = 32 };

enum vapi_image_state {
	VAPI_IMAGE_FREE = 0,
	VAPI_IMAGE_PREPARING = 1, /* being mapped, or being unmapped; nothing refers to it */
	VAPI_IMAGE_MAPPED = 2,    /* in place: live, or older and still mapped */
	VAPI_IMAGE_CONSTANTS = 3, /* older: nothing leads into its code, which is gone or about to go; constants stay */
};

/* What became of IN's own code. */
enum vapi_own_code {
	VAPI_OWN_MAPPED = 0,
	VAPI_OWN_RETIRED = 1, /* nothing leads there; its pages are gone or about to go */
};

struct vapi_image {
	uint32_t state; /* enum vapi_image_state */
	uint32_t build_id_len;
	uint8_t build_id[VAPI_BUILD_ID_MAX]; /* of the build that it was made from */
	vaddr_t base;                        /* in the window */
	uint64_t len;                        /* bytes reserved for it, whole pages */
};

/* Is at least a part of it in place, to be kept? */
static inline bool vapi_image__is_there(const struct vapi_image *i)
{
	return i->state == VAPI_IMAGE_MAPPED || i->state == VAPI_IMAGE_CONSTANTS;
}

struct vapi_header {
	uint64_t magic; /* VAPI_HEADER_MAGIC once a tool has been here, 0 before */
	uint64_t live;
	uint64_t generation; /* number of committed updates */
	struct vapi_image image[VAPI_IMAGES_MAX];
	uint32_t own_code;    /* enum vapi_own_code */
	uint32_t owner;       /* the tool that prepares an update now: its PID, 0: none */
	uint64_t owner_start; /* its start time, field 22 of /proc/PID/stat */
	uint64_t library;     /* of an annex (remap/annex.h): the load bias of its library; else 0 */
	uint64_t owner_pidns; /* and the PID namespace in which it has that PID: the inode of its /proc/PID/ns/pid */
};

_Static_assert(sizeof(struct vapi_header) <= LLU_PAGE, "the header has one page");

#endif
