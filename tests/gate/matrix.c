/* The gate against the truth: each source below fixtures/gate as it is and changed in every way that its macros know,
 * made by two compilers at several levels, stripped, and registry.c also with debug information. Prints who was
 * accepted and who refused. An accepted build that objects of the old one do not fit fails the test; a refused one
 * that they do fit is counted. The gate was written with stream.c at hand, registry.c came afterwards.
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

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
enum { COMPILERS = COUNT(compilers), LEVELS = 4, BUILDS_MAX = 80, AT_ONCE = 2 };

/* Under sanitizers one level of each compiler: most of the time goes into compilers, and more levels show no more
 * there. */
static bool is_tried(size_t level)
{
#ifdef GATE_ONE_LEVEL
	return level == 1;
#else
	return level < LEVELS;
#endif
}

struct source {
	const char *name;
	struct level {
		const char *flags;
		bool more; /* also with `more` */
	} levels[LEVELS];
	/* What is changed. R_: does not fit, F_: fits, M_: fits in layout and means something else. */
	const char *builds[BUILDS_MAX]; /* ends with NULL */
	/* What comes along with each R_ in a second round, as in real updates. Accepted by itself: what is refused is
	 * refused for the R_. */
	const char *more;
};

static const struct source stream = {
    "stream",
    {{"-O0", true}, {"-O1", true}, {"-O2", true}, {"-O3", true}},
    {
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
	"F_LINES F_BOUNDS_CHECK F_SPLIT",
	"M_ENUM_RENUMBERED",
    },
    "F_LINES F_BOUNDS_CHECK F_SPLIT",
};

static const struct source registry = {
    "registry",
    {{"-O0", false}, {"-O2", true}, {"-O3", false}, {"-O2 -g", false}},
    {
	"R_LIMIT",
	"R_LIMIT_UNUSED",
	"R_SESSION_FRONT",
	"R_SESSION_MIDDLE",
	"R_SESSION_END",
	"R_ELEMENT_FRONT",
	"R_ELEMENT_MIDDLE",
	"R_ELEMENT_END",
	"R_SIZE_IN_TABLE",
	"R_ATTRIBUTE_END",
	"R_BASE_GROWN",
	"R_BASE_PADDING",
	"R_PADDING_ONE",
	"R_POSITION_GROWN",
	"R_TRACK_GROWN",
	"R_FLEXIBLE",
	"R_CELL_FRONT",
	"R_BUCKET_GROWN",
	"R_BUCKET_SWAPPED",
	"R_BUCKETS_MORE",
	"R_LISTENER_GROWN",
	"R_METHOD_ADDED",
	"R_MARK_GROWN",
	"R_CHUNK_GROWN",
	"R_ARRAY_GROWN",
	"R_ARRAY_IN_MIDDLE",
	"R_STRIDE",
	"R_STRIDE_NARROWED",
	"R_INT_WIDENED",
	"R_SHORT_WIDENED",
	"R_BITS_MOVED",
	"R_BITS_WIDENED",
	"R_BITS_ADDED",
	"R_SWAPPED",
	"R_SWAPPED_INTS",
	"R_LIST_SWAPPED",
	"R_TABLE_SWAPPED",
	"R_DOCUMENT_SWAPPED",
	"R_ATTRIBUTE_SWAPPED",
	"R_LISTENER_SWAPPED",
	"R_BUFFER_SWAPPED",
	"R_FLAGS_MOVED",
	"R_UNION_GROWN",
	"R_UNION_SWAPPED",
	"R_REMOVED",
	"R_EMBEDDED",
	"R_POINTER_TO_COUNT",
	"F_CODE",
	"F_CONSTANT",
	"F_SPLIT",
	"F_INLINED",
	"F_REORDERED",
	"F_RENAMED",
	"F_LINES",
	"F_MESSAGE",
	"F_BOUNDS_CHECK",
	"F_NEW_HELPER",
	"F_NEW_EXPORT",
	"F_COLD_PATH",
	"F_LOOP",
	"F_STORES",
	"F_CALLOC",
	"F_STACK_ONLY",
	"F_METHOD_CHANGED",
	"F_LEAK_FIXED",
	"F_LINES F_MESSAGE F_BOUNDS_CHECK",
	"F_LINES F_STORES F_LEAK_FIXED F_COLD_PATH",
	"M_KINDS_RENUMBERED",
	"M_REAL_TO_LONG",
    },
    "F_LINES F_STORES F_LEAK_FIXED F_COLD_PATH",
};

enum verdict { FIT, PROVED, LAYOUT, OTHER, FAILED, UNTRIED };
static const char letters[] = "APlo! ";

static const char *library(const char *dir, const struct source *s, size_t compiler, size_t level, const char *name)
{
	return path_of("%s/%s-%zu-%zu/%s.so", dir, s->name, compiler, level, name);
}

static size_t add_words(char **argv, size_t n, char *words)
{
	for (char *w = strtok(words, " "); w; w = strtok(NULL, " "))
		argv[n++] = w;
	return n;
}

static pid_t compile(const char *dir, const struct source *s, size_t compiler, size_t level, const char *name,
		     const char *macros)
{
	const char *flags = s->levels[level].flags;
	const char *const fixed[] = {compilers[compiler],
				     "-fPIC",
				     "-shared",
				     "-fstack-protector-strong",
				     "-Wl,--build-id",
				     path_of("-Wl,-soname,lib%s.so.1", s->name),
				     "-o",
				     library(dir, s, compiler, level, name),
				     path_of("%s/fixtures/gate/%s.c", SOURCE_DIR, s->name)};
	char more[256], *argv[40];
	size_t n = 0;
	for (; n < COUNT(fixed); n++)
		argv[n] = (char *)(uintptr_t)fixed[n];
	size_t len = (size_t)snprintf(more, sizeof(more), "%s%s", flags, strstr(flags, "-g") ? "" : " -s");
	for (const char *m = macros; *m; m += strspn(m, " ")) {
		int word = (int)strcspn(m, " ");
		len += (size_t)snprintf(more + len, sizeof(more) - len, " -D%.*s", word, m);
		m += word;
	}
	cr_assert(len < sizeof(more));
	argv[add_words(argv, n, more)] = NULL;
	pid_t pid = fork();
	cr_assert(pid >= 0, "fork: %s", strerror(errno));
	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(127);
	}
	return pid;
}

static void wait_for_one(unsigned *running)
{
	int status;
	cr_assert(waitpid(-1, &status, 0) > 0, "waitpid: %s", strerror(errno));
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a compiler failed");
	--*running;
}

static void make(const char *dir, const struct source *s, size_t compiler, size_t level, const char *name,
		 const char *macros, unsigned *running)
{
	if (*running == AT_ONCE)
		wait_for_one(running);
	compile(dir, s, compiler, level, name, macros);
	++*running;
}

static const char *macros_of(const struct source *s, size_t build, bool more)
{
	return more ? path_of("%s %s", s->builds[build], s->more) : s->builds[build];
}

static const char *name_of(char *buffer, size_t size, const char *macros)
{
	snprintf(buffer, size, "%s", macros);
	for (char *p = buffer; *p; p++)
		if (*p == ' ')
			*p = '+';
	return buffer;
}

static bool has_more(const struct source *s, size_t build)
{
	return s->builds[build][0] == 'R';
}

static void make_all(const char *dir, const struct source *s)
{
	unsigned running = 0;
	char name[256];
	for (size_t c = 0; c < COMPILERS; c++)
		for (size_t l = 0; l < LEVELS; l++) {
			if (!is_tried(l))
				continue;
			cr_assert(mkdir(path_of("%s/%s-%zu-%zu", dir, s->name, c, l), 0755) == 0 || errno == EEXIST);
			make(dir, s, c, l, "old", "", &running);
			for (size_t b = 0; s->builds[b]; b++)
				for (int more = 0; more <= (has_more(s, b) && s->levels[l].more); more++) {
					const char *macros = macros_of(s, b, more);
					make(dir, s, c, l, name_of(name, sizeof(name), macros), macros, &running);
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
	if (p->refusals.n == 0)
		return p->layout == LAYOUT_PROVED ? PROVED : FIT;
	return layout ? LAYOUT : OTHER;
}

struct totals {
	unsigned count[3][2]; /* R, F, M by accepted, refused */
};

static void print_totals(const struct source *s, const struct totals *totals)
{
	printf("\n%-18s %-22s %-22s %s\n", "", "does not fit", "fits", "other meaning");
	printf("%-18s %-10s %-11s %-10s %-11s %-10s %s\n", "", "accepted", "refused", "accepted", "refused", "accepted",
	       "refused");
	for (size_t i = 0; i < COMPILERS * LEVELS; i++) {
		const char *compiler = compilers[i / LEVELS], *slash = strrchr(compiler, '/');
		printf("%-10s %-7s", slash ? slash + 1 : compiler, s->levels[i % LEVELS].flags);
		for (size_t k = 0; k < 3; k++)
			printf(" %-10u %-11u", totals[i].count[k][0], totals[i].count[k][1]);
		printf("\n");
	}
	fflush(stdout);
}

static void judge_row(const char *dir, const struct source *s, struct elf_file *const *old, size_t build, bool more,
		      struct totals *totals)
{
	char name[256];
	static const char kinds[] = "RFM";
	bool verbose = getenv("GATE_VERBOSE");
	name_of(name, sizeof(name), macros_of(s, build, more));
	size_t kind = (size_t)(strchr(kinds, name[0]) - kinds);
	enum verdict v[COMPILERS * LEVELS];
	for (size_t i = 0; i < COMPILERS * LEVELS; i++) {
		const struct level *l = &s->levels[i % LEVELS];
		v[i] = UNTRIED;
		if ((more && !l->more) || !is_tried(i % LEVELS))
			continue;
		const char *path = library(dir, s, i / LEVELS, i % LEVELS, name);
		v[i] = judge(old[i], path, false);
		bool accepted = v[i] == FIT || v[i] == PROVED;
		totals[i].count[kind][!accepted]++;
		if (kind == 1 && !accepted && verbose) {
			printf("%s %s %s:\n", compilers[i / LEVELS], l->flags, name);
			judge(old[i], path, true);
		}
		cr_expect(kind != 0 || !accepted, "WRONG ACCEPT: %s %s %s", compilers[i / LEVELS], l->flags, name);
		cr_expect_neq(v[i], FAILED);
	}
	printf("%-54.54s", name);
	for (size_t i = 0; i < COMPILERS * LEVELS; i++)
		printf("%s%c", i % LEVELS ? "" : "  ", letters[v[i]]);
	printf("\n");
	fflush(stdout); /* in order with what fails */
}

static void measure(const struct source *s)
{
	const char *dir = getenv("GATE_KEEP");
	struct elf_file *old[COMPILERS * LEVELS];
	struct totals totals[COMPILERS * LEVELS] = {0};

	if (!dir)
		dir = temp_dir();
	make_all(dir, s);
	for (size_t i = 0; i < COMPILERS * LEVELS; i++)
		old[i] = is_tried(i % LEVELS) ? read_split(library(dir, s, i / LEVELS, i % LEVELS, "old")) : NULL;
	printf("\n%s.c: A accepted, P accepted as proved by debug information, l refused for the layout, o refused for "
	       "another reason;\ncolumns of each compiler:",
	       s->name);
	for (size_t l = 0; l < LEVELS; l++)
		printf("%s %s", l ? "," : "", s->levels[l].flags);
	printf("\n");
	for (size_t b = 0; s->builds[b]; b++)
		for (int more = 0; more <= has_more(s, b); more++)
			judge_row(dir, s, old, b, more, totals);
	print_totals(s, totals);
	for (size_t i = 0; i < COMPILERS * LEVELS; i++)
		elf_file__free(old[i]);
}

Test(gate, known_source)
{
	measure(&stream);
}

Test(gate, other_source)
{
	measure(&registry);
}
