/* What a process may still get (see room.h).
 *
 * Memory: what an update writes into a process is charged to the process's cgroup, though the tool writes it: pages
 * that are faulted in for another process belong to that one's memory (mm/memcontrol.c, get_mem_cgroup_from_mm). At the
 * limit the kernel kills a process of that group, and that is the one that was to be updated. A call in the process
 * does not fail with ENOMEM then, so nothing could be undone.
 *
 * Mappings: at vm.max_map_count every mmap(2) fails, also those that would put things back (mm/mmap.c, do_mmap).
 *
 * *Tried*: tests/surroundings/limits.c.
 */
#include "inject/room.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <unistd.h>

#include "inject/proc.h"

/* The files of both kinds of hierarchy: kernel, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. */
struct limit {
	const char *limit, *usage, *file_pages; /* the last is a line of memory.stat */
};

static const struct limit limits_v2[] = {{"memory.max", "memory.current", "inactive_file "}, {NULL, NULL, NULL}};
static const struct limit limits_v1[] = {
    {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "},
    {"memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes", "total_inactive_file "},
    {NULL, NULL, NULL},
};

static bool read_in(const char *folder, const char *file, char *buf, size_t size)
{
	FREE_CLEANUP char *path = xasprintf("%s/%s", folder, file);
	return proc_read(AT_FDCWD, path, buf, size) > 0;
}

static uint64_t file_pages(const char *folder, const char *key)
{
	char stat[8192];
	const char *line = read_in(folder, "memory.stat", stat, sizeof(stat)) ? stat : NULL;
	for (; line; line = strchr(line, '\n'), line += line != NULL)
		if (strncmp(line, key, strlen(key)) == 0)
			return strtoull(line + strlen(key), NULL, 10);
	return 0;
}

/* "max" or a missing file: no limit here. */
static uint64_t room_in(const char *folder, const struct limit *l)
{
	char limit[64], usage[64];
	if (!read_in(folder, l->limit, limit, sizeof(limit)) || !read_in(folder, l->usage, usage, sizeof(usage)) ||
	    strncmp(limit, "max", 3) == 0)
		return UINT64_MAX;
	uint64_t max = strtoull(limit, NULL, 10), used = strtoull(usage, NULL, 10);
	uint64_t reclaimable = file_pages(folder, l->file_pages);
	used = used > reclaimable ? used - reclaimable : 0;
	return max > used ? max - used : 0;
}

/* The least of a group and all above it, up to where the hierarchy is mounted. Cuts `path` meanwhile. */
static uint64_t room_up_to(char *path, size_t mounted, const struct limit *limits)
{
	uint64_t room = UINT64_MAX;
	for (;;) {
		for (const struct limit *l = limits; l->limit; l++) {
			uint64_t here = room_in(path, l);
			room = here < room ? here : room;
		}
		char *slash = strrchr(path + mounted, '/');
		if (!slash)
			return room;
		*slash = 0;
	}
}

/* A line of mountinfo: "ID PARENT DEV ROOT MOUNTPOINT OPTIONS ... - TYPE SOURCE SUPER-OPTIONS" (proc(5)). */
static bool is_mount_of(const char *line, bool v2, char root[4096], char at[4096])
{
	const char *type = strstr(line, " - ");
	if (!type || sscanf(line, "%*s %*s %*s %4095s %4095s", root, at) != 2)
		return false;
	if (v2)
		return strncmp(type + 3, "cgroup2 ", 8) == 0;
	const char *options = strrchr(line, ' ');
	return strncmp(type + 3, "cgroup ", 7) == 0 && options && strstr(options, "memory");
}

/* The folder of cgroup `name`, to be freed, or NULL when it cannot be seen; *mounted: length of the mount point. */
static char *folder_of(const char *name, bool v2, size_t *mounted)
{
	FREE_CLEANUP char *text = NULL;
	size_t len;
	char root[4096], at[4096];
	if (proc_slurp(AT_FDCWD, "/proc/self/mountinfo", &text, &len) < 0)
		return NULL;
	char *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!is_mount_of(line, v2, root, at))
			continue;
		size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);
		if (strncmp(name, root, n) != 0 || (name[n] != '/' && name[n] != 0) || strstr(name, "/.."))
			continue;
		*mounted = strlen(at);
		return xasprintf("%s%s", at, strcmp(name + n, "/") == 0 ? "" : name + n);
	}
	return NULL;
}

/* A line of /proc/PID/cgroup: "ID:CONTROLLERS:PATH"; version 2 has the ID 0 and no controllers (cgroups(7)). */
static uint64_t room_of(char *line)
{
	char *controllers = strchr(line, ':'), *name = controllers ? strchr(controllers + 1, ':') : NULL;
	size_t mounted;
	if (!name)
		return UINT64_MAX;
	*name++ = 0;
	bool v2 = strncmp(line, "0:", 2) == 0;
	if (!v2 && !strstr(controllers, "memory"))
		return UINT64_MAX;
	FREE_CLEANUP char *folder = folder_of(name, v2, &mounted);
	return folder ? room_up_to(folder, mounted, v2 ? limits_v2 : limits_v1) : UINT64_MAX;
}

static uint64_t memory_room(const struct process *p)
{
	FREE_CLEANUP char *text = NULL;
	size_t len;
	uint64_t room = UINT64_MAX;
	if (proc_slurp(p->dirfd, "cgroup", &text, &len) < 0)
		return room;
	char *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		uint64_t here = room_of(line);
		room = here < room ? here : room;
	}
	return room;
}

static struct err *mapping_room(const struct process *p, size_t *out)
{
	char text[32];
	struct mappings maps;
	if (proc_read(AT_FDCWD, "/proc/sys/vm/max_map_count", text, sizeof(text)) <= 0)
		return process__err(p, 0, ERR_SYSTEM, 0, NULL, "/proc/sys/vm/max_map_count cannot be read");
	size_t max = strtoul(text, NULL, 10);
	TRY(process__maps(p, &maps));
	*out = max > maps.n ? max - maps.n : 0;
	mappings__free(&maps);
	return NULL;
}

/* The hand has the personality of the thread that is borrowed, whichever that will be. */
static struct err *check_personality(const struct process *p)
{
	FREE_CLEANUP pid_t *tids = NULL;
	size_t n = 0;
	TRY(process__threads(p, &tids, &n));
	for (size_t i = 0; i < n; i++) {
		char path[40], text[32];
		snprintf(path, sizeof(path), "task/%d/personality", tids[i]);
		ssize_t len = proc_read(p->dirfd, path, text, sizeof(text));
		if (len == -ENOENT || len == -ESRCH)
			continue;
		if (len < 0)
			return process__err(p, tids[i], ERR_PERMISSION, (int)-len, "run as root",
					    "its personality may not be read");
		if (strtoul(text, NULL, 16) & READ_IMPLIES_EXEC)
			return process__err(p, tids[i], ERR_REFUSED, 0, "restart it without (setarch -X, execstack)",
					    "it may execute all that it may read (personality READ_IMPLIES_EXEC)");
	}
	return NULL;
}

struct err *process__has_room(const struct process *p, uint64_t bytes, size_t mappings)
{
	size_t left = 0;
	uint64_t room = memory_room(p);
	TRY(check_personality(p));
	if (room < bytes)
		return process__err(
		    p, 0, ERR_RETRY, 0, "raise the limit (memory.max) for the time of the update",
		    "the limit of its memory cgroup leaves %lu KiB, where an update may take %lu: it could "
		    "be killed",
		    room / 1024, bytes / 1024);
	TRY(mapping_room(p, &left));
	if (left < mappings)
		return process__err(p, 0, ERR_RETRY, 0, "raise vm.max_map_count for the time of the update",
				    "it may have %zu more mappings (vm.max_map_count), where an update may take %zu",
				    left, mappings);
	return NULL;
}
