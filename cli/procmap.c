/* procmap: shows where the parts of LLU-capable libraries are in a process. Changes nothing. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/standard.h"
#include "report/procmap.h"
#include "report/report.h"

enum { EXIT_SHOWN = 0, EXIT_NONE = 1, EXIT_USAGE = 2, EXIT_UNREADABLE = 4, EXIT_NOT_PERMITTED = 5 };

static const char usage[] = "usage: procmap PID\n"
			    "       procmap --gdb PID\n"
			    "\n"
			    "Shows the address space of a process: of each LLU-capable library its\n"
			    "Implementation, its data and its VAPI, then all other mappings.\n"
			    "      --gdb    commands for gdb instead, so that it knows updated code\n"
			    "      --help, --version\n"
			    "Exit: 0 shown, 1 no LLU-capable library in it, 2 usage, 4 it cannot be read,\n"
			    "      5 not permitted.\n";

static struct err *show(pid_t pid, bool gdb, bool *any)
{
	struct process *p;
	struct mappings maps;
	loaded_list libraries = {0};
	TRY(process__open(pid, &p));
	struct err *e = process__maps(p, &maps);
	if (e) {
		process__close(p);
		return e;
	}
	e = discover__libraries(p, DISCOVER_PREPARED,
				&libraries); /* what cannot be understood does not hide the mappings */
	if (gdb)
		report__gdb(stdout, p, &maps, &libraries);
	else
		report__procmap(stdout, p, &maps, &libraries);
	*any = libraries.n > 0;
	loaded_list__free(&libraries);
	mappings__free(&maps);
	process__close(p);
	return e;
}

static bool parse_pid(const char *s, pid_t *out)
{
	char *end;
	errno = 0;
	long n = strtol(s, &end, 10);
	*out = (pid_t)n;
	return errno == 0 && end != s && *end == 0 && n >= 1 && n <= INT32_MAX;
}

int main(int argc, char **argv)
{
	standard__open();
	enum { OPT_GDB = 256, OPT_HELP, OPT_VERSION };
	static const struct option options[] = {
	    {"gdb", no_argument, NULL, OPT_GDB},
	    {"help", no_argument, NULL, OPT_HELP},
	    {"version", no_argument, NULL, OPT_VERSION},
	    {NULL, 0, NULL, 0},
	};
	pid_t pid;
	bool any = false, gdb = false;
	switch (getopt_long(argc, argv, "", options, NULL)) {
	case -1:
		break;
	case OPT_GDB:
		gdb = true;
		break;
	case OPT_HELP:
		fputs(usage, stdout);
		return 0;
	case OPT_VERSION:
		puts("procmap " LLU_VERSION);
		return 0;
	default:
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (optind + 1 != argc || !parse_pid(argv[optind], &pid)) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	ERR_CLEANUP struct err *e = show(pid, gdb, &any);
	if (e) {
		fflush(stdout);
		report__error(stderr, "procmap", e);
		return err__kind(e) == ERR_PERMISSION ? EXIT_NOT_PERMITTED : EXIT_UNREADABLE;
	}
	return any ? EXIT_SHOWN : EXIT_NONE;
}
