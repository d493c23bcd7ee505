/* llusplit: makes an LLU-capable library, or checks whether one build can take over from another. */
#include <getopt.h>
#include <llu.h>

#include "standard.h"

enum { EXIT_FIT = 0, EXIT_USAGE = 2, EXIT_REFUSED = 3, EXIT_UNREADABLE = 4 };

static int exit_code(const struct llu_error *e)
{
	switch (llu_error__kind(e)) {
	case LLU_ERROR_USAGE:
		return EXIT_USAGE;
	case LLU_ERROR_REFUSED:
		return EXIT_REFUSED;
	default:
		return EXIT_UNREADABLE;
	}
}

static int split(const char *in, const char *out, const char *like)
{
	struct llu_error *e = llu_split(in, out, like);
	int code = e ? exit_code(e) : EXIT_FIT;
	if (e)
		llu_error__print(e, "llusplit", stderr);
	llu_error__free(e);
	return code;
}

/* A refusal is the answer to --check, so it goes where the answer is looked for. */
static int check(const char *old_path, const char *new_path, const struct llu_check_options *opt, bool json)
{
	struct llu_plan *plan;
	struct llu_error *e = llu_plan__make(old_path, new_path, opt, &plan);
	int code = e ? exit_code(e) : llu_plan__fits(plan) ? EXIT_FIT : EXIT_REFUSED;
	if (json)
		llu_plan__write_json(plan, e, stdout);
	else if (plan)
		llu_plan__write_text(plan, stdout);
	else
		llu_error__print(e, "llusplit", code == EXIT_REFUSED ? stdout : stderr);
	llu_plan__free(plan);
	llu_error__free(e);
	return code;
}

static const char usage[] = "usage: llusplit IN.so -o OUT.so [--like OLD.so]\n"
			    "       llusplit --check OLD.so NEW.so [--unprepared] [--require-proof]\n"
			    "                [--overrule FILE] [--json]\n"
			    "\n"
			    "Makes an LLU-capable library OUT.so from any finished shared library IN.so,\n"
			    "or says whether NEW.so can take over from OLD.so in a running process.\n"
			    "  -o, --output FILE   where to write it\n"
			    "      --like OLD.so   keep the slot order of an earlier split library\n"
			    "      --check         plan the update alone; both files split or plain\n"
			    "      --unprepared    in a process that loaded OLD.so as it is\n"
			    "      --require-proof only debug information will do for the layout\n"
			    "      --overrule FILE pairs of builds that the administrator answers for\n"
			    "                      (/etc/liveupdate/overrule)\n"
			    "      --json          print the plan as JSON\n"
			    "      --help, --version\n"
			    "Exit: 0 done or fit, 2 usage, 3 refused, 4 unreadable.\n";

int main(int argc, char **argv)
{
	standard__open();
	enum { OPT_LIKE = 256, OPT_CHECK, OPT_PROOF, OPT_UNPREPARED, OPT_OVERRULE, OPT_JSON, OPT_HELP, OPT_VERSION };
	static const struct option options[] = {
	    {"output", required_argument, NULL, 'o'},
	    {"like", required_argument, NULL, OPT_LIKE},
	    {"check", no_argument, NULL, OPT_CHECK},
	    {"require-proof", no_argument, NULL, OPT_PROOF},
	    {"unprepared", no_argument, NULL, OPT_UNPREPARED},
	    {"overrule", required_argument, NULL, OPT_OVERRULE},
	    {"json", no_argument, NULL, OPT_JSON},
	    {"help", no_argument, NULL, OPT_HELP},
	    {"version", no_argument, NULL, OPT_VERSION},
	    {NULL, 0, NULL, 0},
	};
	const char *out = NULL, *like = NULL;
	struct llu_check_options opt = {.size = sizeof(opt)};
	bool checking = false, json = false;
	int c;
	while ((c = getopt_long(argc, argv, "o:", options, NULL)) != -1) {
		switch (c) {
		case 'o':
			out = optarg;
			break;
		case OPT_LIKE:
			like = optarg;
			break;
		case OPT_CHECK:
			checking = true;
			break;
		case OPT_PROOF:
			opt.require_proof = true;
			break;
		case OPT_OVERRULE:
			opt.overrule = optarg;
			break;
		case OPT_UNPREPARED:
			opt.unprepared = true;
			break;
		case OPT_JSON:
			json = true;
			break;
		case OPT_HELP:
			fputs(usage, stdout);
			return 0;
		case OPT_VERSION:
			printf("llusplit %s\n", llu_version());
			return 0;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	bool good = checking ? optind + 2 == argc && !out && !like
			     : optind + 1 == argc && out && !json && !opt.require_proof && !opt.overrule;
	if (!good) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	return checking ? check(argv[optind], argv[optind + 1], &opt, json) : split(argv[optind], out, like);
}
