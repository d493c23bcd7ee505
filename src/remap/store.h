/* Where relinked images are kept as files, so that processes share their pages: /var/cache/llu for
 * root, $XDG_CACHE_HOME/llu (or ~/.cache/llu) for others. A file that was mapped may be removed at
 * any time: the processes that run it keep it. The folder is held below 256 MiB. */
#ifndef LLU_REMAP_STORE_H
#define LLU_REMAP_STORE_H

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

#endif
