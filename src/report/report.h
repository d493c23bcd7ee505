/* Outcomes as people and pipelines read them. This room decides nothing: it prints what it is given. */
#ifndef LLU_REPORT_REPORT_H
#define LLU_REPORT_REPORT_H

#include <stdio.h>

#include "base/error.h"

/* "COMMAND: subject: why" and, indented on its own line, what the user can do. */
void report__error(FILE *to, const char *command, const struct err *e);

#endif
