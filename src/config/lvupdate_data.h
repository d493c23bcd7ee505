/* The administrator's word on updates that nobody starts by hand (llvupdate --upgraded): a file of stanzas, as AIX has
 * it.
 *
 *     * a comment, as is a line that begins with #
 *     llvupdate:
 *             llu = yes
 *             retries = 1
 *             timeout = 10
 *
 * A stanza is a name and a colon at the beginning of a line; its attributes follow, indented. What is not said is as
 * below. What is not understood may have meant something, so it is an error, never passed over.
 */
#ifndef LLU_CONFIG_LVUPDATE_DATA_H
#define LLU_CONFIG_LVUPDATE_DATA_H

#include <stdbool.h>

#include "base/error.h"

#define LVUPDATE_DATA "/etc/liveupdate/lvupdate.data"

struct lvupdate_data {
	bool llu;           /* are processes to be updated? No, if not said */
	unsigned retries;   /* as llvupdate -n: 1 to 10, 3 if not said */
	unsigned timeout_s; /* as llvupdate -t: 1 to 300, 30 if not said */
};

/* Reads it. Where there is no such file, *out is what holds if nothing is said. ERR_USAGE: something in it is wrong;
 * the text names the line. Other errors: as trusted__read(), since who may write to it may have processes changed. */
MUST_CHECK struct err *lvupdate_data__read(const char *path, struct lvupdate_data *out);

#endif
