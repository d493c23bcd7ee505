/* Text of metrics as Prometheus reads it, version 0.0.4 of its text exposition format (Prometheus documentation,
 * "Exposition formats"). Families of metrics one after the other, each with its samples behind it:
 *
 *     # HELP llu_processes Processes that run outdated code.
 *     # TYPE llu_processes gauge
 *     llu_processes{unit="nginx.service"} 4
 *
 * Names of metrics and labels are the caller's own, and must be right ([a-zA-Z_][a-zA-Z0-9_]*); values of labels may be
 * words of others: all that the format would take for its own is escaped, and bytes that are no UTF-8, which make a
 * reader refuse the whole text, become '?' (so do control characters). Whether it could be written says ferror(3). */
#ifndef LLU_REPORT_METRICS_H
#define LLU_REPORT_METRICS_H

#include <stddef.h>
#include <stdio.h>

enum metric_type { METRIC_GAUGE, METRIC_COUNTER };

struct metric_label {
	const char *name;
	const char *value; /* NULL: the label is left out */
};

/* Begins a family. */
void metrics__family(FILE *f, const char *name, enum metric_type type, const char *help);
/* One value of it; `n` labels may be none. */
void metrics__sample(FILE *f, const char *name, const struct metric_label *labels, size_t n, double value);

#endif
