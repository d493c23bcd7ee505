/* llusplit: makes an LLU-capable library, or checks whether one build can take over from another. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/standard.h"
#include "image/overrule.h"
#include "image/unprepared.h"
#include "report/report.h"

enum { EXIT_FIT = 0, EXIT_USAGE = 2, EXIT_REFUSED = 3, EXIT_UNREADABLE = 4 };

static int exit_code(const struct err *e)
{
	switch (err__kind(e)) {
	case ERR_USAGE:
		return EXIT_USAGE;
	case ERR_REFUSED:
		return EXIT_REFUSED;
	default:
		return EXIT_UNREADABLE;
	}
}

/* Writes a file so that its name shows the old contents or the new, never a part. */
static struct err *write_file(const char *path, const uint8_t *data, size_t size, mode_t mode)
{
	FREE_CLEANUP char *temporary = xasprintf("%s.XXXXXX", path);
	CLOSE_CLEANUP int fd = mkstemp(temporary);
	if (fd < 0)
		return err__new(ERR_UNREADABLE, errno, path, NULL, "cannot create the file");
	size_t done = 0;
	while (done < size) {
		ssize_t n = write(fd, data + done, size - done);
		if (n < 0 && errno != EINTR)
			break;
		done += n > 0 ? (size_t)n : 0;
	}
	if (done < size || fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0) {
		struct err *e = err__new(ERR_UNREADABLE, errno, path, NULL, "cannot write the file");
		unlink(temporary);
		return e;
	}
	return NULL;
}

static struct err *split(const char *in_path, const char *out_path, const char *like_path)
{
	ELF_CLEANUP struct elf_file *in = NULL, *like = NULL;
	struct stat st;
	TRY(elf_file__read(in_path, &in));
	if (like_path)
		TRY(elf_file__read(like_path, &like));
	struct split_options opt = {.like = like};
	FREE_CLEANUP uint8_t *out = NULL;
	size_t size;
	TRY(split__make(in, &opt, &out, &size));
	return write_file(out_path, out, size, stat(in_path, &st) == 0 ? st.st_mode & 0777 : 0644);
}

/* A plain old build is planned as its split form, which is what a process would have loaded. */
static struct err *as_split(struct elf_file **e, bool unprepared)
{
	struct split_options opt = {0};
	FREE_CLEANUP uint8_t *out = NULL;
	size_t size;
	struct elf_file *split;
	if ((*e)->split)
		return NULL;
	if (unprepared) {
		TRY(unprepared__vapi(*e, &split));
		*e = split;
		return NULL;
	}
	TRY(split__make(*e, &opt, &out, &size));
	TRY(elf_file__read_memory(out, size, (*e)->path, &split));
	elf_file__free(*e);
	*e = split;
	return NULL;
}

struct check_options {
	const char *overrule; /* NULL: OVERRULE_FILE, if there is one */
	bool json, require_proof, unprepared;
};

static void judge_by(struct plan *plan, const struct check_options *opt)
{
	struct overrules *overrules = overrules__read(opt->overrule ? opt->overrule : OVERRULE_FILE, opt->overrule);
	overrules__apply(overrules, plan);
	overrules__free(overrules);
	if (opt->require_proof)
		plan__require_proof(plan);
}

static struct err *check(const char *old_path, const char *new_path, const struct check_options *opt, bool *fit)
{
	ELF_CLEANUP struct elf_file *old = NULL, *next = NULL;
	__attribute__((cleanup(plan__cleanup))) struct plan *plan = NULL;
	TRY(elf_file__read(old_path, &old));
	TRY(elf_file__read(new_path, &next));
	TRY(as_split(&old, opt->unprepared));
	TRY(plan__make(old, old, NULL, next, &plan));
	judge_by(plan, opt);
	if (opt->json)
		report__plan_json(stdout, plan);
	else
		report__plan(stdout, plan);
	*fit = plan->refusals.n == 0;
	return NULL;
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
			    "                      (" OVERRULE_FILE ")\n"
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
	struct check_options opt = {0};
	bool checking = false, fit = true;
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
			opt.json = true;
			break;
		case OPT_HELP:
			fputs(usage, stdout);
			return 0;
		case OPT_VERSION:
			puts("llusplit " LLU_VERSION);
			return 0;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	bool good = checking ? optind + 2 == argc && !out && !like
			     : optind + 1 == argc && out && !opt.json && !opt.require_proof && !opt.overrule;
	if (!good) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	ERR_CLEANUP struct err *e =
	    checking ? check(argv[optind], argv[optind + 1], &opt, &fit) : split(argv[optind], out, like);
	if (e) {
		/* a refusal is the answer to --check, so it goes where the answer is looked for */
		if (checking && opt.json)
			report__refused_json(stdout, e);
		else
			report__error(checking && err__kind(e) == ERR_REFUSED ? stdout : stderr, "llusplit", e);
		return exit_code(e);
	}
	return fit ? EXIT_FIT : EXIT_REFUSED;
}
