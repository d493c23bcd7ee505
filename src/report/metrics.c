/* See metrics.h. */
#include "report/metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/printable.h"

/* Values of labels have '"' escaped too, help texts not. */
static void put_escaped(FILE *f, const char *s, bool quoted)
{
	FREE_CLEANUP char *clean = printable__copy(s);
	for (const char *c = clean; *c; c++) {
		if (*c == '\\' || (quoted && *c == '"'))
			fputc('\\', f);
		fputc(*c, f);
	}
}

void metrics__family(FILE *f, const char *name, enum metric_type type, const char *help)
{
	static const char *const types[] = {[METRIC_GAUGE] = "gauge", [METRIC_COUNTER] = "counter"};
	fprintf(f, "# HELP %s ", name);
	put_escaped(f, help, false);
	fprintf(f, "\n# TYPE %s %s\n", name, types[type]);
}

/* As Go's ParseFloat takes it; so that it comes back as the same number, and is short where that is possible. */
static void put_value(FILE *f, double v)
{
	char text[32];
	if (isnan(v) || isinf(v)) {
		fputs(isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf", f);
		return;
	}
	for (int digits = 15; digits <= 17; digits += 2) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	fputs(text, f);
}

void metrics__sample(FILE *f, const char *name, const struct metric_label *labels, size_t n, double value)
{
	const char *before = "{";
	fputs(name, f);
	for (size_t i = 0; i < n; i++) {
		if (!labels[i].value)
			continue;
		fprintf(f, "%s%s=\"", before, labels[i].name);
		put_escaped(f, labels[i].value, true);
		fputc('"', f);
		before = ",";
	}
	fputs(*before == ',' ? "} " : " ", f);
	put_value(f, value);
	fputc('\n', f);
}
