/* Discover: which libraries that can be updated a process has loaded, what runs in them, and what file stands at
 * their path now. Read-only; no thread is stopped. */
#ifndef LLU_REMAP_DISCOVER_H
#define LLU_REMAP_DISCOVER_H

#include "image/image_file.h"
#include "inject/hand.h"

/* A library in a process: a split one, or a plain one (image/unprepared.h). */
struct loaded {
	taddr_t bias;          /* its load bias */
	uint64_t shift;        /* unprepared: how far its annex (annex.h) is from where a VAPI would be; else 0 */
	char *path;            /* as mapped, seen from the process */
	struct elf_file *vapi; /* the file that the process loaded; for a plain one the VAPI made of it, or, when none
				  can be made, the file itself */
	bool fresh;            /* its annex was made a moment ago, and nobody knows of it */
	char *no_vapi;         /* then: why */
	struct vapi_header header; /* read from the process; all zero before the first update */
	struct elf_file *live;     /* the build whose code runs; the same pointer as vapi before the first update */
	struct live_map map;       /* of live */
	char *now;                 /* the file that stands there now, as the tool can open it; NULL: none */
	struct elf_file *next;     /* that file read; NULL when there is none or it could not be read */
	char *unreadable;          /* why `next` could not be read, or NULL */
	struct err *untrusted;     /* why the process must not get code from there (trust.h), or NULL */
	bool outdated;             /* `next` is another build than `live` */
	bool stays;                /* a part of glibc that is not updated, which the others may do without (glibc.h) */
};

typedef VEC(struct loaded) loaded_list;

enum discover_what {
	DISCOVER_SPLIT,
	DISCOVER_PREPARED, /* and plain ones that have been updated, so that they have an annex */
	DISCOVER_ALL,      /* and plain ones that are outdated; others of them are nobody's concern */
};

/* The libraries of a process, split ones first, each kind in address order. The caller releases the list with
 * loaded_list__free(). A library whose VAPI is not as its file says is ERR_REFUSED. */
MUST_CHECK struct err *discover__libraries(const struct process *p, enum discover_what what, loaded_list *out);
/* The same as far as it can be said of a library in the middle of an update: path, bias, vapi and header; `live` is
 * `vapi`, whatever runs. What cannot be read is passed over, and *problem, which the caller releases, is the first
 * reason (else NULL). */
MUST_CHECK struct err *discover__vapis(const struct process *p, loaded_list *out, struct err **problem);
void loaded_list__free(loaded_list *l);

static inline taddr_t loaded__at(const struct loaded *l, vaddr_t vapi_space)
{
	return taddr(l->bias.v + vapi_space + (vapi_space >= l->vapi->vapi.end ? l->shift : 0));
}

/* The other way round; what is outside of the library and its VAPI is outside of theirs in VAPI space too. */
static inline vaddr_t loaded__from(const struct loaded *l, taddr_t a)
{
	uint64_t v = a.v - l->bias.v;
	return v < l->vapi->vapi.end ? v : v - l->shift;
}

/* Where the library is as it is in its file, without a VAPI. */
static inline struct trange loaded__own(const struct loaded *l)
{
	return (struct trange){l->bias, taddr(l->bias.v + l->vapi->vapi.end)};
}

/* The same for the end of a range. */
static inline vaddr_t loaded__from_end(const struct loaded *l, taddr_t a)
{
	return loaded__from(l, taddr(a.v - 1)) + 1;
}

/* Is it unprepared: loaded plain? */
static inline bool loaded__is_plain(const struct loaded *l)
{
	return l->vapi->plain || l->no_vapi;
}

/* Does the process have its VAPI, behind the library or as an annex? */
static inline bool loaded__has_vapi(const struct loaded *l)
{
	return !l->no_vapi && (!l->vapi->plain || l->shift);
}

/* Where the library's VAPI has room for a hand. */
static inline struct hand_place loaded__hand_place(const struct loaded *l)
{
	const struct vapi_note *v = &l->vapi->vapi;
	return (struct hand_place){loaded__at(l, v->text), loaded__at(l, v->scratch), v->scratch_len};
}

/* The image that runs, or NULL before the first update. */
const struct vapi_image *loaded__live_image(const struct loaded *l);

#endif
