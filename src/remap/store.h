/* What outlives the tool as files: relinked images, so that processes share their pages, and plans.
 * They are in /var/cache/llu for root, in $XDG_CACHE_HOME/llu (or ~/.cache/llu) for others. Any file may be
 * removed at any time: processes that run an image keep it. The folder is held below 256 MiB, by what was used
 * longest ago. It must belong to the caller and be writable to nobody else, and so must each file. */
#ifndef LLU_REMAP_STORE_H
#define LLU_REMAP_STORE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct stored {
	char *path;
	dev_t dev;
	ino_t ino;
};

/* Stores an image under a name made from `name` and its contents; what is there already with the
 * same contents is used. The folder must belong to the caller and be writable to nobody else
 * (ERR_REFUSED). The caller frees out->path. */
MUST_CHECK struct err *store__put(const char *name, const void *data, size_t size, struct stored *out);

/* Opens the image if it still is what was stored. The caller closes the fd. */
MUST_CHECK struct err *store__open(const struct stored *s, int *fd);

/* Keeps bytes, for the caller's eyes alone, under a name; what has it already is replaced at once and as a
 * whole. `where` is a folder, NULL: the usual one, as everywhere. */
MUST_CHECK struct err *store__keep(const char *where, const char *name, const void *data, size_t size);
/* Removes what tools that died while they wrote it have left; how many files. */
size_t store__clear_temporaries(void);
/* Fetches what was kept, at most `max` bytes; the caller frees it. An error where there is none, or it is not to
 * be trusted. Makes no folder. */
MUST_CHECK struct err *store__fetch(const char *where, const char *name, size_t max, uint8_t **data, size_t *size);

#endif
