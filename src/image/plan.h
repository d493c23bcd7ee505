/* The plan: may this build take over from that one, and what must be done. Offline: files in; a
 * relinked image, or every reason against it, out.
 *
 * Three files take part:
 *
 *     vapi    the split library that the process loaded: its VAPI and its data stay for good
 *     live    the build whose code runs now; the same file until the first update
 *     next    the build that is to take over; split or plain
 *
 * "VAPI space" means addresses relative to the load bias of the library in the process: the vapi
 * file's own addresses, and images at their place in the window. An address v of `next` is
 * base + v there, `base` being where its image goes.
 */
#ifndef LLU_IMAGE_PLAN_H
#define LLU_IMAGE_PLAN_H

#include "image/match.h"
#include "image/split.h"
#include "image/unwind_table.h"

/* Of a slot: its function is not in the build, an older image that has it stays mapped for it. */
#define SLOT_HELD UINT64_MAX

/* An object of a build's static data and where it lives, where section and offset do not say. */
struct piece {
	vaddr_t at; /* in the build's file */
	uint64_t len;
	vaddr_t home; /* VAPI space */
};

/* In a plan, an address in VAPI space of HOME_OWN or more is an offset into the image's own data. */
#define HOME_OWN (1ULL << 62)

/* Unprepared (unprepared.h): a function of vapi's own code whose entry is to jump to one of an image. */
struct entry_jump {
	vaddr_t entry; /* where the jump goes, in vapi */
	vaddr_t to;    /* in the file of the image's build */
};

/* Where things of the live build are, beyond what its file says. All empty for vapi's own code. */
struct live_map {
	vaddr_t base;   /* of the live image in VAPI space; 0 for vapi's own code */
	vaddr_t *slots; /* per slot: live's function (an address of its file), 0 for a spare one, SLOT_HELD;
			   NULL: as the VAPI says */
	size_t n_slots;
	struct held_slot {
		uint32_t slot;
		vaddr_t function; /* an address of the file of the build that brought it */
		uint8_t build_id[VAPI_BUILD_ID_MAX];
		uint32_t build_id_len;
	} * held; /* what is known of the slots that are SLOT_HELD */
	size_t n_held;
	struct live_const {
		vaddr_t at;   /* a constant's address in live's file */
		vaddr_t home; /* in VAPI space: where its identity is */
	} * consts;           /* sorted by `at` */
	size_t n_consts;
	struct piece *pieces; /* sorted by `at`; a section that has any has all of its objects here */
	size_t n_pieces;
	vaddr_t *leads_to; /* VAPI space, where each relative value leads that was patched; up to 4 bytes further where
			      an immediate stands behind it */
	size_t n_leads_to;
	struct past_image {
		uint8_t build_id[VAPI_BUILD_ID_MAX];
		uint32_t build_id_len;
		struct piece *pieces; /* its objects that lie behind it */
		size_t n_pieces;
	} * past; /* older images, still mapped, that have objects of their own */
	size_t n_past;
	uint64_t shift;           /* unprepared: of the annex for which the image was made */
	struct entry_jump *jumps; /* unprepared: to live's functions; in address order */
	size_t n_jumps;
};
void live_map__free(struct live_map *m);

/* Why an update is refused. `code` is stable, for pipelines; `text` is a sentence. */
struct reason {
	const char *code;
	char *text;
};

/* A 4-byte relative value of next that must lead to a fixed place of VAPI space. */
struct patch {
	vaddr_t site; /* in next's file */
	vaddr_t from; /* what the value is relative to, in next's file */
	vaddr_t to;   /* VAPI space or own data; for own_got, an offset into the image's own GOT */
	bool own_got;
};

/* A GOT slot of the image's own, for what vapi's GOT lacks, or a word of its own data. They lie behind the image. */
struct new_got {
	enum { NEW_GOT_SYMBOL, NEW_GOT_VALUE, NEW_GOT_TPOFF } kind;
	const char *name, *version; /* NEW_GOT_SYMBOL: what to look up in the library's scope */
	bool weak;
	uint64_t value; /* NEW_GOT_VALUE, the offset for NEW_GOT_TPOFF, or what is added to the symbol */
	bool relative;  /* the value is an address in VAPI space or own data, or, when `in_image`, of next's file */
	bool in_image;
};

/* A word of read-only data and what it is to hold: an address in VAPI space, or in next's image, or no address. */
struct relro_word {
	vaddr_t where; /* VAPI space */
	vaddr_t value;
	bool in_image; /* value is an address of next's file */
	uint8_t plain; /* so many bytes of `value` are written as they are; 0: it is an address */
};

/* What is known of the layout of objects in the heap (gate.h). */
enum layout_verdict {
	LAYOUT_NOT_JUDGED, /* the plan was refused before */
	LAYOUT_PROVED,     /* by debug information of both builds */
	LAYOUT_NO_SIGN,    /* no sign of change in the code of both builds */
	LAYOUT_UNCLEAR,    /* cannot be told */
	LAYOUT_CHANGED,
	LAYOUT_OVERRULED, /* unclear or changed, and the administrator answers for it (overrule.h) */
};

/* A function of live, and what takes over from it. */
struct succession {
	vaddr_t start, end; /* in live's file */
	vaddr_t next;       /* in next's file; 0: nothing does */
	uint64_t identical; /* 1: who is in the middle of it may go on at the same offset in `next` (succession.c) */
};

/* Where a call in a function of live returns to, which has changed, and where the same is left to do in next (tail.h).
 */
struct tail_return {
	vaddr_t at, next; /* in live's file, in next's */
};

struct plan_counts {
	size_t identical, changed, added, removed; /* functions, by their instructions */
	size_t rebound;                            /* references */
	size_t kept_constants;
	size_t new_exports;
};

/* A private import (contract.h) that code uses; of data also an offset at which it may read. */
struct private_use {
	const char *name;
	uint64_t at;
};

struct plan {
	const struct elf_file *vapi, *live, *next; /* borrowed */
	VEC(struct reason) refusals;               /* empty: fit */
	enum layout_verdict layout;
	VEC(char *) remarks; /* what an administrator may want to know */
	VEC(struct patch) patches;
	VEC(struct new_got) new_got;
	VEC(struct relro_word) words;
	VEC(struct new_got) own_words; /* objects of next that no older build has: read-only, behind the image */
	VEC(struct piece) pieces;      /* next's objects, of sections that are laid out otherwise than vapi's */
	VEC(struct live_const) consts; /* next's constants that live on at an older home */
	vaddr_t *slots;     /* per slot of the VAPI: next's function; 0: unused. For an IFUNC slot, its resolver */
	unwind_rows unwind; /* of next, addresses of its file */
	VEC(struct succession) functions; /* all of live's, in address order */
	VEC(struct tail_return) returns;  /* in address order */
	VEC(struct entry_jump) jumps;     /* unprepared: in address order */
	uint64_t n_moved;                 /* unprepared: how many functions move */
	vrange_list leaves;               /* unprepared: vapi's own code that no thread may be in; in address order */
	VEC(struct private_use) private_uses; /* what code that changed uses of other libraries (contract.h) */
	VEC(const char *) private_gives;      /* live's private exports that changed; unprepared: vapi's that move */
	bool entangled;     /* old code that is left would not do beside new functions (unprepared.h), or on the objects
			       that it left on its stack: nobody may be parked in it */
	VEC(vaddr_t) pages; /* unprepared: vapi's pages with code that changes, where jumps come or go */
	uint64_t image_len; /* bytes of address space that the image takes, whole pages, own GOT and data included */
	uint64_t got_at;    /* offset of the image's own GOT; 0 when it has none */
	uint64_t own_at;    /* offset of the image's own data; 0 when it has none */
	struct plan_counts counts;
	char *overrule;      /* what the overrule file had to say to this plan, or NULL */
	bool not_to_keep;    /* something could not be read that may be readable another time */
	VEC(char *) kept;    /* of a plan read back (plan_file.h): what names and codes point to */
	struct match *match; /* with the next two, tools of its making: NULL once it is made */
	struct code *live_code, *next_code;
};

/* Makes a plan. `live` may be the same as `vapi`, with `map` NULL. `vapi` must be split. Refusals are
 * data, not errors; an error means that no plan could be made at all. The files must outlive the
 * plan; the caller frees it with plan__free(). */
MUST_CHECK struct err *plan__make(const struct elf_file *vapi, const struct elf_file *live, const struct live_map *map,
				  const struct elf_file *next, struct plan **out);
/* Refuses a plan whose layout of heap objects is not proved, for those who want no less. */
void plan__require_proof(struct plan *p);
/* The canonical stub, in VAPI space, of a function of next. A function that has none yet takes a spare slot, and keeps
 * it for as long as the process lives. 0: no spare slot is left. Also for a finished plan, before its image is made. */
vaddr_t plan__stub(struct plan *p, vaddr_t function);
void plan__free(struct plan *p);
void plan__cleanup(struct plan **p);

/* An address of VAPI space for an image at `base`: settles what is HOME_OWN or more. */
vaddr_t plan__place(const struct plan *p, vaddr_t base, vaddr_t home);

/* The function of next that takes over from live's function at `function` (an address of live's
 * file, inside the function too: then the function that holds it); 0 if none. */
vaddr_t plan__successor(const struct plan *p, vaddr_t function);

#endif
