/* See init.h. */
#include "machine/init.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "machine/procfs.h"

/* proc(5), status: NSpid has the PID in each namespace, the innermost last. */
static bool is_init(pid_t pid)
{
	static const char key[] = "\nNSpid:";
	FREE_CLEANUP char *status = NULL;
	ERR_CLEANUP struct err *e = procfs__text(pid, "status", 1 << 20, &status);
	char *line = e ? NULL : strstr(status, key); /* in a name "\n" is escaped (fs/proc/array.c, proc_task_name) */
	if (!line)
		return false;
	line += strlen(key);
	line[strcspn(line, "\n")] = '\0';
	const char *last = strrchr(line, '\t');
	return last && strcmp(last, "\t1") == 0;
}

const char *init__unsettled(pid_t pid)
{
	static const char *const signs[] = {"/run/nologin", "/etc/initrd-release"};
	CLOSE_CLEANUP int dir = -1;
	struct stat st;
	if (!is_init(pid))
		return NULL;
	ERR_CLEANUP struct err *e = procfs__open(pid, &dir);
	for (size_t i = 0; !e && i < sizeof(signs) / sizeof(signs[0]); i++) {
		FREE_CLEANUP char *path = xasprintf("root%s", signs[i]);
		if (fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
			return signs[i];
	}
	return NULL;
}
