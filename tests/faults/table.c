/* See table.h. */
#include "table.h"

#include <stdio.h>
#include <stdlib.h>

static const char *file(void)
{
	return getenv("LLU_FAULT_TABLE");
}

bool table__is_wanted(void)
{
	return file() != NULL;
}

void table__add(const char *what, const char *place, const char *outcome)
{
	FILE *f = file() ? fopen(file(), "ae") : NULL;
	if (!f)
		return;
	fprintf(f, "%s\t%s\t%s\n", what, place, outcome);
	fclose(f);
}

size_t table__stride(size_t n, size_t budget)
{
	return table__is_wanted() || n <= budget ? 1 : (n + budget - 1) / budget;
}
