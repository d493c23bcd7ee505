/* Files that were read and parsed already: many processes have the same libraries mapped.
 *
 * What is kept was read from the file that is asked for now, and the file has not changed since: the memo holds it
 * open, so that its device and inode number are nobody else's (an anonymous device, as of overlayfs, ends with its last
 * open file too), and its size and both its times are those of before. Who writes to a file sets its times (inode(7))
 * when he begins, and nobody had it open for writing when it was read; so that a change shows, a file is kept only when
 * its last one was longer ago, when it was read, than the clock by which times are set takes for a step. */
#ifndef LLU_IMAGE_FILE_MEMO_H
#define LLU_IMAGE_FILE_MEMO_H

#include "image/elf_file.h"
#include "image/plan.h"

struct file_memo;

/* To be freed with file_memo__free(); what came out of it stays. */
struct file_memo *file_memo__new(void);
void file_memo__free(struct file_memo *m);

/* As elf_file__read_fd(). NULL for a memo: just that. The caller frees *out. */
MUST_CHECK struct err *file_memo__elf(struct file_memo *m, int fd, const char *path, struct elf_file **out);
/* As image_file__read() of a whole file. The caller frees both. */
MUST_CHECK struct err *file_memo__image(struct file_memo *m, int fd, const char *path, struct elf_file **next,
					struct live_map *map);

#endif
