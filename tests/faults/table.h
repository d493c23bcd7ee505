/* The fault table: with LLU_FAULT_TABLE=FILE in the environment every point is tried, not a sample of them, and a line
 * for each goes to the file (bench/fault-table makes the table of it). */
#ifndef LLU_TESTS_FAULTS_TABLE_H
#define LLU_TESTS_FAULTS_TABLE_H

#include <stdbool.h>
#include <stddef.h>

/* Is every point wanted? */
bool table__is_wanted(void);
/* One line: what was done (of a few words), where, and what became of it. */
void table__add(const char *what, const char *place, const char *outcome);

/* How many steps to go on in a list of `n` so that it takes at most `budget` of them; 1 when the table is
 * wanted. */
size_t table__stride(size_t n, size_t budget);

#endif
