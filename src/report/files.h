/* The files that an operation leaves: its log and its trace. By default both are in one folder: root's in
 * /var/log/liveupdate, those of others in $XDG_STATE_HOME/liveupdate (XDG Base Directory Specification; ~/.local/state
 * where it is not set). */
#ifndef LLU_REPORT_FILES_H
#define LLU_REPORT_FILES_H

#include <stdio.h>

#include "base/error.h"
#include "trace/trace.h"

/* Makes a new log, `path` or else llvupdlog in the folder; the former one keeps its contents under a name with the date
 * and time of its last line, and a number where there is one of that second. Folders that are missing are made. The
 * caller closes it. ERR_USAGE: an empty path; ERR_SYSTEM: it cannot be written. Nothing of an operation
 * depends on it. */
MUST_CHECK struct err *report__open_log(const char *path, FILE **out);

/* The same of the trace: `path`, or else trace_llu/trcfileLLU (trace.h). */
MUST_CHECK struct err *report__open_trace(const char *path, struct trace **out);

#endif
