/* Looks at all processes once, as llvupdate's look for old code does (machine/outdated.h).
 *
 *     scan [text]
 *
 * prints how many processes it saw, how many files were outdated, and how many processes could not be read. With `text`
 * it reads the text of /proc/PID/maps, as on kernels before 6.11. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "machine/outdated.h"

int main(int argc, char **argv)
{
	(void)argv;
	struct scan *s = scan__new(argc > 1 ? SCAN_TEXT : SCAN_BEST);
	DIR *d = opendir("/proc");
	size_t seen = 0, files = 0, failed = 0;
	for (struct dirent *e; d && (e = readdir(d));) {
		struct outdated o;
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
		if (pid <= 0)
			continue;
		struct err *err = scan__process(s, pid, &o);
		seen++;
		failed += err != NULL;
		files += o.files.n;
		err__free(err);
		outdated__free(&o);
	}
	if (d)
		closedir(d);
	scan__free(s);
	printf("processes %zu\nfiles %zu\nfailed %zu\n", seen, files, failed);
	return 0;
}
