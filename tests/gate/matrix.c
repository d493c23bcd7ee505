/* The gate against the truth: fixtures/gate/stream.c as it is and changed in every way that its macros know, made
 * by two compilers at four levels, stripped. Prints who was accepted and who refused. An accepted build that
 * objects of the old one do not fit fails the test; a refused one that they do fit is counted.
 *
 * GATE_VERBOSE=1 in the environment also prints why what fits was refused, and GATE_KEEP=DIR keeps the builds. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/plan.h"
#include "support/support.h"

TestSuite(gate, .fini = support__teardown, .timeout = 600);

static const char *const compilers[] = {
    GATE_GCC,
#ifdef GATE_CLANG
    GATE_CLANG,
#endif
};
static const char *const levels[] = {"-O0", "-O1", "-O2", "-O3"};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
enum { COMPILERS = COUNT(compilers), LEVELS = COUNT(levels), AT_ONCE = 2 };

/* What is changed. R_: does not fit, F_: fits, M_: fits in layout and means something else. */
static const char *const builds[] = {
    "R_FIELD_IN_FRONT",
    "R_FIELD_IN_MIDDLE",
    "R_FIELD_AT_END",
    "R_OTHER_AT_END",
    "R_INT_TO_LONG",
    "R_SHORT_TO_INT",
    "R_WIDENED_INTO_HOLE",
    "R_ARRAY_GROWN",
    "R_ARRAY_AT_END_GROWN",
    "R_STRIDE",
    "R_BITS_MOVED",
    "R_BITS_WIDENED",
    "R_BITS_ADDED",
    "R_BIT_SPARE",
    "R_PADDING",
    "R_PADDING_HOLE",
    "R_PADDING_OTHER",
    "R_SWAPPED",
    "R_SWAPPED_KINDS",
    "R_SWAPPED_LATE",
    "R_FLEXIBLE",
    "R_NESTED_FRONT",
    "R_NESTED_GROWN",
    "R_HELPER_HEADER",
    "R_HELPER_SLACK",
    "R_POINTER_REMOVED",
    "F_CODE",
    "F_CONSTANT",
    "F_SPLIT",
    "F_INLINED",
    "F_REORDERED",
    "F_RENAMED",
    "F_LINES",
    "F_NEW_HELPER",
    "F_BOUNDS_CHECK",
    "F_ENUM_AT_END",
    "F_LINES F_CODE F_BOUNDS_CHECK",
    "M_ENUM_RENUMBERED",
};
/* What comes along with each R_ in a second round, as a real update brings more than one change. */
#define MORE "F_LINES F_CODE F_BOUNDS_CHECK"

enum verdict { FIT, LAYOUT, OTHER, FAILED, VERDICTS };
static const char letters[] = "Alo!"; /* accepted, refused for the layout, refused for another reason, failed */

static const char *library(const char *dir, size_t compiler, size_t level, const char *name)
{
	return path_of("%s/%zu%s/%s.so", dir, compiler, levels[level], name);
}

static pid_t compile(const char *dir, size_t compiler, size_t level, const char *name, const char *macros)
{
	char words[256], *argv[32];
	size_t n = 0;
	const char *const fixed[] = {compilers[compiler],
				     levels[level],
				     "-fPIC",
				     "-shared",
				     "-s",
				     "-fstack-protector-strong",
				     "-Wl,--build-id",
				     "-Wl,-soname,libstream.so.1",
				     "-o",
				     library(dir, compiler, level, name),
				     SOURCE_DIR "/fixtures/gate/stream.c"};
	for (size_t i = 0; i < COUNT(fixed); i++)
		argv[n++] = (char *)(uintptr_t)fixed[i];
	snprintf(words, sizeof(words), "%s", macros);
	for (char *w = strtok(words, " "); w; w = strtok(NULL, " ")) {
		char *define = NULL;
		cr_assert(asprintf(&define, "-D%s", w) > 0);
		argv[n++] = define;
	}
	argv[n] = NULL;
	pid_t pid = fork();
	cr_assert(pid >= 0, "fork: %s", strerror(errno));
	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(127);
	}
	for (size_t i = COUNT(fixed); i < n; i++)
		free(argv[i]);
	return pid;
}

static void wait_for_one(unsigned *running)
{
	int status;
	cr_assert(waitpid(-1, &status, 0) > 0, "waitpid: %s", strerror(errno));
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a compiler failed");
	--*running;
}

static void make(const char *dir, size_t compiler, size_t level, const char *name, const char *macros,
		 unsigned *running)
{
	if (*running == AT_ONCE)
		wait_for_one(running);
	compile(dir, compiler, level, name, macros);
	++*running;
}

static const char *name_of(char *buffer, size_t size, size_t build, bool more)
{
	snprintf(buffer, size, "%s%s", builds[build], more ? " " MORE : "");
	for (char *p = buffer; *p; p++)
		if (*p == ' ')
			*p = '+';
	return buffer;
}

static bool has_more(size_t build)
{
	return builds[build][0] == 'R';
}

static void make_all(const char *dir)
{
	unsigned running = 0;
	char name[256];
	for (size_t c = 0; c < COMPILERS; c++)
		for (size_t l = 0; l < LEVELS; l++) {
			cr_assert(mkdir(path_of("%s/%zu%s", dir, c, levels[l]), 0755) == 0 || errno == EEXIST);
			make(dir, c, l, "old", "", &running);
			for (size_t b = 0; b < COUNT(builds); b++) {
				make(dir, c, l, name_of(name, sizeof(name), b, false), builds[b], &running);
				if (has_more(b))
					make(dir, c, l, name_of(name, sizeof(name), b, true),
					     path_of("%s %s", builds[b], MORE), &running);
			}
		}
	while (running)
		wait_for_one(&running);
}

static struct elf_file *read_split(const char *path)
{
	struct split_options opt = {0};
	ELF_CLEANUP struct elf_file *plain = NULL;
	struct elf_file *split = NULL;
	uint8_t *bytes = NULL;
	size_t size;
	struct err *e = elf_file__read(path, &plain);
	cr_assert_null(e, "%s", e ? err__text(e) : "");
	e = split__make(plain, &opt, &bytes, &size);
	cr_assert_null(e, "%s", e ? err__text(e) : "");
	e = elf_file__read_memory(bytes, size, path, &split);
	cr_assert_null(e, "%s", e ? err__text(e) : "");
	free(bytes);
	return split;
}

static enum verdict judge(const struct elf_file *old, const char *path, bool why)
{
	ELF_CLEANUP struct elf_file *next = NULL;
	__attribute__((cleanup(plan__cleanup))) struct plan *p = NULL;
	struct err *e = elf_file__read(path, &next);
	if (!e)
		e = plan__make(old, old, NULL, next, &p);
	if (e) {
		printf("%s: %s\n", path, err__text(e));
		err__free(e);
		return FAILED;
	}
	bool layout = false;
	for (size_t i = 0; i < p->refusals.n; i++) {
		layout = layout || strncmp(p->refusals.items[i].code, "layout-", 7) == 0;
		if (why)
			printf("    %s: %s\n", p->refusals.items[i].code, p->refusals.items[i].text);
	}
	return p->refusals.n == 0 ? FIT : layout ? LAYOUT : OTHER;
}

static struct totals {
	unsigned count[3][2]; /* R, F, M by accepted, refused */
} totals[COMPILERS][LEVELS];

static void print_totals(void)
{
	printf("\n%-18s %-22s %-22s %s\n", "", "does not fit", "fits", "other meaning");
	printf("%-18s %-10s %-11s %-10s %-11s %-10s %s\n", "", "accepted", "refused", "accepted", "refused", "accepted",
	       "refused");
	for (size_t c = 0; c < COMPILERS; c++)
		for (size_t l = 0; l < LEVELS; l++) {
			const char *slash = strrchr(compilers[c], '/');
			printf("%-12s %-5s", slash ? slash + 1 : compilers[c], levels[l]);
			for (size_t k = 0; k < 3; k++)
				printf(" %-10u %-11u", totals[c][l].count[k][0], totals[c][l].count[k][1]);
			printf("\n");
		}
}

static void judge_row(const char *dir, struct elf_file *const *old, size_t build, bool more, bool verbose)
{
	char name[256];
	static const char kinds[] = "RFM";
	name_of(name, sizeof(name), build, more);
	size_t kind = (size_t)(strchr(kinds, name[0]) - kinds);
	enum verdict v[COMPILERS * LEVELS];
	for (size_t i = 0; i < COMPILERS * LEVELS; i++) {
		const char *path = library(dir, i / LEVELS, i % LEVELS, name);
		v[i] = judge(old[i], path, false);
		totals[i / LEVELS][i % LEVELS].count[kind][v[i] != FIT]++;
		if (kind == 1 && v[i] != FIT && verbose) {
			printf("%s %s:\n", path, name);
			judge(old[i], path, true);
		}
		cr_expect(kind != 0 || v[i] != FIT, "WRONG ACCEPT: %s %s %s", compilers[i / LEVELS], levels[i % LEVELS],
			  name);
		cr_expect_neq(v[i], FAILED);
	}
	printf("%-54.54s", name);
	for (size_t i = 0; i < COMPILERS * LEVELS; i++)
		printf("%s%c", i % LEVELS ? "" : "  ", letters[v[i]]);
	printf("\n");
}

Test(gate, confusion_matrix)
{
	const char *dir = getenv("GATE_KEEP");
	bool verbose = getenv("GATE_VERBOSE");
	struct elf_file *old[COMPILERS * LEVELS];

	if (!dir)
		dir = temp_dir();
	make_all(dir);
	for (size_t i = 0; i < COMPILERS * LEVELS; i++)
		old[i] = read_split(library(dir, i / LEVELS, i % LEVELS, "old"));
	printf("A accepted, l refused for the layout, o refused for another reason; columns: -O0 to -O3 of each "
	       "compiler\n");
	for (size_t b = 0; b < COUNT(builds); b++) {
		judge_row(dir, old, b, false, verbose);
		if (has_more(b))
			judge_row(dir, old, b, true, verbose);
	}
	print_totals();
	fflush(stdout);
	for (size_t i = 0; i < COMPILERS * LEVELS; i++)
		elf_file__free(old[i]);
}
