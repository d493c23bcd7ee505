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

/* Where a filter forbids close_range(2), one by one. */
static void close_all(unsigned from, unsigned to)
{
	if (close_range(from, to, 0) == 0)
		return;
	long max = sysconf(_SC_OPEN_MAX);
	for (unsigned fd = from; fd <= to && fd < (unsigned long)max; fd++)
		close((int)fd);
}

static void close_files(const int *keep, size_t n)
{
	int from = STDERR_FILENO + 1;
	for (int next; (next = next_kept(keep, n, from)) >= 0; from = next + 1)
		if (next > from)
			close_all((unsigned)from, (unsigned)next - 1);
	close_all((unsigned)from, UINT_MAX);
}

void guest__ignore_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGTTIN, SIGTTOU};
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], SIG_IGN);
}

void guest__enter(const int *keep, size_t n)
{
	reset_signals();
	close_files(keep, n);
}
