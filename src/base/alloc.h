/* Memory that is there or ends the tool.
 *
 * Law 1 (docs/design.md) makes the death of the tool harmless to every target at every instant, so
 * running out of memory needs no path of its own: these print one line and abort.
 */
#ifndef LLU_BASE_ALLOC_H
#define LLU_BASE_ALLOC_H

#include <stddef.h>
#include <stdlib.h>

void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
/* `n` items of `size` bytes, zeroed. */
void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
void *xreallocarray(void *p, size_t n, size_t size) __attribute__((returns_nonnull));
void *xmemdup(const void *p, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
/* A formatted string; the caller frees it. */
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2), malloc, returns_nonnull));

/* Releases what a scope owns: `FREE_CLEANUP char *s = xstrdup(...);` */
void free_cleanup(void *pp);
#define FREE_CLEANUP __attribute__((cleanup(free_cleanup)))

/* Closes a file descriptor at the end of a scope unless it is negative. */
void close_cleanup(int *fd);
#define CLOSE_CLEANUP __attribute__((cleanup(close_cleanup)))

#endif
