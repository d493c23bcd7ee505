/* An exchange that stops half-way, as pages cannot be moved over others that mseal(2) protects, with an llvupdate that
 * is killed before it can mend that: with the journal it is taken back, without it is finished, each by plain writes.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "bed.h"

TestSuite(stopped, .fini = support__teardown, .timeout = 120);

/* llvupdate with fault points, for a scene. */
static struct result update(const struct scene *s, const char *fault)
{
	return command__run((const char *const[]){"env", fault, COMMAND_DIR "/faults/llvupdate", "-p",
						  path_of("%d", target__pid(s->target)), "-l",
						  path_of("%s/log", s->dir), "-n", "1", NULL},
			    60);
}

static struct scene start_sealed(void)
{
	struct scene s = scene__begin("state", "v1");
	target__rounds(s.target, 1, 1);
	scene__seal(s.target, s.library, "VAPI table");
	scene__install(&s, "v2");
	return s;
}

/* The first point behind the exchange; a program that is only for that. */
static const char *place_behind_the_exchange(void)
{
	struct scene s = start_sealed();
	const char *file = path_of("%s/points", s.dir);
	struct result r = update(&s, path_of("LLU_FAULT_LIST=%s", file));
	cr_assert_eq(r.exit_code, 4, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	target__kill(s.target);
	struct places p = places__read(file);
	const char *place = places__find(&p, "hand__forget_batch<exchange__run");
	cr_assert(place, "llvupdate does not take the exchange back");
	place = path_of("%s", place);
	places__free(&p);
	return place;
}

/* What read-only data moved by then refers to, the program uses: it goes on. */
static struct scene stop_half_way(void)
{
	const char *place = place_behind_the_exchange();
	struct scene s = start_sealed();
	struct result r = update(&s, path_of("LLU_FAULT=%s", place));
	cr_assert_eq(r.exit_code, -SIGKILL, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	result__free(&r);
	target__ask(s.target, "rodata", "rodata same");
	return s;
}

static void clean_up(struct scene *s, const char *words, int version)
{
	struct result r = command__run((const char *const[]){COMMAND_DIR "/cllvupdate", "-u", NULL}, 60);
	cr_assert_eq(r.exit_code, 0, "exit code %d\n%s%s", r.exit_code, r.out, r.err);
	cr_assert(text__has(r.out, words), "%s", r.out);
	result__free(&r);
	r = command__run((const char *const[]){COMMAND_DIR "/cllvupdate", "-u", NULL}, 60);
	cr_assert_str_eq(r.out, "No clean up is required\n");
	result__free(&r);
	target__rounds(s->target, 2, version);
	target__ask(s->target, "rodata", "rodata same");
	cr_assert_eq(scene__preview_lists(s), version == 1);
}

Test(stopped, is_taken_back_by_the_journal)
{
	struct scene s = stop_half_way();
	/* llvupdate does not go near it */
	scene__refuse(&s, "an update was interrupted(.|\n)*run cllvupdate -u first");
	clean_up(&s, "libstate.so.1: the update was taken back\n", 1);
	free(target__finish(s.target));
}

Test(stopped, is_finished_without_the_journal)
{
	struct scene s = stop_half_way();
	const char *journal = path_of("%s/%d.journal", run_folder(), target__pid(s.target));
	cr_assert_eq(unlink(journal), 0, "there is no %s", journal);
	clean_up(&s, "libstate.so.1: the update was finished\n", 2);
	free(target__finish(s.target));
}
