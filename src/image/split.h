/* The split: makes an LLU-capable library from a finished one. No compiler, no source.
 *
 * What it changes in IN's own bytes: the values of exported function symbols, relocation addends and
 * lea operands that mean a function (all become its stub), the first contents of lazily bound GOT
 * slots, dynamic tags, program headers; notes and hash table move to make room. Code, data,
 * versions, TLS and SONAME stay where they are. The layout of what is added is drawn in vapi.h.
 */
#ifndef LLU_IMAGE_SPLIT_H
#define LLU_IMAGE_SPLIT_H

#include "image/code.h"
#include "image/vaddr_list.h"

struct split_options {
	const struct elf_file *like; /* a split library whose slot order is kept, or NULL */
	unsigned window_percent;     /* size of the window in percent of code and constants; 0: SPLIT_WINDOW_PERCENT */
};

/* Address space is cheap, and while old images stay mapped each update takes a window of its own. */
enum { SPLIT_WINDOW_PERCENT = 600 };

/* Splits `in`. The result is the same, byte for byte, for the same input and options. *out is
 * *out_size bytes; the caller frees it. ERR_REFUSED says what in the file cannot be split. */
MUST_CHECK struct err *split__make(const struct elf_file *in, const struct split_options *opt, uint8_t **out,
				   size_t *out_size);

/* Functions whose address escapes other than by their symbol: lea, relocations, DT_FINI. Sorted,
 * each once. What must have a stub, besides the exports. The caller frees the items. */
void split__taken_functions(const struct code *code, vaddr_list *out);

/* Is this symbol an export that gets a stub? */
bool split__is_function_export(const struct elf_file *e, const struct elf_symbol *s);

#endif
