/* Monotonic time in nanoseconds, for deadlines and for measuring the time frozen. */
#ifndef LLU_INJECT_CLOCK_H
#define LLU_INJECT_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void clock_pause(unsigned ms)
{
	struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000L};
	nanosleep(&t, NULL);
}

/* The moment `ms` milliseconds from now. */
static inline uint64_t clock_deadline(int ms)
{
	return clock_ns() + (uint64_t)(ms > 0 ? ms : 0) * 1000000u;
}

#endif
