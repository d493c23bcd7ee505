/* Prints this process's own memory in KiB, as the kernel counts it: `Rss`, `Pss`, `Private_Dirty` of
 * /proc/self/smaps_rollup. Ends at once: also the program that bench/start-up starts. */
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	char line[256];

	(void)argv;
	if (argc < 2)
		return 0;
	FILE *f = fopen("/proc/self/smaps_rollup", "r");
	if (!f)
		return 1;
	while (fgets(line, sizeof(line), f)) {
		char name[64];
		long kib;
		if (sscanf(line, "%63[A-Za-z_]: %ld kB", name, &kib) == 2 &&
		    (!strcmp(name, "Rss") || !strcmp(name, "Pss") || !strcmp(name, "Private_Dirty")))
			printf("%s %ld\n", name, kib);
	}
	fclose(f);
	return 0;
}
