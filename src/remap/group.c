/* See group.h. */
#include "remap/group.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "image/file_memo.h"
#include "remap/glibc.h"
#include "remap/tree.h"

/* ---- who needs whom ---- */

static bool names(const struct elf_file *e, const char *soname)
{
	for (size_t i = 0; e && i < e->needed.n; i++)
		if (strcmp(e->needed.items[i], soname) == 0)
			return true;
	return false;
}

/* By the file that was loaded, and by those that came and come after it. */
static bool needs(const struct loaded *a, const struct loaded *b)
{
	const char *soname = b->vapi->soname;
	if (glibc__is_part(soname) && (!glibc__is_part(a->vapi->soname) || a->stays || b->stays))
		return false;
	return a != b && *soname && (names(a->vapi, soname) || names(a->live, soname) || names(a->next, soname));
}

/* Goes from `a` along what is needed, over outdated libraries only, and marks what it comes to. */
static void follow(const loaded_list *l, size_t a, bool *reached)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].outdated && !reached[i] && needs(&l->items[a], &l->items[i])) {
			reached[i] = true;
			follow(l, i, reached);
		}
}

bool group__depends(const loaded_list *l, size_t a, size_t b)
{
	FREE_CLEANUP bool *reached = xcalloc(l->n, sizeof(bool));
	follow(l, a, reached);
	return reached[b];
}

/* ---- groups ---- */

struct maker {
	const loaded_list *l;
	const struct linkmap *map;
	bool *done;
};

static bool same_namespace(const struct maker *x, size_t a, size_t b)
{
	return !x->map || linkmap__same_namespace(x->map, x->l->items[a].bias, x->l->items[b].bias);
}

static bool linked(const struct maker *x, size_t a, size_t b)
{
	return x->l->items[b].outdated && needs(&x->l->items[a], &x->l->items[b]) && same_namespace(x, a, b);
}

/* Marks all that are connected with `a`, in either direction. */
static void connect(const struct maker *x, size_t a, bool *in)
{
	in[a] = true;
	for (size_t i = 0; i < x->l->n; i++)
		if (!in[i] && x->l->items[i].outdated && (linked(x, a, i) || linked(x, i, a)))
			connect(x, i, in);
}

/* What `a` needs, then `a`. A circle is broken where it was entered. */
static void add(const struct maker *x, size_t a, struct group *g)
{
	x->done[a] = true;
	for (size_t i = 0; i < x->l->n; i++)
		if (!x->done[i] && linked(x, a, i))
			add(x, i, g);
	g->members[g->n++] = a;
}

void group_list__make(const loaded_list *l, const struct linkmap *map, group_list *out)
{
	FREE_CLEANUP bool *done = xcalloc(l->n, sizeof(bool));
	struct maker x = {l, map, done};
	for (size_t i = 0; i < l->n; i++) {
		if (!l->items[i].outdated || done[i])
			continue;
		FREE_CLEANUP bool *in = xcalloc(l->n, sizeof(bool));
		struct group g = {.members = xcalloc(l->n, sizeof(size_t))};
		connect(&x, i, in);
		for (size_t k = i; k < l->n; k++)
			if (in[k] && !done[k])
				add(&x, k, &g);
		vec__push(out, g);
	}
}

void group_list__free(group_list *g)
{
	for (size_t i = 0; i < g->n; i++)
		free(g->items[i].members);
	vec__free(g);
}

/* ---- plain libraries ---- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* Lies another file at the object's path now than the one that is mapped? Then *fd is it, or -1 when nothing is asked
 * of it. It is looked at only, so nobody minds whose it is. */
static bool is_replaced(const struct process *p, const struct linkmap_object *o, int *fd)
{
	struct stat st;
	ERR_CLEANUP struct err *untrusted = NULL;
	ERR_CLEANUP struct err *e = tree__open(p, o->name, o->mapping->path, fd, &untrusted);
	return !e && (*fd < 0 || fstat(*fd, &st) < 0 || st.st_ino != o->mapping->inode ||
		      major(st.st_dev) != o->mapping->dev_major || minor(st.st_dev) != o->mapping->dev_minor);
}

/* Is `l` made for an object of which another build is at its path now? What cannot be read counts as another build,
 * and as being what its file name says. */
static bool needs_replaced(const struct process *p, struct linkmap *map, size_t i, int now, const struct loaded *l)
{
	const struct elf_file *loaded = NULL;
	ELF_CLEANUP struct elf_file *there = NULL;
	ERR_CLEANUP struct err *e = linkmap__file(map, i, &loaded);
	const char *soname = loaded && *loaded->soname ? loaded->soname : base_name(linkmap__object(map, i).name);
	if (glibc__is_part(soname) || (!names(l->vapi, soname) && !names(l->next, soname)))
		return false;
	if (!e && now >= 0)
		e = file_memo__elf(process__files(p), now, soname, &there);
	return e || !there || !loaded ||
	       !build_id__equal(loaded->build_id, loaded->build_id_len, there->build_id, there->build_id_len);
}

static bool is_listed(const loaded_list *l, taddr_t bias)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->items[i].bias.v == bias.v)
			return true;
	return false;
}

struct err *group__check_plain(const struct process *p, struct linkmap *map, const loaded_list *libraries,
			       const struct loaded *l)
{
	for (size_t i = 0; i < linkmap__count(map); i++) {
		const struct linkmap_object o = linkmap__object(map, i);
		CLOSE_CLEANUP int now = -1;
		if (!o.mapping || !o.mapping->inode || is_listed(libraries, o.bias) ||
		    !linkmap__same_namespace(map, o.bias, l->bias) || !is_replaced(p, &o, &now) ||
		    !needs_replaced(p, map, i, now, l))
			continue;
		return err__new(ERR_REFUSED, 0, l->path, "restart the process to run the new builds of both",
				"%s, which it needs, is outdated too, and is no LLU-capable library in this process",
				base_name(o.name));
	}
	return NULL;
}
