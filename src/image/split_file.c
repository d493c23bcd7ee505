/* See split_file.h. */
#include "image/split_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/split.h"
#include "image/unprepared.h"

static struct err *write_file(const char *path, const uint8_t *data, size_t size, mode_t mode)
{
	FREE_CLEANUP char *temporary = xasprintf("%s.XXXXXX", path);
	CLOSE_CLEANUP int fd = mkstemp(temporary);
	if (fd < 0)
		return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot create the file");
	size_t done = 0;
	while (done < size) {
		ssize_t n = write(fd, data + done, size - done);
		if (n < 0 && errno != EINTR)
			break;
		done += n > 0 ? (size_t)n : 0;
	}
	if (done < size || fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0) {
		struct err *e = err__new(ERR_UNREADABLE, errno, path, NULL, "cannot write the file");
		unlink(temporary);
		return e;
	}
	return NULL;
}

struct err *split_file__make(const char *in_path, const char *out_path, const char *like_path)
{
	ELF_CLEANUP struct elf_file *in = NULL, *like = NULL;
	struct stat st;
	TRY(elf_file__read(in_path, &in));
	if (like_path)
		TRY(elf_file__read(like_path, &like));
	struct split_options opt = {.like = like};
	FREE_CLEANUP uint8_t *out = NULL;
	size_t size;
	TRY(split__make(in, &opt, &out, &size));
	return write_file(out_path, out, size, stat(in_path, &st) == 0 ? st.st_mode & 0777 : 0644);
}

/* What a process has that loaded the file. */
static struct err *as_split(struct elf_file **e, bool unprepared)
{
	struct split_options opt = {0};
	FREE_CLEANUP uint8_t *out = NULL;
	size_t size;
	struct elf_file *split;
	if ((*e)->split)
		return NULL;
	if (unprepared) {
		TRY(unprepared__vapi(*e, &split));
		*e = split;
		return NULL;
	}
	TRY(split__make(*e, &opt, &out, &size));
	TRY(elf_file__read_memory(out, size, (*e)->path, &split));
	elf_file__free(*e);
	*e = split;
	return NULL;
}

struct err *file_plan__make(const char *old_path, const char *new_path, bool unprepared, struct file_plan *out)
{
	*out = (struct file_plan){0};
	TRY(elf_file__read(old_path, &out->old));
	TRY(elf_file__read(new_path, &out->next));
	TRY(as_split(&out->old, unprepared));
	return plan__make(out->old, out->old, NULL, out->next, &out->plan);
}

void file_plan__release(struct file_plan *p)
{
	plan__free(p->plan);
	elf_file__free(p->next);
	elf_file__free(p->old);
	*p = (struct file_plan){0};
}
