/* See glibc.h. */
#include "remap/glibc.h"

#include <nettle/sha2.h>
#include <string.h>

#include "image/contract.h"
#include "image/file_memo.h"
#include "remap/target_parts.h"
#include "remap/tree.h"

bool glibc__is_loader(const char *soname)
{
	return strcmp(soname, "ld-linux-x86-64.so.2") == 0;
}

bool glibc__is_part(const char *soname)
{
	static const char *const parts[] = {"libc.so.6",
					    "libm.so.6",
					    "libdl.so.2",
					    "libpthread.so.0",
					    "librt.so.1",
					    "libutil.so.1",
					    "libresolv.so.2",
					    "libanl.so.1",
					    "libmvec.so.1",
					    "libnsl.so.1",
					    "libthread_db.so.1",
					    "libnss_compat.so.2",
					    "libnss_dns.so.2",
					    "libnss_files.so.2",
					    "libnss_hesiod.so.2",
					    "libBrokenLocale.so.1",
					    "libc_malloc_debug.so.0"};
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (strcmp(soname, parts[i]) == 0)
			return true;
	return glibc__is_loader(soname);
}

bool glibc__is_everywhere(const struct loaded *l)
{
	return !l->vapi->plain && strcmp(l->vapi->soname, "libc.so.6") == 0;
}

/* A part in the process, and what stands at its path. */
struct part {
	struct result *result;         /* NULL: the dynamic loader */
	const struct elf_file *loaded; /* the file that the process loaded */
	const struct elf_file *runs;   /* the build whose code runs: that one, or a later update */
	const struct elf_file *now;    /* NULL: it cannot be read */
};

typedef VEC(struct part) part_list;

static const char *soname_of(const struct part *a)
{
	return a->loaded->soname;
}

static bool is_pending(const struct part *a)
{
	return a->result && a->result->outcome == OUTCOME_PENDING;
}

static void refuse(struct part *a, const char *code, const char *text)
{
	target__set_reason(a->result, OUTCOME_NOT_UPDATED, ERR_REFUSED, code, text,
			   "restart the process to run the new build");
}

static void refuse_all(part_list *l, const char *code, const char *text)
{
	for (size_t i = 0; i < l->n; i++)
		if (is_pending(&l->items[i]))
			refuse(&l->items[i], code, text);
}

/* ---- the dynamic loader ---- */

/* The file at its path now is looked at only, so nobody minds whose it is. */
static struct err *read_now(const struct process *p, const struct linkmap_object *o, struct elf_file **out)
{
	CLOSE_CLEANUP int fd = -1;
	ERR_CLEANUP struct err *untrusted = NULL;
	TRY(tree__open(p, o->name, o->mapping->path, &fd, &untrusted));
	return fd < 0 ? err__new(ERR_UNREADABLE, 0, o->name, NULL, "it cannot be read")
		      : file_memo__elf(process__files(p), fd, o->name, out);
}

/* *now is the caller's to free. */
static struct err *find_loader(const struct process *p, struct linkmap *map, struct part *out, struct elf_file **now)
{
	for (size_t i = 0; i < linkmap__count(map); i++) {
		const struct linkmap_object o = linkmap__object(map, i);
		const struct elf_file *running = NULL;
		const char *slash = strrchr(o.name, '/');
		if (!o.mapping || !o.mapping->inode || !glibc__is_loader(slash ? slash + 1 : o.name))
			continue;
		TRY(linkmap__file(map, i, &running));
		TRY(read_now(p, &o, now));
		*out = (struct part){.loaded = running, .runs = running, .now = *now};
		return NULL;
	}
	return err__new(ERR_REFUSED, 0, process__name(p), NULL, "it has no dynamic loader that is known");
}

/* ---- do they belong together? ---- */

/* The line that names the build, from the bracket on, as long as `*len`; NULL if there is none. */
static const char *release(const struct elf_file *e, size_t *len)
{
	static const char mark[] = " release version ";
	const char *data = (const char *)e->data, *end = data + e->size;
	const char *at = memmem(data, e->size, mark, sizeof(mark) - 1), *start = at;
	while (start && start > data && *start != '(' && start[-1] && start[-1] != '\n')
		start--;
	const char *behind = at ? memchr(at, '\n', (size_t)(end - at)) : NULL;
	if (!behind || *start != '(')
		return NULL;
	*len = (size_t)(behind - start);
	return start;
}

static bool belong_together(const struct elf_file *a, const struct elf_file *b)
{
	size_t len_a = 0, len_b = 0;
	const char *of_a = a ? release(a, &len_a) : NULL, *of_b = b ? release(b, &len_b) : NULL;
	return of_a && of_b && len_a == len_b && memcmp(of_a, of_b, len_a) == 0;
}

static void check_builds(part_list *l, const struct part *loader)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct part *a = &l->items[i];
		if (strcmp(soname_of(a), "libc.so.6") != 0)
			continue;
		if (!belong_together(a->loaded, loader->loaded))
			refuse_all(l, "glibc-mixed",
				   "libc.so.6 and the dynamic loader of this process are not of one build");
		else if (!belong_together(a->now, loader->now))
			refuse_all(l, "glibc-mixed", "libc.so.6 and the dynamic loader on disk are not of one build");
	}
}

/* ---- contracts ---- */

static bool same_build(const struct part *a)
{
	return a->now &&
	       build_id__equal(a->runs->build_id, a->runs->build_id_len, a->now->build_id, a->now->build_id_len);
}

enum { KNOWN_MAX = 64 };

/* What was found of builds, for the next process: a text, "" for nothing to say. Files are known by their contents, as
 * plans are: a build-id is bytes that anybody may write. */
static struct known {
	uint8_t key[SHA256_DIGEST_SIZE];
	char *text;
} known[KNOWN_MAX];
static size_t n_known;

typedef char *find_fn(const struct part *a, const struct part *b);

static const char *known_or_found(const struct elf_file *const *files, size_t n, const struct part *a,
				  const struct part *b, find_fn *find)
{
	struct sha256_ctx h;
	struct known k;
	sha256_init(&h);
	for (size_t i = 0; i < n; i++)
		sha256_update(&h, ELF_DIGEST_LEN, elf_file__digest(files[i]));
	sha256_digest(&h, sizeof(k.key), k.key);
	for (size_t i = 0; i < n_known && i < KNOWN_MAX; i++)
		if (memcmp(known[i].key, k.key, sizeof(k.key)) == 0)
			return known[i].text;
	k.text = find(a, b);
	struct known *to = &known[n_known++ % KNOWN_MAX];
	free(to->text);
	*to = k;
	return to->text;
}

static char *find_breach(const struct part *a, const struct part *b)
{
	ERR_CLEANUP struct err *e = contract__check_uses(a->result->plan, b->runs, b->now);
	if (!e)
		e = contract__check_gives(a->result->plan, b->runs);
	return xstrdup(e ? err__text(e) : "");
}

/* May `a` be updated while `b` stays? Why not, or "". */
static const char *ask(const struct part *a, const struct part *b)
{
	if (same_build(b))
		return "";
	const struct plan *p = a->result->plan;
	const struct elf_file *const files[] = {p->vapi, p->live, p->next, b->runs, b->now};
	return b->now ? known_or_found(files, 5, a, b, find_breach) : "the new build of another part is not readable";
}

/* What stays makes others stay. */
static void check_contracts(part_list *l)
{
	for (bool more = true; more;) {
		more = false;
		for (size_t i = 0; i < l->n; i++) {
			for (size_t k = 0; k < l->n && is_pending(&l->items[i]); k++) {
				if (is_pending(&l->items[k]))
					continue;
				const char *why = ask(&l->items[i], &l->items[k]);
				if (!*why)
					continue;
				refuse(&l->items[i], "glibc-private", why);
				more = true;
			}
		}
	}
}

/* ---- all of it ---- */

static char *find_changes(const struct part *a, const struct part *b)
{
	size_t n = 0;
	(void)a;
	ERR_CLEANUP struct err *e = contract__count_changed(b->runs, b->now, &n);
	if (e || n == 0)
		return xstrdup("");
	return xasprintf(
	    "%zu functions of the dynamic loader changed too: that part waits for a restart of the process", n);
}

static void say_what_waits(const part_list *l, const struct part *loader)
{
	const struct elf_file *const files[] = {loader->runs, loader->now};
	for (size_t i = 0; i < l->n; i++) {
		const struct part *a = &l->items[i];
		if (!is_pending(a) || !loader->now || strcmp(soname_of(a), "libc.so.6") != 0)
			continue;
		const char *text = known_or_found(files, 2, a, loader, find_changes);
		if (*text)
			vec__push(&a->result->plan->remarks, xstrdup(text));
	}
}

void glibc__judge(struct target *t, struct linkmap *map, const struct err *no_map)
{
	part_list l = {0};
	struct part loader = {0};
	struct elf_file *loader_now = NULL;
	bool any = false;
	for (size_t i = 0; i < t->libraries.n; i++) {
		const struct loaded *x = &t->libraries.items[i];
		const struct elf_file *file = x->vapi->plain ? x->vapi->plain : x->vapi;
		struct part a = {&t->results[i], file, x->live == x->vapi ? file : x->live, x->next};
		if (!x->outdated || !glibc__is_part(file->soname))
			continue;
		vec__push(&l, a);
		any = any || is_pending(&a);
	}
	ERR_CLEANUP struct err *e = any && map ? find_loader(t->process, map, &loader, &loader_now) : NULL;
	if (any && (!map || e)) {
		refuse_all(&l, "glibc-mixed", err__text(map ? e : no_map));
	} else if (any) {
		check_builds(&l, &loader);
		vec__push(&l, loader);
		check_contracts(&l);
		say_what_waits(&l, &loader);
	}
	for (size_t i = 0; i < t->libraries.n; i++)
		t->libraries.items[i].stays =
		    glibc__is_part(t->libraries.items[i].vapi->soname) && t->results[i].outcome == OUTCOME_NOT_UPDATED;
	elf_file__free(loader_now);
	vec__free(&l);
}
