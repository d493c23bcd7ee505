/* The hand's place (see place.h). */
#include "inject/place.h"

#include <sys/mman.h>
#include <time.h>

#include "inject/arch.h"
#include "inject/clock.h"
#include "inject/proc.h"

static const uint64_t in_use = 0x6573756e69756c6c; /* "lluinuse" */

enum { STOP_MS = 20, PASS_NS = 1000000 };

static bool mapped_with(const struct mappings *m, taddr_t from, uint64_t len, int prot)
{
	for (uint64_t a = from.v; a < from.v + len;) {
		const struct mapping *at = mappings__at(m, taddr(a));
		if (!at || (at->prot & prot) != prot)
			return false;
		a = at->range.end.v;
	}
	return true;
}

/* A wrong pad would kill the target, so what is there is looked at. */
static struct err *check(const struct process *p, const struct hand_place *place)
{
	uint8_t code[ARCH_PADS_SIZE];
	if (place->scratch_len < HAND_SCRATCH_MIN || place->scratch.v % LLU_PAGE || place->scratch_len % LLU_PAGE)
		return process__err(p, 0, ERR_USAGE, 0, NULL, "the scratch memory is too small or not in whole pages");
	struct mappings m;
	TRY(process__maps(p, &m));
	bool mapped = mapped_with(&m, place->pads, sizeof(code), PROT_READ | PROT_EXEC) &&
		      mapped_with(&m, place->scratch, place->scratch_len, PROT_READ | PROT_WRITE);
	mappings__free(&m);
	if (mapped)
		TRY(process__read(p, place->pads, code, sizeof(code)));
	if (!mapped || !arch_pads__match(code, place->pads, hand_place__record(place)))
		return process__err(p, 0, ERR_REFUSED, 0, NULL, "the pads of the library are not what they should be");
	return NULL;
}

bool place__has(const struct hand_place *place, taddr_t pc, taddr_t sp)
{
	const struct trange pads = {place->pads, taddr_add(place->pads, ARCH_PADS_SIZE)};
	const struct trange scratch = {place->scratch, taddr_add(place->scratch, place->scratch_len + 1)};
	return trange__has(pads, pc) || trange__has(scratch, sp);
}

/* Is a thread with these registers there? `arg` is the first argument of a system call. */
typedef bool has_fn(const void *where, taddr_t pc, taddr_t sp, uint64_t arg);

static bool place_has(const void *where, taddr_t pc, taddr_t sp, uint64_t arg)
{
	(void)arg;
	return place__has(where, pc, sp);
}

static bool range_has(const void *where, taddr_t pc, taddr_t sp, uint64_t arg)
{
	const struct trange *r = where;
	return trange__has(*r, pc) || trange__has(*r, sp) || sp.v == r->end.v || trange__has(*r, taddr(arg));
}

/* A thread that is somewhere else stays somewhere else: only a tool brings threads here. */
static struct err *is_here(const struct process *p, has_fn *has, const void *where, pid_t tid, bool *here)
{
	struct thread_view v;
	struct tracee t;
	TRY(process__look(p, tid, &v));
	*here = false;
	if (v.state == THREAD_DEAD || v.io_worker)
		return NULL;
	if (v.at_rest) {
		*here = has(where, v.pc, v.sp, v.nr < 0 ? 0 : v.arg[0]);
		return NULL;
	}
	struct err *e = tracee__seize(p, tid, &t);
	if (e && err__kind(e) == ERR_GONE) {
		err__free(e);
		return NULL;
	}
	TRY(e);
	tracee__interrupt(&t);
	e = tracee__wait(&t, clock_deadline(STOP_MS));
	*here = !e && t.state == TRACEE_RUNNING;
	if (!e && t.state != TRACEE_RUNNING && t.state != TRACEE_GONE)
		*here = has(where, arch_regs__pc(&t.regs), arch_regs__sp(&t.regs), arch_regs__arg(&t.regs, 0));
	(void)tracee__release(&t, clock_deadline(1000));
	return e;
}

/* A thread on its way home may have made a hand that was born after the list was read, but it makes none
 * after it is home: so when two passes in a row find nobody, there is nobody. */
static struct err *wait_until_free(const struct process *p, has_fn *has, const void *where, uint64_t deadline)
{
	for (int clean = 0; clean < 2;) {
		FREE_CLEANUP pid_t *tids = NULL;
		size_t n = 0;
		bool any = false;
		TRY(process__threads(p, &tids, &n));
		for (size_t i = 0; i < n; i++) {
			bool here = false;
			TRY(is_here(p, has, where, tids[i], &here));
			any = any || here;
		}
		clean = any ? 0 : clean + 1;
		if (!any)
			continue;
		if (clock_ns() > deadline)
			return process__err(p, 0, ERR_RETRY, 0, NULL,
					    "a thread is still in the hands of an llvupdate that was killed");
		nanosleep(&(struct timespec){0, PASS_NS}, NULL);
	}
	return NULL;
}

struct err *place__await_range(const struct process *p, struct trange r, uint64_t deadline)
{
	return wait_until_free(p, range_has, &r, deadline);
}

struct err *place__claim(const struct process *p, const struct hand_place *place, uint64_t deadline)
{
	uint64_t word = 0;
	TRY(check(p, place));
	TRY(process__read(p, place->scratch, &word, sizeof(word)));
	if (word)
		TRY(wait_until_free(p, place_has, place, deadline));
	return process__write(p, place->scratch, &in_use, sizeof(in_use));
}

struct err *place__await(const struct process *p, const struct hand_place *place, uint64_t deadline)
{
	uint64_t word = 0;
	TRY(process__read(p, place->scratch, &word, sizeof(word)));
	if (!word)
		return NULL;
	TRY(check(p, place));
	TRY(wait_until_free(p, place_has, place, deadline));
	place__release(p, place);
	return NULL;
}

void place__release(const struct process *p, const struct hand_place *place)
{
	static const uint64_t nobody;
	err__free(process__write(p, place->scratch, &nobody, sizeof(nobody)));
}
