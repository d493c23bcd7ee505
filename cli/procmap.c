/* procmap: shows where the parts of LLU-capable libraries are in a process. Changes nothing. */
#include <errno.h>
#include <getopt.h>
#include <llu.h>
#include <stdlib.h>

#include "standard.h"

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
	bool any;
	enum llu_map_format format = LLU_MAP_TEXT;
	switch (getopt_long(argc, argv, "", options, NULL)) {
	case -1:
		break;
	case OPT_GDB:
		format = LLU_MAP_GDB;
		break;
	case OPT_HELP:
		fputs(usage, stdout);
		return 0;
	case OPT_VERSION:
		printf("procmap %s\n", llu_version());
		return 0;
	default:
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (optind + 1 != argc || !parse_pid(argv[optind], &pid)) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	struct llu_error *e = llu_map__write(pid, format, stdout, &any);
	if (!e)
		return any ? EXIT_SHOWN : EXIT_NONE;
	int code = llu_error__kind(e) == LLU_ERROR_PERMISSION ? EXIT_NOT_PERMITTED : EXIT_UNREADABLE;
	fflush(stdout);
	llu_error__print(e, "procmap", stderr);
	llu_error__free(e);
	return code;
}
