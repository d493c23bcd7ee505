/* Types of two builds compared: each pair of sources is compiled with several compilers and kinds of
 * debug information, and must get exactly the verdict that is written beside it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "image/types.h"
#include "support/support.h"

TestSuite(types, .fini = support__teardown, .timeout = 250);

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define OK(expr)                                                                                                       \
	do {                                                                                                           \
		ERR_CLEANUP struct err *ok_err_ = (expr);                                                              \
		cr_assert_null(ok_err_, "%s: %s", #expr, ok_err_ ? err__text(ok_err_) : "");                           \
	} while (0)

/* How a pair is compiled. */
struct how {
	const char *c, *cxx;
	const char *flags[4];
};
static const struct how hows[] = {
    {"gcc", "g++", {"-g", "-O2"}},
    {"gcc", "g++", {"-g", "-O0"}},
    {"gcc", "g++", {"-gdwarf-4", "-gstrict-dwarf"}},
    {"gcc", "g++", {"-gdwarf-3", "-gstrict-dwarf"}},
    {"gcc", "g++", {"-g", "-O2", "-flto"}},
    {"gcc", "g++", {"-gdwarf-5", "-Os", "-fno-eliminate-unused-debug-types"}},
    {"clang", "clang++", {"-g"}},
    {"clang", "clang++", {"-gdwarf-4", "-O2"}},
    /* without namespaces */
    {"gcc", "g++", {"-gdwarf-2", "-gstrict-dwarf"}},
    /* without the source file of a type */
    {"gcc", "g++", {"-gdwarf-4", "-fdebug-types-section"}},
    {"gcc", "g++", {"-gdwarf-5", "-fdebug-types-section"}},
};

/* One build, from one source or two. */
static const char *build(const char *dir, const char *name, const struct how *how, bool cxx, const char *const *sources)
{
	const char *out = path_of("%s/lib%s.so", dir, name);
	const char *argv[20] = {cxx ? how->cxx : how->c, "-shared", "-fPIC", "-Wl,--build-id", "-o", out};
	size_t n = 6;
	for (size_t i = 0; i < COUNT(how->flags) && how->flags[i]; i++)
		argv[n++] = how->flags[i];
	for (size_t i = 0; i < 2 && sources[i]; i++) {
		const char *sub = path_of("%s/%s", dir, name); /* the same file name in either build */
		const char *file = path_of("%s/part%zu.%s", sub, i, cxx ? "cc" : "c");
		const char *const mkdir[] = {"mkdir", "-p", sub, NULL};
		struct result made = command__run(mkdir, 10);
		result__free(&made);
		file__write(file, sources[i], strlen(sources[i]));
		argv[n++] = file;
	}
	struct result r = command__run(argv, 60);
	cr_assert_eq(r.exit_code, 0, "%s: %s", argv[0], r.err);
	result__free(&r);
	return out;
}

static struct types *types_in(const char *file, const char *root)
{
	struct types *t = NULL;
	ELF_CLEANUP struct elf_file *e = NULL;
	OK(elf_file__read(file, &e));
	OK(types__find(e, root, &t));
	return t;
}

/* All sentences, one per line; the caller frees it. */
static char *sentences(char *const *items, size_t n)
{
	char *all = xstrdup("");
	for (size_t i = 0; i < n; i++) {
		char *longer = xasprintf("%s%s\n", all, items[i]);
		free(all);
		all = longer;
	}
	return all;
}

/* NULL: there must be none. */
static void expect(const char *what, const char *where, const char *all, const char *pattern)
{
	if (pattern)
		cr_expect(text__has(all, pattern), "%s: %s want \"%s\", got:\n%s", where, what, pattern, all);
	else
		cr_expect_str_eq(all, "", "%s: unexpected %s:\n%s", where, what, all);
}

struct pair {
	const char *name;
	const char *old[2], *new[2];
	const char *difference, *remark; /* extended regular expressions; NULL: none */
	bool cxx;
};

typedef struct err *compare_fn(const struct types *, const struct types *, struct types_report *);

static void judge(const struct pair *p, const struct how *how, compare_fn *compare)
{
	const char *dir = temp_dir();
	TYPES_CLEANUP struct types *old = types_in(build(dir, "old", how, p->cxx, p->old), NULL);
	TYPES_CLEANUP struct types *new = types_in(build(dir, "new", how, p->cxx, p->new), NULL);
	FREE_CLEANUP char *where =
	    xasprintf("%s (%s %s %s)", p->name, how->c, how->flags[0], how->flags[1] ? how->flags[1] : "");
	struct types_report r = {0};
	cr_assert(types__found(old), "%s: %s", where, types__source(old));
	cr_assert(types__found(new), "%s: %s", where, types__source(new));
	OK(compare(old, new, &r));
	FREE_CLEANUP char *differences = sentences(r.differences.items, r.differences.n);
	FREE_CLEANUP char *remarks = sentences(r.remarks.items, r.remarks.n);
	expect("differences", where, differences, p->difference);
	expect("remarks", where, remarks, p->remark);
	types_report__free(&r);
}

static void judge_all(const struct pair *pairs, size_t n, const struct how *how, compare_fn *compare)
{
	for (size_t i = 0; i < n; i++)
		judge(&pairs[i], how, compare);
}

/* A library that allocates and uses struct s, BODY being its members. */
#define LIBRARY(before, body, code)                                                                                    \
	"#include <stddef.h>\n"                                                                                        \
	"void *malloc(size_t);\n" before "struct s {" body "};\n"                                                      \
	"struct s *make(void) { struct s *p = malloc(sizeof(*p)); return p; }\n"                                       \
	"int use(struct s *p) { " code " return p != NULL; }\n"
#define S(body)                                                                                                        \
	{                                                                                                              \
		LIBRARY("", body, "")                                                                                  \
	}
#define WITH(before, body)                                                                                             \
	{                                                                                                              \
		LIBRARY(before, body, "")                                                                              \
	}

/* What a table leaves out is NULL or false. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

static const struct pair c_pairs[] = {
    {"only code changed", {LIBRARY("", "int a; long b;", "p->a++;")}, {LIBRARY("", "int a; long b;", "p->a--;")}},
    {"added in front", S("int a; int b;"), S("long n; int a; int b;"),
     "^struct s: 8 -> 16 bytes; n added at 0x0; a moved from 0x0 to 0x8; b moved from 0x4 to 0xc\n$"},
    {"added in the middle", S("int a; int b; int c;"), S("int a; int b; int n; int c;"),
     "^struct s: 12 -> 16 bytes; n added at 0x8; c moved from 0x8 to 0xc\n$"},
    {"added at the end", S("int a;"), S("int a; int n;"), "^struct s: 4 -> 8 bytes; n added at 0x4\n$"},
    {"put into padding", S("int a; long b;"), S("int a; int n; long b;"), "^struct s: n added at 0x4\n$"},
    {"removed", S("int a; long b;"), S("long b;"), "struct s: 16 -> 8 bytes; .*a \\(0x0\\) removed"},
    {"removed from a hole", S("char a; char b; int c;"), S("char a; int c;"), "^struct s: b \\(0x1\\) removed\n$"},
    {"swapped", S("int a; int b;"), S("int b; int a;"),
     "^struct s: b moved from 0x4 to 0x0; a moved from 0x0 to 0x4\n$"},
    {"widened", S("int a; int b;"), S("long a; int b;"),
     "struct s: 8 -> 16 bytes; a: int -> long( int)? \\(4 -> 8 bytes\\); b moved from 0x4 to 0x8"},
    {"widened into padding", S("int a; long b;"), S("long a; long b;"), "^struct s: a: int -> long"},
    {"made unsigned", S("int a;"), S("unsigned a;"), "^struct s: a: int -> unsigned int\n$"},
    {"array grown", S("char a[16];"), S("char a[32];"),
     "^struct s: 16 -> 32 bytes; a: char\\[16\\] -> char\\[32\\] \\(16 -> 32 bytes\\)\n$"},
    {"array of the same size", S("char a[4][6];"), S("char a[6][4];"), "^struct s: a: char\\[4\\]\\[6\\] -> char"},
    {"array by a typedef", WITH("typedef int row[3];", "row a[2];"), S("int a[2][3];"), NULL},
    {"flexible array", S("int n; char a[];"), S("int n; char a[];"), NULL},
    {"flexible array removed", S("int n; char a[];"), S("int n;"), "^struct s: a \\(0x4\\) removed"},
    {"padding without end removed", S("int n; char end_padding[];"), S("int n;"), NULL,
     "end_padding is no longer there"},
    {"struct and its bytes", S("struct { int a; long b; } m;"),
     S("union { struct { int a; long b; }; char pad[16]; } m;"), NULL, "^struct s: m: can be used as bytes now"},
    {"bytes, and no struct any more", S("union { struct { int a; long b; }; char pad[16]; } m;"),
     S("struct { int a; long b; } m;"), NULL, "^struct s: m: is no longer used as bytes"},
    {"other data, and no struct any more", S("union { struct { int a; long b; }; int pad[4]; } m;"),
     S("struct { int a; long b; } m;"), "^struct s: m: "},
    {"less of it, and bytes, and no struct any more", S("union { struct { int a; }; char pad[16]; } m;"),
     S("struct { int a; long b; } m;"), "^struct s: m: "},
    {"padding without end added", S("int n;"), S("int n; char end_padding[];"), NULL,
     "end_padding is new, and no data"},
    {"struct and other data", S("struct { int a; long b; } m;"),
     S("union { struct { int a; long b; }; int pad[4]; } m;"), "^struct s: m: "},
    {"struct, and less of it, and bytes", S("struct { int a; long b; } m;"),
     S("union { struct { int a; }; char pad[16]; } m;"), "^struct s: m: "},
    {"struct, and more of it, and bytes", S("struct { int a; long b; } m;"),
     S("union { struct { int a, c; long b; }; char pad[16]; } m;"), "^struct s: m: "},
    {"flexible array's elements", S("long n; int a[];"), S("long n; long a[];"), "^struct s: a: int\\[\\] -> long"},
    {"many changes", S("int a, b, c, d, e, f, g, h;"), S("int n, a, b, c, d, e, f, g, h;"),
     "^struct s: 32 -> 36 bytes; n added at 0x0; a moved[^;]*; b moved[^;]*; c moved[^;]*; 5 more changes\n$"},
    {"enum renumbered", WITH("enum e {A, B, C};", "enum e e;"), WITH("enum e {A, N, B, C};", "enum e e;"),
     "^enum e: B 1 -> 2; C 2 -> 3\n$", "^enum e: N = 1 added\n$"},
    {"enum extended", WITH("enum e {A, B};", "enum e e;"), WITH("enum e {A, B, C};", "enum e e;"), NULL,
     "^enum e: C = 2 added\n$"},
    {"enum's value renamed", WITH("enum e {A, B};", "enum e e;"), WITH("enum e {A, X};", "enum e e;"), NULL,
     "^enum e: B is called X now\n$"},
    {"enum's value removed", WITH("enum e {A, B, C};", "enum e e;"), WITH("enum e {A, C = 2};", "enum e e;"),
     "^enum e: B \\(1\\) removed\n$"},
    {"negative enum", WITH("enum e {A = -1, B};", "enum e e;"), WITH("enum e {A = -2, B = 0};", "enum e e;"),
     "^enum e: A -1 -> -2\n$"},
    {"bit-field moved", S("unsigned a : 3; unsigned b : 2;"), S("unsigned a : 4; unsigned b : 2;"),
     "^struct s: a: 3 -> 4 bits; b moved from 0x0 bit 3 to 0x0 bit 4\n$"},
    {"bit-field in another unit", S("unsigned a : 30; unsigned b : 2;"),
     S("unsigned a : 30; unsigned : 0; unsigned b : 2;"),
     "struct s: 4 -> 8 bytes; b moved from 0x3 bit 6 to 0x4 bit 0"},
    {"bit-field became a member", S("unsigned a : 8; long b;"), S("unsigned a; long b;"),
     "^struct s: a is no longer a bit-field\n$"},
    {"bit-fields as they were", S("int a : 3; unsigned long b : 40; _Bool c : 1;"),
     S("int a : 3; unsigned long b : 40; _Bool c : 1;"), NULL},
    {"typedef changed", WITH("typedef int len;", "len a; len b;"), WITH("typedef long len;", "len a; len b;"),
     "struct s: 8 -> 16 bytes; a: int -> long( int)? \\(4 -> 8 bytes\\)"},
    {"typedef by itself",
     {"typedef int len; void *malloc(unsigned long); void *f(void) { len *p = malloc(sizeof(len)); *p = 1; return p; "
      "}"},
     {"typedef long len; void *malloc(unsigned long); void *f(void) { len *p = malloc(sizeof(len)); *p = 1; return p; "
      "}"},
     "^typedef len: int -> long( int)? \\(4 -> 8 bytes\\)\n$"},
    {"typedef of another name", WITH("typedef int a_t;", "a_t a;"), WITH("typedef int b_t;", "b_t a;"), NULL},
    {"union's member larger", S("union { int i; char c[8]; } u; int x;"), S("union { int i; char c[12]; } u; int x;"),
     "struct s: 12 -> 16 bytes; u: 8 -> 12 bytes; u\\.c: char\\[8\\] -> char\\[12\\] .*x moved from 0x8 to 0xc"},
    {"union's member added", S("union { int i; float f; } u;"), S("union { int i; float f; unsigned n; } u;"),
     "^struct s: u\\.n added at 0x0\n$"},
    {"named union larger", WITH("union u { int i; };", "union u u; long x;"),
     WITH("union u { int i; long l; };", "union u u; long x;"), "^union u: 4 -> 8 bytes; l added at 0x0\n$"},
    {"anonymous nested", S("int t; union { struct { int a; int b; }; long l; };"),
     S("int t; union { struct { int b; int a; }; long l; };"),
     "^struct s: b moved from 0xc to 0x8; a moved from 0x8 to 0xc\n$"},
    {"array of anonymous", S("struct { int a; int b; } v[2];"), S("struct { int b; int a; } v[2];"),
     "^struct s: v\\[\\]\\.b moved from 0x4 to 0x0; v\\[\\]\\.a moved from 0x0 to 0x4\n$"},
    {"pointer to anonymous", S("struct { int a; } *v;"), S("struct { int n; int a; } *v;"), "^struct s: v: .*struct"},
    {"struct known by its typedef", WITH("typedef struct { int a; } t;", "t *p;"),
     WITH("typedef struct { int a; int b; } t;", "t *p;"), "^t: 4 -> 8 bytes; b added at 0x4\n$"},
    {"typedef got a tag", WITH("typedef struct { int a; } t;", "t *p; t v;"),
     WITH("typedef struct t { int a; } t;", "t *p; t v;"), NULL, "^t: only the old build has it\n$"},
    {"recursive", S("struct s *next, **prev; int a;"), S("struct s *next, **prev; int a;"), NULL},
    {"recursive and changed", S("struct s *next; int a;"), S("struct s *next; long a;"), "^struct s: a: int -> long"},
    {"renamed struct, recursive", WITH("struct a { struct a *next; int v; };", "struct a *l;"),
     WITH("struct b { struct b *next; int v; };", "struct b *l;"), NULL, "^struct a: only the old build has it\n$"},
    {"renamed struct that changed", WITH("struct a { struct a *next; int v; };", "struct a *l;"),
     WITH("struct b { struct b *next; long v; };", "struct b *l;"), "^struct s: l: struct a \\* -> struct b \\*\n$",
     "^struct a: only"},
    {"mutually recursive",
     WITH("struct a; struct b { struct a *a; int v; }; struct a { struct b *b; };", "struct a *l;"),
     WITH("struct a; struct b { struct a *a; long v; }; struct a { struct b *b; };", "struct a *l;"),
     "^struct b: v: int -> long"},
    {"forward declared", WITH("struct hidden;", "struct hidden *h;"), WITH("struct hidden;", "struct hidden *h;"),
     NULL},
    {"typedef of a declaration", WITH("typedef struct hidden hidden;", "hidden *h;"),
     WITH("typedef struct hidden hidden;", "hidden *h;"), NULL},
    {"declared, then defined", WITH("struct hidden;", "struct hidden *h;"),
     WITH("struct hidden { int a; };", "struct hidden *h; "), NULL},
    {"pointer to something else", S("int *p;"), S("long *p;"), "^struct s: p: int \\* -> long( int)? \\*\n$"},
    {"pointer became a value", S("void *p;"), S("unsigned long p;"), "^struct s: p: void \\* -> "},
    {"value by a name of its own", WITH("struct v { int a; };", "struct v v; int x;"),
     WITH("struct v { int a; int b; };", "struct v v; int x;"),
     "struct s: 8 -> 12 bytes; x moved.*\nstruct v: 4 -> 8 bytes; b added at 0x4"},
    {"function pointer's signature", S("int (*f)(int);"), S("int (*f)(int, long);"), NULL,
     "^struct s: f: the function it points to has another signature\n$"},
    {"member renamed", S("int a; int b;"), S("int a; int c;"), NULL, "^struct s: b is called c now\n$"},
    {"renamed and of another type", S("int a; int b;"), S("int a; float c;"), "b \\(0x4\\) removed; c added at 0x4"},
    {"qualifiers", S("char *a; int b;"), S("const char *const a; volatile int b;"), NULL},
    {"alignment", S("_Alignas(8) long a;"), S("_Alignas(16) long a;"), "struct s: 8 -> 16 bytes"},
    {"struct became union",
     S("int a;"),
     {"#include <stddef.h>\nvoid *malloc(unsigned long); union s { int a; }; union s *make(void) { union s *p = "
      "malloc(4); return p; }"},
     "struct s: another kind of type"},
    {"only old has it", WITH("struct gone { int a; }; int g(struct gone *p) { return p->a; }", "int a;"), S("int a;"),
     NULL, "^struct gone: only the old build has it\n$"},
    {"only new has it", S("int a;"), WITH("struct came { int a; }; int g(struct came *p) { return p->a; }", "int a;"),
     NULL},
    {"local to a function",
     {"void *malloc(unsigned long); void *f(void) { struct l { int a; } *p = malloc(sizeof(*p)); p->a = 1; return p; "
      "}"},
     {"void *malloc(unsigned long); void *f(void) { struct l { int a, b; } *p = malloc(sizeof(*p)); p->a = 1; return "
      "p; }"},
     "^struct l: 4 -> 8 bytes; b added at 0x4\n$"},
};

#define SWAPPED_0      "struct node \\(.*part0\\.c\\): 4 -> 8 bytes.*"
#define SWAPPED_1      "struct node \\(.*part1\\.c\\): 8 -> 4 bytes.*"
#define SWAPPED        "(" SWAPPED_0 SWAPPED_1 "|" SWAPPED_1 SWAPPED_0 ")"
/* Two source files that each have a struct of the same name. */
#define NODE(body, fn) "struct node {" body "}; struct node *" fn "(struct node *p) { return p + 1; }\n"
static const struct pair twice_pairs[] = {
    {"one name, two structs",
     {NODE("int a;", "f"), NODE("long b;", "g")},
     {NODE("int a;", "f"), NODE("long b;", "g")},
     NULL},
    {"one of them changed",
     {NODE("int a;", "f"), NODE("long b;", "g")},
     {NODE("int a;", "f"), NODE("long b, c;", "g")},
     "^struct node \\(.*part1\\.c\\): 8 -> 16 bytes; c added at 0x8\n$"},
    {"swapped", {NODE("int a;", "f"), NODE("long b;", "g")}, {NODE("long b;", "f"), NODE("int a;", "g")}, SWAPPED},
    {"became one",
     {NODE("int a;", "f"), NODE("int a; int b;", "g")},
     {NODE("int a; int b;", "f"), NODE("int a; int b;", "g")},
     "^struct node \\(.*part0\\.c\\): 4 -> 8 bytes; b added at 0x4\n$"},
    {"both renamed alike",
     {NODE("int a;", "f"), NODE("int a;", "g")},
     {NODE("int b;", "f"), NODE("int b;", "g")},
     NULL,
     "a is called b now"},
};

static const struct pair unit_pairs[] = {
    {"one of two changed",
     {NODE("int a;", "f"), NODE("long b;", "g")},
     {NODE("int a;", "f"), NODE("long b, c;", "g")},
     "^struct node.*: 8 -> 16 bytes; c added at 0x8\n$"},
    {"two became one",
     {NODE("int a;", "f"), NODE("int a; int b;", "g")},
     {NODE("int a; int b;", "f"), NODE("int a; int b;", "g")},
     "^struct node.*: 4 -> 8 bytes; b added at 0x4\n$"},
};

/* C++: `make` keeps the class in the debug information of every compiler. */
#define CLASS(before, body)                                                                                            \
	{                                                                                                              \
		before "struct C { " body " }; C *make() { return new C; }\n"                                          \
	}
#define BASES "struct A { long a; }; struct B { int b; };"
static const struct pair cxx_pairs[] = {
    {"class as it was", CLASS("", "virtual int f() { return 1; } int a;"),
     CLASS("", "virtual int f() { return 2; } int a;"), NULL, NULL, true},
    {"virtual function at the end", CLASS("", "virtual void f() {} int a;"),
     CLASS("", "virtual void f() {} virtual void g() {} int a;"),
     "^struct C: virtual function .*g.* added at slot 1\n$", NULL, true},
    {"virtual function in front", CLASS("", "virtual void f() {} int a;"),
     CLASS("", "virtual void g() {} virtual void f() {} int a;"),
     "struct C: virtual function .*g.* added at slot 0.*f.* moved from slot 0 to slot 1", NULL, true},
    {"vtable pointer came", CLASS("", "int f() { return 1; } int a;"),
     CLASS("", "virtual int f() { return 1; } int a;"), "struct C: 4 -> 16 bytes.*_vptr.* added at 0x0", NULL, true},
    {"functions that are not virtual", CLASS("", "int f() { return 1; } int a;"),
     CLASS("", "int f() { return 1; } int g() { return 2; } int a;"), NULL, NULL, true},
    {"bases as they were",
     {BASES "struct C : A, B { int c; }; C *make() { return new C; }"},
     {BASES "struct C : A, B { int c; }; C *make() { return new C; }"},
     NULL,
     NULL,
     true},
    {"bases swapped",
     {BASES "struct C : A, B { int c; }; C *make() { return new C; }"},
     {BASES "struct C : B, A { int c; }; C *make() { return new C; }"},
     "struct C: .*base class B moved from 0x8 to 0x0",
     NULL,
     true},
    {"virtual base",
     {BASES "struct C : virtual A { int c; }; C *make() { return new C; }"},
     {BASES "struct C : A { int c; }; C *make() { return new C; }"},
     "struct C: ",
     NULL,
     true},
    {"base changed",
     {"struct A { int a; }; struct C : A { long c; }; C *make() { return new C; }"},
     {"struct A { int a, n; }; struct C : A { long c; }; C *make() { return new C; }"},
     "^struct A: 4 -> 8 bytes; n added at 0x4\n$",
     NULL,
     true},
    {"namespaces",
     {"namespace n { struct C { int a; }; C *f() { return new C; } } namespace m { struct C { long b; }; C *f() { "
      "return new C; } }"},
     {"namespace n { struct C { int a; }; C *f() { return new C; } } namespace m { struct C { long b, c; }; C *f() { "
      "return new C; } }"},
     "^struct m::C: 8 -> 16 bytes; c added at 0x8\n$",
     NULL,
     true},
    {"nested class, template, reference, pointer to member",
     {"template <class T> struct V { T *p; int T::*m; T &r; }; struct O { int x; struct I { int a; } i; V<I> *v; }; O "
      "*f() { return new O; } int g(V<O::I> *v) { return v->r.a; }"},
     {"template <class T> struct V { T *p; int T::*m; T &r; }; struct O { int x; struct I { int n, a; } i; V<I> *v; }; "
      "O *f() { return new O; } int g(V<O::I> *v) { return v->r.a; }"},
     "struct O::I: 4 -> 8 bytes; n added at 0x0",
     NULL,
     true},
    {"static member", CLASS("", "static int s; int a;"), CLASS("", "static int s, t; int a;"), NULL, NULL, true},
    {"enum class",
     {"enum class E : char { A, B }; struct C { E e; }; C *f() { return new C; }"},
     {"enum class E : char { A, N, B }; struct C { E e; }; C *f() { return new C; }"},
     "enum (class )?E: B 1 -> 2",
     "E: N = 1 added",
     true},
};

#define KEEP "int use(void) { return a++ + (int)b++; }"
static const struct pair static_pairs[] = {
    {"statics as they were",
     {"static int a = 1; static long b = 2;" KEEP},
     {"static int a = 1; static long b = 3;" KEEP},
     NULL},
    {"static widened",
     {"static long b = 2; static int a = 1;" KEEP},
     {"static long b = 2; static long a = 1;" KEEP},
     "static a \\(.*part0\\.c\\): .*int -> long"},
    {"static moved to .data",
     {"static int a; static long b;" KEEP},
     {"static int a; static long b = 4;" KEEP},
     "static b .*moved from \\.bss\\+0x[0-9a-f]+ to \\.data\\+0x"},
    {"static added",
     {"static int a; static long b;" KEEP},
     {"static int a; static long b; int fresh;" KEEP},
     "static fresh .*only the new build has it, at \\.bss\\+0x"},
    {"static removed",
     {"int gone; static int a = 1; static long b = 1;" KEEP},
     {"static int a = 1; static long b = 1;" KEEP},
     NULL,
     "^static gone .*only the old build has it\n$"},
    {"static array",
     {"int t[4] = {1}; int f(int i) { return t[i]++; }"},
     {"int t[8] = {1}; int f(int i) { return t[i]++; }"},
     "static t .*int\\[4\\] -> int\\[8\\] \\(16 -> 32 bytes\\)"},
    {"static of a struct without a name",
     {"struct { int a; int b; } t = {1}; int f(void) { return t.a++ + t.b++; }"},
     {"struct { int b; int a; } t = {1}; int f(void) { return t.a++ + t.b++; }"},
     "^static t .*: b moved from 0x4 to 0x0; a moved from 0x0 to 0x4\n$"},
    {"static of a struct that changed inside",
     {"struct i { int a, b; }; struct o { struct i i[2]; } t = {{{1}}}; int f(void) { return t.i[0].a++ + t.i[1].b++; "
      "}"},
     {"struct i { int b, a; }; struct o { struct i i[2]; } t = {{{1}}}; int f(void) { return t.i[0].a++ + t.i[1].b++; "
      "}"},
     "static t .*: what struct o means has changed"},
    {"of one name in two files",
     {"static int n = 1; int f(void) { return n++; }", "static long n = 1; long g(void) { return n++; }"},
     {"static int n = 1; int f(void) { return n++; }", "static int n = 1; int g(void) { return n++; }"},
     "static n \\(.*part1\\.c\\): (moved.*)?long( int)? -> int"},
    {"of functions",
     {"int f(void) { static int n = 1; return n++; } int g(void) { static long n = 1; return n++; }"},
     {"int f(void) { static int n = 1; return n++; } int g(void) { static int n = 1; return n++; }"},
     "static g::n .*long( int)? -> int"},
    {"thread-local",
     {"__thread int a = 1; __thread int b = 2; int f(void) { return a++ + b++; }"},
     {"__thread long a = 1; __thread long b = 2; int f(void) { return a++ + b++; }"},
     "static [ab] .*moved from TLS\\+0x[04] to TLS\\+0x[08]; int -> long"},
    {"table of pointers",
     {"int f(void); int g(void); int (*const t[])(void) = {f, g};int f(void) { return 1; } int g(void) { return "
      "t[0](); }"},
     {"int f(void); int g(void); int (*const t[])(void) = {f, g, f};int f(void) { return 1; } int g(void) { return "
      "t[0](); }"},
     "static t .*\\[2\\] -> .*\\[3\\]"},
};

/* A test of every pair for each way to compile. */
#define EACH_WAY(way)                                                                                                  \
	Test(types, c_##way)                                                                                           \
	{                                                                                                              \
		judge_all(c_pairs, COUNT(c_pairs), &hows[way], types__compare);                                        \
		judge_all(twice_pairs, COUNT(twice_pairs), &hows[way], types__compare);                                \
	}                                                                                                              \
	Test(types, cxx_##way)                                                                                         \
	{                                                                                                              \
		judge_all(cxx_pairs, COUNT(cxx_pairs), &hows[way], types__compare);                                    \
	}                                                                                                              \
	Test(types, statics_##way)                                                                                     \
	{                                                                                                              \
		judge_all(static_pairs, COUNT(static_pairs), &hows[way], types__compare_statics);                      \
	}
EACH_WAY(0)
EACH_WAY(1)
EACH_WAY(2)
EACH_WAY(3)
EACH_WAY(4)
EACH_WAY(5)
EACH_WAY(6)
EACH_WAY(7)

Test(types, c_dwarf_2)
{
	judge_all(c_pairs, COUNT(c_pairs), &hows[8], types__compare);
	judge_all(twice_pairs, COUNT(twice_pairs), &hows[8], types__compare);
	judge_all(static_pairs, COUNT(static_pairs), &hows[8], types__compare_statics);
}

Test(types, type_units)
{
	for (size_t way = 9; way <= 10; way++) {
		judge_all(c_pairs, COUNT(c_pairs), &hows[way], types__compare);
		judge_all(cxx_pairs, COUNT(cxx_pairs), &hows[way], types__compare);
		judge_all(unit_pairs, COUNT(unit_pairs), &hows[way], types__compare);
		judge_all(static_pairs, COUNT(static_pairs), &hows[way], types__compare_statics);
	}
}

/* --- where debug information is found --- */

static void run(const char *const argv[])
{
	struct result r = command__run(argv, 60);
	cr_assert_eq(r.exit_code, 0, "%s: %s", argv[0], r.err);
	result__free(&r);
}

static char *hex_id(const char *file)
{
	ELF_CLEANUP struct elf_file *e = NULL;
	OK(elf_file__read(file, &e));
	return elf_file__build_id(e);
}

/* Moves the debug information of `file` to `debug`, whose directory is made. */
static void separate(const char *file, const char *debug)
{
	const char *const dir[] = {"sh", "-c", "mkdir -p \"$(dirname \"$0\")\"", debug, NULL};
	const char *const keep[] = {"objcopy", "--only-keep-debug", file, debug, NULL};
	const char *const strip[] = {"strip", "--strip-debug", file, NULL};
	run(dir);
	run(keep);
	run(strip);
}

static const char *build_id_path(const char *root, const char *file)
{
	FREE_CLEANUP char *id = hex_id(file);
	return path_of("%s/.build-id/%.2s/%s.debug", root, id, id + 2);
}

static const char *const simple[2] = {LIBRARY("", "int a; long b;", "")};
static const char *const other[2] = {LIBRARY("", "int a; long b; long c;", "")};

Test(types, none)
{
	const char *dir = temp_dir();
	const char *file = build(dir, "x", &hows[0], false, simple);
	const char *const strip[] = {"strip", "--strip-debug", file, NULL};
	run(strip);
	TYPES_CLEANUP struct types *t = types_in(file, dir);
	cr_expect(!types__found(t));
	cr_expect(text__has(types__source(t), "^none: "), "%s", types__source(t));
	struct types_report r = {0};
	ERR_CLEANUP struct err *e = types__compare(t, t, &r);
	cr_assert_not_null(e);
	cr_expect_eq(err__kind(e), ERR_USAGE);
}

Test(types, by_build_id)
{
	const char *dir = temp_dir(), *root = temp_dir();
	const char *file = build(dir, "x", &hows[0], false, simple);
	const char *debug = build_id_path(root, file);
	separate(file, debug);
	TYPES_CLEANUP struct types *t = types_in(file, root);
	cr_expect(types__found(t), "%s", types__source(t));
	cr_expect_str_eq(types__source(t), debug);
}

Test(types, by_debuglink)
{
	const char *dir = temp_dir(), *root = temp_dir();
	const char *file = build(dir, "x", &hows[0], false, simple);
	const char *debug = path_of("%s%s/x.debug", root, dir);
	FREE_CLEANUP char *link = xasprintf("--add-gnu-debuglink=%s", debug);
	const char *const add[] = {"objcopy", link, file, NULL};
	separate(file, debug);
	run(add);
	TYPES_CLEANUP struct types *t = types_in(file, root);
	cr_expect(types__found(t), "%s", types__source(t));
	cr_expect(text__has(types__source(t), "x\\.debug$"), "%s", types__source(t));
}

/* A file in the right place, of another build. */
Test(types, of_another_build)
{
	const char *dir = temp_dir(), *root = temp_dir();
	const char *file = build(dir, "x", &hows[0], false, simple);
	const char *wrong = build(dir, "y", &hows[0], false, other);
	const char *debug = build_id_path(root, file);
	separate(wrong, debug);
	const char *const strip[] = {"strip", "--strip-debug", file, NULL};
	run(strip);
	TYPES_CLEANUP struct types *t = types_in(file, root);
	cr_expect(!types__found(t), "%s", types__source(t));
}

/* Types that dwz moved into a supplementary file, found by its build-id. */
Test(types, dwz)
{
	const char *dir = temp_dir(), *root = temp_dir();
	const char *const look[] = {"sh", "-c", "command -v dwz", NULL};
	struct result there = command__run(look, 10);
	bool skip = there.exit_code != 0;
	result__free(&there);
	if (skip)
		cr_skip_test("dwz is not installed");
	/* Small things are not worth a supplementary file to dwz. */
	char *source = xstrdup("");
	for (int i = 0; i < 60; i++) {
		char *longer = xasprintf("%sstruct big%d { int a, b; struct big%d *next; char name[%d]; };\n"
					 "int f%d(struct big%d *p) { return p->a + p->b; }\n",
					 source, i, i, i + 1, i, i);
		free(source);
		source = longer;
	}
	const char *const more[2] = {source, NULL};
	const char *a = build(dir, "a", &hows[0], false, more), *b = build(dir, "b", &hows[0], false, more);
	free(source);
	const char *common = path_of("%s/common.debug", dir);
	const char *const dwz[] = {"dwz", "-m", common, a, b, NULL};
	run(dwz);
	ELF_CLEANUP struct elf_file *e = NULL;
	OK(elf_file__read(a, &e));
	cr_assert_not_null(elf_file__section(e, ".gnu_debugaltlink"));
	const char *const notes[] = {"sh", "-c", "readelf -n \"$0\" | sed -n 's/.*Build ID: //p'", common, NULL};
	struct result id = command__run(notes, 10);
	id.out[strcspn(id.out, "\n")] = '\0';
	const char *moved = path_of("%s/.build-id/%.2s/%s.debug", root, id.out, id.out + 2);
	result__free(&id);
	const char *const copy[] = {"sh",   "-c",  "mkdir -p \"$(dirname \"$1\")\" && cp \"$0\" \"$1\"",
				    common, moved, NULL};
	run(copy);
	{
		TYPES_CLEANUP struct types *ta = types_in(a, root);
		TYPES_CLEANUP struct types *tb = types_in(b, root);
		struct types_report r = {0};
		cr_assert(types__found(ta), "%s", types__source(ta));
		OK(types__compare(ta, tb, &r));
		cr_expect_eq(r.n_differences, 0);
		cr_expect_geq(r.compared, 60);
		types_report__free(&r);
	}
	/* by its name alone it is not: that is the library's word, and may lead anywhere */
	TYPES_CLEANUP struct types *without = types_in(a, NULL);
	cr_expect(!types__found(without));
	cr_expect(text__has(types__source(without), "supplementary"), "%s", types__source(without));
}

/* A FIFO, which would block whoever opens it, where hostile names lead: below /usr/lib/debug and out of it again. */
Test(types, names_lead_nowhere_else, .timeout = 60)
{
	static const char up[] = "../../../", placeholder[] = "placeholder-for-a-name-as-long-as-any-of-those-below";
	const struct how none = {"gcc", "g++", {"-O2"}};
	const char *dir = temp_dir(), *file = build(dir, "x", &none, false, simple);
	const char *link = path_of("%s%s/fifo", up, dir + 1), *own = path_of("%s/%s", dir, placeholder);
	const char *out = path_of("%s/linked", dir);
	char name[sizeof(placeholder)] = {0};

	cr_assert_lt(strlen(link), sizeof(name));
	memcpy(name, link, strlen(link) + 1);
	cr_assert(mkfifo(path_of("%s/fifo", dir), 0600) == 0 && mkfifo(path_of("%s.debug", file), 0600) == 0);
	TYPES_CLEANUP struct types *by_path = types_in(path_of("%s/../%s%s", dir, up, file + 1), NULL);
	cr_expect(!types__found(by_path));
	file__write(own, "", 0);
	run((const char *const[]){"objcopy", path_of("--add-gnu-debuglink=%s", own), file, out, NULL});
	size_t size = file__size(out);
	FREE_CLEANUP char *bytes = xmalloc(size);
	FILE *f = fopen(out, "re");
	cr_assert(f && fread(bytes, 1, size, f) == size);
	fclose(f);
	const char *at = memmem(bytes, size, placeholder, sizeof(placeholder));
	cr_assert_not_null(at);
	file__patch(out, (size_t)(at - bytes), name, sizeof(name));
	TYPES_CLEANUP struct types *by_link = types_in(out, NULL);
	cr_expect(!types__found(by_link));
}

/* Code of a part that was built without types is not covered. */
Test(types, covers)
{
	const char *dir = temp_dir();
	const struct how line_numbers = {"gcc", "g++", {"-g1", "-O2"}};
	const struct how none = {"gcc", "g++", {"-O2"}};
	const char *const source[2] = {"int f(int x) { return x + 1; }"};
	const struct {
		const struct how *how;
		bool found, covered;
	} cases[] = {
	    {&hows[0], true, true}, {&hows[6], true, true}, {&line_numbers, true, false}, {&none, false, false}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		ELF_CLEANUP struct elf_file *e = NULL;
		const char *file = build(dir, "x", cases[i].how, false, source);
		TYPES_CLEANUP struct types *t = types_in(file, NULL);
		OK(elf_file__read(file, &e));
		cr_expect_eq(types__found(t), cases[i].found, "%zu", i);
		for (size_t k = 0; k < e->n_symbols; k++)
			if (strcmp(e->symbols[k].name, "f") == 0)
				cr_expect_eq(types__covers(t, e->symbols[k].s.st_value), cases[i].covered, "%zu", i);
		cr_expect(!types__covers(t, 0));
	}
}

Test(types, statics_listed)
{
	const char *const source[2] = {"int g = 1; static int z; int *const table[2] = {&g, &z};\n"
				       "int f(void) { static long calls = 7; return (int)++calls + z++ + *table[g]; }"};
	TYPES_CLEANUP struct types *t = types_in(build(temp_dir(), "x", &hows[1], false, source), NULL);
	size_t n = 0;
	const struct type_static *v = types__statics(t, &n);
	cr_assert_eq(n, 4);
	static const char *const names[] = {"f::calls", "g", "table", "z"};
	static const char *const sections[] = {".data", ".data", ".data.rel.ro", ".bss"};
	static const uint64_t sizes[] = {8, 4, 16, 4};
	for (size_t i = 0; i < n; i++) {
		cr_expect_str_eq(v[i].name, names[i]);
		cr_expect_str_eq(v[i].section, sections[i]);
		cr_expect_eq(v[i].size, sizes[i]);
	}
	cr_expect(text__has(v[2].type, "int \\*.*\\[2\\]"), "%s", v[2].type);
}

/* A real one, where its debug information is installed (package libc6-dbg): equal to itself, and soon. */
Test(types, libc)
{
	TYPES_CLEANUP struct types *a = types_in("/lib/x86_64-linux-gnu/libc.so.6", NULL);
	TYPES_CLEANUP struct types *b = types_in("/lib/x86_64-linux-gnu/libc.so.6", NULL);
	if (!types__found(a))
		cr_skip_test("libc6-dbg is not installed");
	struct types_report r = {0};
	OK(types__compare(a, b, &r));
	OK(types__compare_statics(a, b, &r));
	cr_expect_eq(r.n_differences, 0);
	cr_expect_gt(r.compared, 1000);
	types_report__free(&r);
}

/* --- damage --- */

#define KEEP_ALL                                                                                                       \
	"typedef struct { union { int i : 3; float f; }; struct { short s[4]; } v[2]; } t;\n"                          \
	"enum e { A = -1, B }; static struct { enum e e; t *t[3]; int (*f)(t *, enum e); } all;\n"                     \
	"int keep(t *p) { static long calls; all.t[0] = p; return all.e + all.f(p, B) + (int)calls++; }\n"

/* Every byte of every section of debug information changed in turn would take long; every so many,
 * to several values. It must end, in order, soon. */
Test(types, damaged)
{
	static const char *const names[] = {".debug_info", ".debug_abbrev", ".debug_str", ".debug_rnglists",
					    ".debug_line_str"};
	static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	const char *dir = temp_dir();
	const char *const sources[2] = {simple[0], KEEP_ALL};
	ELF_CLEANUP struct elf_file *e = NULL;
	TYPES_CLEANUP struct types *whole = NULL;
	OK(elf_file__read(build(dir, "x", &hows[1], false, sources), &e));
	OK(types__find(e, NULL, &whole));
	FREE_CLEANUP uint8_t *bytes = xmemdup(e->data, e->size);
	size_t found = 0, damaged = 0, refused = 0;
	for (size_t s = 0; s < COUNT(names); s++) {
		const struct elf_section *sec = elf_file__section(e, names[s]);
		if (!sec)
			continue;
		for (uint64_t at = 0; at < sec->h.sh_size; at++) {
			uint8_t *p = bytes + sec->h.sh_offset + at, was = *p;
			ELF_CLEANUP struct elf_file *copy = NULL;
			TYPES_CLEANUP struct types *t = NULL;
			*p = values[at % COUNT(values)];
			OK(elf_file__read_memory(bytes, e->size, "damaged", &copy));
			ERR_CLEANUP struct err *err = types__find(copy, NULL, &t);
			*p = was;
			damaged += err != NULL;
			if (err || !types__found(t))
				continue;
			found++;
			struct types_report r = {0};
			ERR_CLEANUP struct err *compared = types__compare(whole, t, &r);
			ERR_CLEANUP struct err *statics = types__compare_statics(t, whole, &r);
			types_report__free(&r);
			refused += compared || statics;
		}
	}
	cr_expect_eq(refused, 0, "small files, whatever is in them, are not too complex");
	cr_expect_gt(found, 0);
	cr_expect_gt(damaged, 0);
}

/* Many bytes at once: entries that lead back into what was read, once took time without end. */
Test(types, damaged_at_random)
{
	static const char *const names[] = {".debug_info", ".debug_abbrev", ".debug_info"};
	const char *const sources[2] = {simple[0], KEEP_ALL};
	uint32_t seed = 1; /* the same damage in every run */
	ELF_CLEANUP struct elf_file *e = NULL;
	OK(elf_file__read(build(temp_dir(), "x", &hows[1], false, sources), &e));
	int64_t longest = 0;
	for (int round = 0; round < 2000; round++) {
		FREE_CLEANUP uint8_t *bytes = xmemdup(e->data, e->size);
		ELF_CLEANUP struct elf_file *copy = NULL;
		TYPES_CLEANUP struct types *t = NULL;
		for (int i = 0; i < 1 << (round % 7); i++) {
			const struct elf_section *sec = elf_file__section(e, names[round % COUNT(names)]);
			seed = seed * 1664525 + 1013904223;
			uint64_t at = seed >> 8;
			seed = seed * 1664525 + 1013904223;
			bytes[sec->h.sh_offset + at % sec->h.sh_size] = (uint8_t)(seed >> 24);
		}
		OK(elf_file__read_memory(bytes, e->size, "damaged", &copy));
		int64_t start = support__now_ms();
		ERR_CLEANUP struct err *err = types__find(copy, NULL, &t);
		int64_t took = support__now_ms() - start;
		longest = took > longest ? took : longest;
		cr_expect(err || t);
	}
	cr_expect_lt(longest, 5000);
}
