/* A thread that a dead tool was driving out (freeze/drive.h). It passes the pad by itself; but as long as it has not,
 * the record is taken. See recover_parts.h. */
#include "freeze/freeze.h"
#include "inject/clock.h"
#include "remap/recover_parts.h"

enum { STOP_MS = 20, PAUSE_MS = 20 };

struct err *recover__has_way_out(const struct process *p, const struct loaded *l, bool *out)
{
	struct arch_park_record record;
	struct hand_place place = loaded__hand_place(l);
	TRY(process__read(p, hand_place__record(&place), &record, sizeof(record)));
	*out = record.original != 0;
	return NULL;
}

/* A freeze settles it, whatever it is for. */
static struct err *freeze_once(const struct process *p, const struct hand_place *place)
{
	struct freeze *frozen = NULL;
	struct freeze_options opt = {.park = place, .stop_ms = STOP_MS};
	TRY(freeze__begin(p, &opt, &frozen));
	(void)freeze__thaw(frozen);
	return NULL;
}

struct err *recover__clear_way_out(const struct process *p, const struct loaded *l)
{
	uint64_t deadline = clock_deadline(RECOVER_TIMEOUT_S * 1000);
	struct hand_place place = loaded__hand_place(l);
	for (;;) {
		struct err *e = freeze_once(p, &place);
		if (!e || err__kind(e) != ERR_RETRY || clock_ns() >= deadline)
			return e;
		err__free(e);
		clock_pause(PAUSE_MS);
	}
}
