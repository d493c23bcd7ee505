/* See guest.h. */
#include "crew/guest.h"

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

static void reset_signals(void)
{
	for (int sig = 1; sig < NSIG; sig++) {
		struct sigaction a;
		if (sigaction(sig, NULL, &a) == 0 && a.sa_handler != SIG_IGN && a.sa_handler != SIG_DFL)
			signal(sig, SIG_DFL);
	}
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The lowest of `keep` from `from` on; -1: none. */
static int next_kept(const int *keep, size_t n, int from)
{
	int next = -1;
	for (size_t i = 0; i < n; i++)
		if (keep[i] >= from && (next < 0 || keep[i] < next))
			next = keep[i];
	return next;
}

static void close_files(const int *keep, size_t n)
{
	int from = STDERR_FILENO + 1;
	for (int next; (next = next_kept(keep, n, from)) >= 0; from = next + 1)
		if (next > from)
			close_range((unsigned)from, (unsigned)next - 1, 0);
	close_range((unsigned)from, UINT_MAX, 0);
}

void guest__enter(const int *keep, size_t n)
{
	reset_signals();
	close_files(keep, n);
}
