/* See procmap.h. One line for each part or mapping:
 *
 *     START-END   SIZE  PERMISSIONS  NAME             of a library: NAME(PART)  REMARK
 *
 * Parts are where the library's file and header say; permissions are those of the mappings there.
 */
#include "report/procmap.h"

#include <ctype.h>
#include <string.h>
#include <sys/mman.h>

#include "base/printable.h"
#include "inject/proc.h"

enum { SEGMENTS_MAX = 16 };

struct procmap {
	FILE *to;
	const struct mappings *maps;
	const struct loaded *l; /* the library at hand */
};

/* Names are the target's own words: nothing that a terminal obeys gets through. */
static void print_name(FILE *to, const char *s, size_t n)
{
	FREE_CLEANUP char *copy = printable(xasprintf("%.*s", (int)n, s));
	fputs(copy, to);
}

static const char *permissions(int prot)
{
	static const char *const names[] = {
	    "none", "read", "write", "read/write", "exec", "read/exec", "write/exec", "read/write/exec",
	};
	_Static_assert(PROT_READ == 1 && PROT_WRITE == 2 && PROT_EXEC == 4, "they index the names");
	return names[prot & 7];
}

static void print_range(FILE *to, struct trange r, int prot)
{
	fprintf(to, "%016lx-%016lx %8luK  %-15s  ", r.start.v, r.end.v, (r.end.v - r.start.v) / 1024,
		permissions(prot));
}

/* ---- a library ---- */

static const char *file_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static void begin_range(const struct procmap *x, const char *part, struct trange r, int prot)
{
	const char *name = file_name(x->l->path);
	print_range(x->to, r, prot);
	print_name(x->to, name, strlen(name));
	fprintf(x->to, "(%s)", part);
}

/* Starts the line of a part of VAPI space; the caller ends it. */
static void begin_part(const struct procmap *x, const char *part, vaddr_t start, uint64_t len)
{
	struct trange r = {loaded__at(x->l, start), loaded__at(x->l, start + len)};
	const struct mapping *m = mappings__at(x->maps, r.start);
	begin_range(x, part, r, m ? m->prot : PROT_NONE);
}

static void print_part(const struct procmap *x, const char *part, vaddr_t start, uint64_t len)
{
	begin_part(x, part, start, len);
	fputc('\n', x->to);
}

/* The code and constants of a build whose address 0 is at `base`. */
static void print_segments(const struct procmap *x, const char *part, const struct elf_file *build, vaddr_t base)
{
	struct image_segment segments[SEGMENTS_MAX];
	size_t n = image_file__segments(build, segments, SEGMENTS_MAX);
	for (size_t i = 0; i < n; i++) {
		const struct mapping *m = mappings__at(x->maps, loaded__at(x->l, base + segments[i].at));
		bool gone = segments[i].exec && (!m || !(m->prot & PROT_EXEC));
		begin_part(x, part, base + segments[i].at, segments[i].len);
		fputs(gone ? "  code, gone\n" : segments[i].exec ? "  code\n" : "  constants\n", x->to);
	}
}

static void print_implementation(const struct procmap *x)
{
	const struct vapi_image *image = loaded__live_image(x->l);
	print_segments(x, "_impl", x->l->live, image ? image->base : 0);
}

/* One line for each mapping: part of the data is read-only after relocation. */
static void print_mapped(const struct procmap *x, const char *part, struct trange r)
{
	while (r.start.v < r.end.v) {
		const struct mapping *m = mappings__at(x->maps, r.start);
		struct trange piece = r;
		if (m && m->range.end.v < r.end.v)
			piece.end = m->range.end;
		begin_range(x, part, piece, m ? m->prot : PROT_NONE);
		fputc('\n', x->to);
		r.start = piece.end;
	}
}

static void print_data(const struct procmap *x)
{
	const struct elf_file *e = x->l->vapi;
	for (size_t i = 0; i < e->n_phdrs; i++) {
		const Elf64_Phdr *p = &e->phdrs[i];
		if (p->p_type != PT_LOAD || !(p->p_flags & PF_W) || p->p_vaddr >= e->vapi.end)
			continue;
		vaddr_t start = align_down(p->p_vaddr, LLU_PAGE), end = align_up(p->p_vaddr + p->p_memsz, LLU_PAGE);
		print_mapped(x, "data", (struct trange){loaded__at(x->l, start), loaded__at(x->l, end)});
	}
}

/* Reservation that is left of the window, in bytes. */
static uint64_t free_of_window(const struct procmap *x)
{
	const struct vapi_note *v = &x->l->vapi->vapi;
	uint64_t start = loaded__at(x->l, v->window).v, end = start + v->window_len, n = 0;
	for (size_t i = 0; i < x->maps->n; i++) {
		const struct mapping *m = &x->maps->items[i];
		uint64_t from = m->range.start.v > start ? m->range.start.v : start;
		uint64_t to = m->range.end.v < end ? m->range.end.v : end;
		if (from < to && m->prot == PROT_NONE && m->inode == 0)
			n += to - from;
	}
	return n;
}

static void print_vapi(const struct procmap *x)
{
	const struct vapi_note *v = &x->l->vapi->vapi;
	print_part(x, "VAPI tables", v->end, v->text - v->end);
	print_part(x, "VAPI stubs", v->text, align_up(v->text_end - v->text, LLU_PAGE));
	print_part(x, "VAPI table", v->table, v->table_len);
	print_part(x, "VAPI header", v->header, LLU_PAGE);
	print_part(x, "VAPI scratch", v->scratch, v->scratch_len);
	struct trange window = {loaded__at(x->l, v->window), loaded__at(x->l, v->window + v->window_len)};
	begin_range(x, "VAPI window", window, PROT_NONE);
	fprintf(x->to, "  %luK free\n", free_of_window(x) / 1024);
}

static void print_older(const struct procmap *x)
{
	const struct vapi_header *h = &x->l->header;
	if (h->live)
		print_segments(x, "older _impl", x->l->vapi, 0);
	for (size_t i = 0; i < VAPI_IMAGES_MAX; i++) {
		const struct vapi_image *m = &h->image[i];
		if (m->state == VAPI_IMAGE_FREE || i + 1 == h->live)
			continue;
		FREE_CLEANUP char *id = build_id__hex(m->build_id, m->build_id_len);
		begin_part(x, vapi_image__is_there(m) ? "older _impl" : "unfinished update", m->base, m->len);
		fprintf(x->to, "  %s of build %s\n", m->state == VAPI_IMAGE_CONSTANTS ? "constants" : "image", id);
	}
}

static void print_library(const struct procmap *x)
{
	FREE_CLEANUP char *loaded = elf_file__build_id(x->l->vapi), *live = elf_file__build_id(x->l->live);
	fputc('\n', x->to);
	print_name(x->to, x->l->path, strlen(x->l->path));
	fprintf(x->to, "\n  loaded at %016lx, build %s\n", x->l->bias.v, loaded);
	fprintf(x->to, "  runs build %s, %s, after %lu update%s%s\n", live,
		x->l->header.live ? "an image" : "the file's own code", x->l->header.generation,
		x->l->header.generation == 1 ? "" : "s",
		x->l->outdated ? "; another build stands at its path now" : "");
	print_implementation(x);
	print_data(x);
	print_vapi(x);
	print_older(x);
}

/* ---- the process ---- */

static void print_command(FILE *to, const struct process *p)
{
	char *text = NULL;
	size_t len = 0;
	fprintf(to, "%d : ", process__pid(p));
	if (proc_slurp(process__dirfd(p), "cmdline", &text, &len) < 0 || len == 0) {
		print_name(to, process__name(p), strlen(process__name(p)));
	} else {
		for (size_t i = 0; i + 1 < len; i++) /* arguments end with a zero byte each */
			if (text[i] == 0)
				text[i] = ' ';
		print_name(to, text, text[len - 1] ? len : len - 1);
	}
	free(text);
	fputc('\n', to);
}

static bool in_library(const loaded_list *libraries, taddr_t a)
{
	for (size_t i = 0; i < libraries->n; i++) {
		const struct vapi_note *v = &libraries->items[i].vapi->vapi;
		if (loaded__from(&libraries->items[i], a) < v->window + v->window_len)
			return true;
	}
	return false;
}

void report__procmap(FILE *to, const struct process *p, const struct mappings *maps, const loaded_list *libraries)
{
	print_command(to, p);
	for (size_t i = 0; i < libraries->n; i++)
		print_library(&(struct procmap){to, maps, &libraries->items[i]});
	fputs(libraries->n ? "\nother mappings\n" : "\n", to);
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->items[i];
		if (in_library(libraries, m->range.start))
			continue;
		print_range(to, m->range, m->prot);
		print_name(to, m->path, strlen(m->path));
		fputs(m->deleted ? " (deleted)\n" : "\n", to);
	}
}

/* ---- for gdb ---- */

/* A path as a regular expression; those with characters that would need more care are left out. */
static bool print_regex(FILE *to, const char *path)
{
	for (const char *c = path; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("/._+-@~:,=", *c))
			return false;
	fputs("sharedlibrary ^", to);
	for (const char *c = path; *c; c++)
		fprintf(to, strchr(".+", *c) ? "[%c]" : "%c", *c);
	fputs("$\n", to);
	return true;
}

/* gdb would take an image for part of the library's file, whose window is there; so all libraries but those that run
 * an image are read anew. */
static void print_other_libraries(FILE *to, const struct mappings *maps, const loaded_list *libraries)
{
	const char *last = "";
	fputs("nosharedlibrary\n", to);
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->items[i];
		bool replaced = !m->inode || !(m->prot & PROT_EXEC) || strcmp(last, m->path) == 0;
		for (size_t k = 0; k < libraries->n; k++)
			replaced = replaced || (loaded__live_image(&libraries->items[k]) &&
						loaded__from(&libraries->items[k], m->range.start) <
						    libraries->items[k].vapi->vapi.window +
							libraries->items[k].vapi->vapi.window_len);
		if (!replaced && print_regex(to, m->path))
			last = m->path;
	}
}

void report__gdb(FILE *to, const struct process *p, const struct mappings *maps, const loaded_list *libraries)
{
	print_other_libraries(to, maps, libraries);
	for (size_t i = 0; i < libraries->n; i++) {
		const struct loaded *l = &libraries->items[i];
		const struct vapi_image *image = loaded__live_image(l);
		const struct mapping *m = image ? mappings__at(maps, loaded__at(l, image->base)) : NULL;
		if (m)
			fprintf(to, "add-symbol-file /proc/%d/map_files/%lx-%lx -o 0x%lx\n", process__pid(p),
				m->range.start.v, m->range.end.v, m->range.start.v);
	}
}
