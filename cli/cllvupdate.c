/* cllvupdate: cleans up after a live update operation that was interrupted. */
#include <getopt.h>
#include <llu.h>

#include "standard.h"

enum { EXIT_DONE = 0, EXIT_USAGE = 2, EXIT_NOT_CLEANED = 4, EXIT_NOT_PERMITTED = 5 };

static const char usage[] = "usage: cllvupdate -u\n"
			    "\n"
			    "Finishes or takes back what an interrupted llvupdate has left in processes.\n"
			    "  -u, --update         clean up after live updates\n"
			    "      --help, --version\n"
			    "Exit: 0 done, or no clean up was required, 2 usage,\n"
			    "      4 something could not be cleaned up,\n"
			    "      5 not permitted, or an operation is under way.\n";

static bool is_for_later(enum llu_error_kind kind)
{
	return kind == LLU_ERROR_BUSY || kind == LLU_ERROR_PERMISSION;
}

static int report_error(struct llu_error *e)
{
	int code = is_for_later(llu_error__kind(e)) ? EXIT_NOT_PERMITTED : EXIT_NOT_CLEANED;
	llu_error__print(e, "cllvupdate", stderr);
	llu_error__free(e);
	return code;
}

static void print(const struct llu_recovered *r)
{
	if (r->pid)
		printf("%d %s: ", r->pid, r->name ? r->name : "?");
	if (r->library)
		printf("%s: ", r->library);
	if (r->failed)
		printf("could not be cleaned up: ");
	printf("%s%s%s%s\n", r->text, r->hint ? " (" : "", r->hint ? r->hint : "", r->hint ? ")" : "");
}

static int clean_up(void)
{
	struct llu_recovery *all;
	const struct llu_recovery_options opt = {.size = sizeof(opt), .own_process = true};
	struct llu_error *e = llu_recovery__run(&opt, &all);
	int code = EXIT_DONE;
	for (size_t i = 0; i < llu_recovery__n(all); i++) {
		const struct llu_recovered *r = llu_recovery__item(all, i);
		print(r);
		if (!r->failed)
			continue;
		if (!is_for_later(r->kind))
			code = EXIT_NOT_CLEANED;
		else if (code == EXIT_DONE)
			code = EXIT_NOT_PERMITTED;
	}
	if (!e && llu_recovery__n(all) == 0)
		puts("No clean up is required");
	llu_recovery__free(all);
	return e ? report_error(e) : code;
}

int main(int argc, char **argv)
{
	standard__open();
	enum { OPT_HELP = 256, OPT_VERSION };
	static const struct option long_options[] = {
	    {"update", no_argument, NULL, 'u'},
	    {"help", no_argument, NULL, OPT_HELP},
	    {"version", no_argument, NULL, OPT_VERSION},
	    {NULL, 0, NULL, 0},
	};
	bool update = false;
	for (int c; (c = getopt_long(argc, argv, "u", long_options, NULL)) != -1;) {
		switch (c) {
		case 'u':
			update = true;
			break;
		case OPT_HELP:
			fputs(usage, stdout);
			return EXIT_DONE;
		case OPT_VERSION:
			printf("cllvupdate %s\n", llu_version());
			return EXIT_DONE;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (!update || optind != argc) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	return clean_up();
}
