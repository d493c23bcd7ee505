/* See report.h. */
#include "report/report.h"

void report__error(FILE *to, const char *command, const struct err *e)
{
	fprintf(to, "%s: %s\n", command, err__text(e));
	if (err__hint(e))
		fprintf(to, "  %s\n", err__hint(e));
}
