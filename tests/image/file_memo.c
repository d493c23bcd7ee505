/* The memo of files: what is asked for twice is read once, and never after it has changed. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image/file_memo.h"
#include "support/support.h"

TestSuite(file_memo, .fini = support__teardown, .timeout = 60);

enum { SETTLED_MS = 20000 };

static const char *a_library(void)
{
	const char *path = path_of("%s/liblib.so.1", temp_dir());

	file__copy(FIXTURE_DIR "/lib/v1/libstate.so.1", path);
	return path;
}

static struct elf_file *ask(struct file_memo *m, const char *path)
{
	struct elf_file *e = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct err *err = fd < 0 ? NULL : file_memo__elf(m, fd, path, &e);

	cr_assert(fd >= 0 && !err, "%s: %s", path, err ? err__text(err) : strerror(errno));
	close(fd);
	return e;
}

/* Is one reading enough for two? */
static bool is_kept(struct file_memo *m, const char *path)
{
	struct elf_file *a = ask(m, path), *b = ask(m, path);
	bool same = a->data == b->data;

	cr_assert(a->size == b->size && memcmp(a->data, b->data, a->size) == 0);
	cr_assert(a != b && a->path != b->path && strcmp(a->path, path) == 0);
	elf_file__free(a);
	elf_file__free(b);
	return same;
}

/* A file is kept some time after its last change. */
static void wait_until_kept(struct file_memo *m, const char *path)
{
	for (int64_t end = support__now_ms() + SETTLED_MS; !is_kept(m, path);)
		cr_assert(support__now_ms() < end, "it is never kept");
}

/* Does the memo say what the file says? */
static void says_the_same(struct file_memo *m, const char *path)
{
	struct elf_file *now = NULL, *e = ask(m, path);
	struct err *err = elf_file__read(path, &now);

	cr_assert(!err);
	cr_assert(e->size == now->size && memcmp(e->data, now->data, e->size) == 0);
	cr_assert(memcmp(elf_file__digest(e), elf_file__digest(now), ELF_DIGEST_LEN) == 0);
	elf_file__free(e);
	elf_file__free(now);
}

/* A byte of its text, in place. */
static void change(const char *path, uint8_t byte)
{
	struct elf_file *e = NULL;
	struct err *err = elf_file__read(path, &e);

	cr_assert(!err);
	const struct elf_section *text = elf_file__section(e, ".text");
	file__patch(path, text->h.sh_offset, &byte, 1);
	elf_file__free(e);
}

Test(file_memo, a_file_is_read_once)
{
	struct file_memo *m = file_memo__new();
	const char *path = a_library();

	wait_until_kept(m, path);
	says_the_same(m, path);
	file_memo__free(m);
}

Test(file_memo, without_a_memo_a_file_is_read_each_time)
{
	cr_assert(!is_kept(NULL, a_library()));
}

/* A write that goes on, or a mapping to write to, changes a file whose times do not. */
Test(file_memo, what_is_open_for_writing_is_not_kept)
{
	struct file_memo *m = file_memo__new();
	const char *path = a_library(), *later = a_library();
	int writer = open(path, O_WRONLY | O_CLOEXEC);

	cr_assert_geq(writer, 0);
	wait_until_kept(m, later);
	cr_assert(!is_kept(m, path));
	close(writer);
	cr_assert(is_kept(m, path));
	file_memo__free(m);
}

/* Within one tick of the clock a change would not show. */
Test(file_memo, what_changed_just_now_is_not_kept)
{
	struct file_memo *m = file_memo__new();
	const char *path = a_library();

	for (unsigned i = 0; i < 200; i++) {
		change(path, (uint8_t)i);
		says_the_same(m, path);
	}
	file_memo__free(m);
}

Test(file_memo, a_change_in_place_is_seen)
{
	struct file_memo *m = file_memo__new();
	const char *path = a_library();

	for (unsigned i = 0; i < 5; i++) {
		wait_until_kept(m, path);
		struct elf_file *before = ask(m, path);
		change(path, (uint8_t)(0x90 + i));
		says_the_same(m, path);
		says_the_same(m, path);
		cr_assert(before->size && before->data[1] == 'E'); /* what came out of it stays */
		elf_file__free(before);
	}
	file_memo__free(m);
}

/* With its old times, too: nobody sets st_ctime. */
Test(file_memo, a_change_with_old_times_is_seen)
{
	struct file_memo *m = file_memo__new();
	const char *path = a_library();
	struct stat st;

	wait_until_kept(m, path);
	cr_assert(stat(path, &st) == 0);
	change(path, 0x90);
	const struct timespec times[] = {st.st_atim, st.st_mtim};
	cr_assert(utimensat(AT_FDCWD, path, times, 0) == 0);
	says_the_same(m, path);
	file_memo__free(m);
}

Test(file_memo, a_store_through_a_mapping_is_seen)
{
	struct file_memo *m = file_memo__new();
	const char *path = a_library();

	wait_until_kept(m, path);
	struct elf_file *e = ask(m, path);
	size_t at = elf_file__section(e, ".text")->h.sh_offset;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t *map = mmap(NULL, e->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert(fd >= 0 && map != MAP_FAILED, "%s", strerror(errno));
	map[at] = (uint8_t)~map[at];
	says_the_same(m, path);
	munmap(map, e->size);
	close(fd);
	elf_file__free(e);
	file_memo__free(m);
}

Test(file_memo, another_file_at_the_path_is_another)
{
	struct file_memo *m = file_memo__new();
	const char *path = a_library(), *next = path_of("%s.new", path);

	wait_until_kept(m, path);
	for (unsigned i = 0; i < 5; i++) { /* inode numbers are used again, but not while the memo holds them */
		file__copy(i % 2 ? FIXTURE_DIR "/lib/v1/libstate.so.1" : FIXTURE_DIR "/lib/v2/libstate.so.1", next);
		cr_assert(rename(next, path) == 0);
		says_the_same(m, path);
	}
	file_memo__free(m);
}

Test(file_memo, what_came_out_outlives_it)
{
	struct file_memo *m = file_memo__new();
	const char *path = a_library();

	wait_until_kept(m, path);
	struct elf_file *a = ask(m, path), *b = ask(m, path);
	file_memo__free(m);
	cr_assert(memcmp(a->data, b->data, a->size) == 0);
	elf_file__free(a);
	cr_assert(elf_file__section(b, ".text") != NULL);
	elf_file__free(b);
}
