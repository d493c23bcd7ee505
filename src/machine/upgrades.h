/* Which version a package had before it was upgraded, by dpkg's log (dpkg(1), --log): lines
 *
 *     2026-05-09 07:28:46 upgrade tzdata:all 2025b-0+deb12u1 2025b-0+deb12u2
 *
 * in /var/log/dpkg.log and dpkg.log.1, which logrotate(8) made of it; older ones are compressed, and not read. */
#ifndef LLU_MACHINE_UPGRADES_H
#define LLU_MACHINE_UPGRADES_H

#include <time.h>

#include "machine/package.h"

/* Of one root; reads nothing yet. `root` is copied. */
struct upgrades;
struct upgrades *upgrades__new(const char *root);
void upgrades__free(struct upgrades *u);

/* The version that the package had at `since` and until it was upgraded: what a process runs that is older than the
 * upgrade and has loaded a file that was replaced. It lives as long as `u`. NULL: that is not certain, as
 *
 *   the log does not go back to `since`, or nothing was logged
 *   the package was upgraded more than once: who knows between which of them the file was loaded
 *   the upgrade is not the one that put the list of the package's files there, by the times: somebody's clock or time
 *   zone was another (times in the log are local), or the list came in another way */
const char *upgrades__version_at(struct upgrades *u, const struct package *k, time_t since);

#endif
