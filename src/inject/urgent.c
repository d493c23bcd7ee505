/* See urgent.h. */
#include "inject/urgent.h"

#include <sys/resource.h>

static unsigned depth;
static int before;

void urgent__begin(void)
{
	if (depth++ > 0)
		return;
	before = getpriority(PRIO_PROCESS, 0);
	(void)setpriority(PRIO_PROCESS, 0, -20);
}

void urgent__end(void)
{
	if (--depth == 0)
		(void)setpriority(PRIO_PROCESS, 0, before);
}
