/* A datagram socket that stands in for the reader of a log. */
#ifndef LLU_TESTS_REPORT_INBOX_H
#define LLU_TESTS_REPORT_INBOX_H

#include <stddef.h>

int inbox__open(const char *path);
/* The next datagram that is there, with a zero byte behind it, to be freed; NULL: there is none. */
char *inbox__next(int fd, size_t *len);

/* The value of a field of an entry in journald's native protocol, to be freed; NULL: it has none. Fails the test when
 * the entry is not well-formed. */
char *entry__field(const char *entry, size_t len, const char *key, size_t *value_len);

#endif
