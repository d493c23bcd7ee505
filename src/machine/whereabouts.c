/* See whereabouts.h. A path is walked from its outer end to its inner one, name by name. */
#include "machine/whereabouts.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "machine/procfs.h"

/* One name of a path, or a part of one; or a whole path. */
struct span {
	const char *s;
	size_t n;
};

enum { CGROUP_MAX = 1 << 20, ID_LEN = 64 };

#define SPAN(literal) ((struct span){literal, sizeof(literal) - 1})

static bool is(struct span a, struct span b)
{
	return a.n == b.n && memcmp(a.s, b.s, a.n) == 0;
}

static bool starts(struct span a, struct span with)
{
	return a.n >= with.n && memcmp(a.s, with.s, with.n) == 0;
}

static bool ends(struct span a, struct span with)
{
	return a.n >= with.n && memcmp(a.s + a.n - with.n, with.s, with.n) == 0;
}

static char *copy(struct span a)
{
	return xasprintf("%.*s", (int)a.n, a.s);
}

/* Takes `before` and `behind` off, when both are there and something is left between. */
static bool between(struct span a, struct span before, struct span behind, struct span *out)
{
	if (a.n <= before.n + behind.n || !starts(a, before) || !ends(a, behind))
		return false;
	*out = (struct span){a.s + before.n, a.n - before.n - behind.n};
	return true;
}

/* The next name of *path, which loses it; false at the end. ".." stands for what lies outside of the reader's cgroup
 * namespace (cgroup_namespaces(7)). A leading '_' is systemd's escape (cg_escape). */
static bool next_name(struct span *path, struct span *name)
{
	do {
		while (path->n && *path->s == '/')
			*path = (struct span){path->s + 1, path->n - 1};
		const char *slash = path->n ? memchr(path->s, '/', path->n) : NULL;
		*name = (struct span){path->s, slash ? (size_t)(slash - path->s) : path->n};
		*path = (struct span){path->s + name->n, path->n - name->n};
	} while (is(*name, SPAN("..")));
	if (name->n > 1 && name->s[0] == '_')
		*name = (struct span){name->s + 1, name->n - 1};
	return name->n > 0;
}

/* ---- units ---- */

static bool is_slice(struct span name)
{
	return ends(name, SPAN(".slice"));
}

/* The types of systemd.unit(5) whose units have processes; and what may be in the name of one. */
static bool is_unit(struct span name)
{
	static const struct span types[] = {
	    {".service", 8}, {".scope", 6}, {".socket", 7}, {".mount", 6}, {".swap", 5}};
	for (size_t i = 0; i < name.n; i++)
		if (!isalnum((unsigned char)name.s[i]) && !strchr(":-_.\\@", name.s[i]))
			return false;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (ends(name, types[i]) && name.n > types[i].n && name.s[0] != '@')
			return true;
	return false;
}

/* The first name that is no slice, if it is a unit; *path loses all up to there. */
static bool next_unit(struct span *path, struct span *unit)
{
	struct span name;
	while (next_name(path, &name))
		if (!is_slice(name)) {
			*unit = name;
			return is_unit(name);
		}
	return false;
}

static bool is_user_manager(struct span unit)
{
	struct span user;
	return between(unit, SPAN("user@"), SPAN(".service"), &user);
}

/* systemd's own processes of a user manager are in "init.scope", which is one of its units too. */
static void find_units(struct span path, struct whereabouts *out)
{
	struct span unit;
	if (!next_unit(&path, &unit))
		return;
	out->unit = copy(unit);
	if (is_user_manager(unit) && next_unit(&path, &unit))
		out->user_unit = copy(unit);
}

/* ---- containers ---- */

static bool is_id(struct span name)
{
	bool ok = name.n == ID_LEN;
	for (size_t i = 0; ok && i < name.n; i++)
		ok = isdigit((unsigned char)name.s[i]) || (name.s[i] >= 'a' && name.s[i] <= 'f');
	return ok;
}

/* Names that are an id with something before it, with ".scope" behind it or not. */
static enum container_engine by_prefix(struct span name, struct span *id)
{
	static const struct {
		struct span prefix;
		enum container_engine engine;
	} known[] = {
	    {{"docker-", 7}, ENGINE_DOCKER},          {{"libpod-", 7}, ENGINE_PODMAN},
	    {{"libpod-payload-", 15}, ENGINE_PODMAN}, {{"cri-containerd-", 15}, ENGINE_CONTAINERD},
	    {{"nerdctl-", 8}, ENGINE_CONTAINERD},     {{"crio-", 5}, ENGINE_CRIO},
	};
	struct span bare = name;
	if (ends(bare, SPAN(".scope")))
		bare.n -= strlen(".scope");
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (between(bare, known[i].prefix, SPAN(""), id) && is_id(*id))
			return known[i].engine;
	return ENGINE_NONE;
}

/* "kubepods-burstable-podUID.slice:cri-containerd:ID" is one name: the engine did not know what it was told. */
static enum container_engine by_colons(struct span name, struct span *id)
{
	if (name.n <= ID_LEN || name.s[name.n - ID_LEN - 1] != ':')
		return ENGINE_NONE;
	*id = (struct span){name.s + name.n - ID_LEN, ID_LEN};
	if (!is_id(*id))
		return ENGINE_NONE;
	const struct span before = {name.s, name.n - ID_LEN};
	return ends(before, SPAN(":cri-containerd:")) ? ENGINE_CONTAINERD
	       : ends(before, SPAN(":crio:"))         ? ENGINE_CRIO
	       : ends(before, SPAN(":docker:"))       ? ENGINE_DOCKER
						      : ENGINE_OTHER;
}

/* An id alone: what lies above says whose it is. */
static enum container_engine by_folder(struct span name, struct span parent, bool in_pods, struct span *id)
{
	if (!is_id(name))
		return ENGINE_NONE;
	*id = name;
	return is(parent, SPAN("docker")) ? ENGINE_DOCKER : in_pods ? ENGINE_KUBERNETES : ENGINE_OTHER;
}

static enum container_engine by_lxc(struct span name, struct span parent, struct span *id)
{
	if (between(name, SPAN("lxc.payload."), SPAN(""), id))
		return ENGINE_LXC;
	*id = name;
	return is(parent, SPAN("lxc")) || is(parent, SPAN("lxc.payload")) ? ENGINE_LXC : ENGINE_NONE;
}

/* What libvirt starts as virtual machines are registered likewise, but the process there is the emulator. And what
 * nspawn runs itself is outside: it is in "supervisor". */
static enum container_engine by_machine(struct span name, struct span rest, struct span *id)
{
	struct span next;
	if (!between(name, SPAN("machine-"), SPAN(".scope"), id) &&
	    !between(name, SPAN("systemd-nspawn@"), SPAN(".service"), id))
		return ENGINE_NONE;
	if (starts(*id, SPAN("qemu\\x2d")) || (next_name(&rest, &next) && is(next, SPAN("supervisor"))))
		return ENGINE_NONE;
	return ENGINE_MACHINE;
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A name without systemd's escapes "\xHH" (systemd.unit(5), "String escaping for inclusion in unit names"). */
static char *unescaped(struct span name)
{
	char *s = copy(name), *to = s;
	for (const char *from = s; *from;) {
		bool escape = from[0] == '\\' && from[1] == 'x' && hex(from[2]) >= 0 && hex(from[3]) >= 0 &&
			      (from[2] != '0' || from[3] != '0');
		if (escape)
			*to++ = (char)(hex(from[2]) * 16 + hex(from[3]));
		else
			*to++ = *from;
		from += escape ? 4 : 1;
	}
	*to = '\0';
	return s;
}

/* Below its own folder a machine has "payload", a container of podman "container", one of Proxmox "ns"; then comes what
 * is in it. */
static void find_inner_unit(struct span path, struct whereabouts *out)
{
	struct span name, rest = path, unit;
	if (next_name(&rest, &name) &&
	    (is(name, SPAN("payload")) || is(name, SPAN("container")) || is(name, SPAN("ns"))))
		path = rest;
	free(out->inner_unit);
	out->inner_unit = next_unit(&path, &unit) ? copy(unit) : NULL;
}

static void find_container(struct span path, struct whereabouts *out)
{
	struct span name, parent = SPAN("");
	bool in_pods = false;
	while (next_name(&path, &name)) {
		struct span id = name;
		enum container_engine e = by_prefix(name, &id);
		if (e == ENGINE_NONE)
			e = by_colons(name, &id);
		if (e == ENGINE_NONE)
			e = by_folder(name, parent, in_pods, &id);
		if (e == ENGINE_NONE)
			e = by_lxc(name, parent, &id);
		if (e == ENGINE_NONE)
			e = by_machine(name, path, &id);
		in_pods = in_pods || starts(name, SPAN("kubepods"));
		parent = name;
		if (e == ENGINE_NONE)
			continue;
		free(out->container);
		out->engine = e;
		out->container = e == ENGINE_MACHINE ? unescaped(id) : copy(id);
		find_inner_unit(path, out);
	}
}

/* ---- the text ---- */

/* The path in "ID:CONTROLLERS:PATH" (cgroups(7)); the kernel adds " (deleted)" when the group was removed. */
static bool path_of(struct span line, struct span *controllers, struct span *path)
{
	const char *first = memchr(line.s, ':', line.n);
	const char *second = first ? memchr(first + 1, ':', line.n - (size_t)(first + 1 - line.s)) : NULL;
	if (!second)
		return false;
	*controllers = (struct span){first + 1, (size_t)(second - first - 1)};
	*path = (struct span){second + 1, line.n - (size_t)(second + 1 - line.s)};
	if (ends(*path, SPAN(" (deleted)")))
		path->n -= strlen(" (deleted)");
	return path->n > 0 && path->s[0] == '/';
}

/* systemd keeps its tree in "name=systemd" or in cgroup v2 (no controllers), and in the other one of them too where
 * both are mounted. Other hierarchies have it only as far as a unit asked for their controller. */
static bool is_systemds(struct span controllers)
{
	return controllers.n == 0 || is(controllers, SPAN("name=systemd"));
}

void whereabouts__parse(const char *text, struct whereabouts *out)
{
	*out = (struct whereabouts){0};
	while (*text) {
		struct span line = {text, strcspn(text, "\n")}, controllers, path;
		text += line.n + (text[line.n] == '\n');
		if (!path_of(line, &controllers, &path))
			continue;
		if (is_systemds(controllers) && !out->unit)
			find_units(path, out);
		if (!out->container)
			find_container(path, out);
	}
}

struct err *whereabouts__of(pid_t pid, struct whereabouts *out)
{
	*out = (struct whereabouts){0};
	FREE_CLEANUP char *text = NULL;
	TRY(procfs__text(pid, "cgroup", CGROUP_MAX, &text));
	whereabouts__parse(text, out);
	return NULL;
}

void whereabouts__free(struct whereabouts *w)
{
	free(w->unit);
	free(w->user_unit);
	free(w->container);
	free(w->inner_unit);
	*w = (struct whereabouts){0};
}

const char *container_engine__name(enum container_engine e)
{
	static const char *const names[] = {
	    [ENGINE_NONE] = "",           [ENGINE_DOCKER] = "docker",
	    [ENGINE_PODMAN] = "podman",   [ENGINE_CONTAINERD] = "containerd",
	    [ENGINE_CRIO] = "cri-o",      [ENGINE_KUBERNETES] = "kubernetes",
	    [ENGINE_LXC] = "lxc",         [ENGINE_MACHINE] = "machine",
	    [ENGINE_OTHER] = "container",
	};
	return names[e];
}
