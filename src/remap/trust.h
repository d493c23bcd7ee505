/* The new file of a library, and who could put another one there.
 *
 * A process must never get code from a path that somebody can change who has less rights than the process: that would
 * hand over its rights. The rule: the file, and every folder and symbolic link on the way to it, belongs to root, or to
 * the process's own user where the process has no more rights than that user (inject/rights.h), and nobody else may
 * write to it.
 *
 * - root is also who is root in the process's user namespace: he has power over the process anyway.
 * - Nobody else: no group either, whichever. Debian's /usr/local/lib was root:staff 2775 and is 0755 on new systems
 *   (base-files); a system that still has it so must choose. With an ACL the group bits of the mode are its mask, the
 * most that any user or group named in it may do (acl(5)), so an ACL that lets somebody write shows there as well.
 * - A folder that others may write to will do above the last if it is sticky, as /tmp is: what belongs to somebody who
 *   is trusted cannot be renamed or removed there.
 * - FUSE: its server may show any file at any time, with any owner.
 * - Not noticed: a file system that somebody else wrote and an administrator mounted (removable media, a network's
 *   server), and rights that a security module gives.
 */
#ifndef LLU_REMAP_TRUST_H
#define LLU_REMAP_TRUST_H

#include "inject/process.h"

/* Opens the file that `path` (absolute) leads to for the process: from the root directory `from` (tree.h), in its
 * mounts, symbolic links resolved there and never outside. *fd is for reading, and is what was judged: the caller reads
 * from it and from nowhere else, and closes it. *untrusted is NULL, or says why the process must not get code from
 * there (ERR_REFUSED; the caller frees it); *fd is -1 then if it is on FUSE, of which nothing is asked. Errors, with
 * nothing opened: ERR_UNREADABLE (err__errno(): ENOENT or ENOTDIR when there is no such file; 0 when it is no regular
 * file), ERR_PERMISSION, ERR_GONE. */
MUST_CHECK struct err *trust__open(const struct process *p, const char *from, const char *path, int *fd,
				   struct err **untrusted);

#endif
