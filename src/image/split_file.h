/* Split libraries, and plans between builds, from file to file: what llusplit does. */
#ifndef LLU_IMAGE_SPLIT_FILE_H
#define LLU_IMAGE_SPLIT_FILE_H

#include "image/plan.h"

/* Splits the library `in` into `out`, whose name then shows the old contents or the new, never a part; it gets the
 * permissions of `in`. `like`: a split library whose slot order is kept, or NULL. Errors: ERR_REFUSED (split.h),
 * ERR_UNREADABLE for what cannot be read or written. */
MUST_CHECK struct err *split_file__make(const char *in, const char *out, const char *like);

/* A plan between two files, and what it borrows. */
struct file_plan {
	struct elf_file *old, *next;
	struct plan *plan;
};

/* The plan that brings `new_path` into a process that has `old_path`, each of them split or plain. A plain old build
 * is planned as its split form, or, if `unprepared`, as a process has it that loaded it as it is. The caller releases
 * *out, also after an error, with file_plan__release(). Errors: as of reading, splitting and plan__make(). */
MUST_CHECK struct err *file_plan__make(const char *old_path, const char *new_path, bool unprepared,
				       struct file_plan *out);
void file_plan__release(struct file_plan *p);

#endif
