/* Words of others on the way to people: names of processes, files and symbols are whatever somebody made them, and a
 * terminal obeys some of them. */
#ifndef LLU_BASE_PRINTABLE_H
#define LLU_BASE_PRINTABLE_H

/* Puts '?' for each byte of what a terminal or a reader of lines may obey: control characters (also those beyond
 * ASCII; a tab may stay), ends of lines, what turns the direction of writing, and bytes that are no UTF-8. In place;
 * returns `s`. */
char *printable(char *s);
/* A copy made printable; the caller frees it. */
char *printable__copy(const char *s);
/* A copy that is UTF-8, with '?' for each byte that is none; all else stays. The caller frees it. */
char *printable__utf8(const char *s);
/* A copy that is one word, for where words have places: printable, with '_' for each white space (Unicode's, too), and
 * "-" if there is nothing. The caller frees it. */
char *printable__word(const char *s);

#endif
