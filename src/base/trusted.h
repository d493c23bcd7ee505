/* Files that decide something: used only when nobody but root, or the user who runs the tool, can have
 * written them. */
#ifndef LLU_BASE_TRUSTED_H
#define LLU_BASE_TRUSTED_H

#include "base/error.h"

/* Reads a file of at most `max` bytes whole; *len bytes and a zero byte behind them, which the caller
 * frees. It must be a regular file; it and every folder above it must belong to root or to the user who
 * runs the tool, and be writable to nobody else. Above the folder that it is in, a folder that others may
 * write to will do if it is sticky, as /tmp is. Symbolic links are not followed, anywhere in the path.
 * ERR_REFUSED says what is wrong; ERR_UNREADABLE that it cannot be read (err__errno(): ENOENT when there
 * is none). */
MUST_CHECK struct err *trusted__read(const char *path, size_t max, char **text, size_t *len);

/* Opens a file for writing that is made now, readable to all unless the umask says otherwise and writable to its owner,
 * whoever else may write to the folder it is in: what is there already is not written to, and symbolic links are not
 * followed at its end. A character device
 * (/dev/null) is opened as it is. -1 and errno (EEXIST when there is something else). */
int trusted__create(const char *path);

#endif
