/* See unwind_table.h. */
#include "image/unwind_table.h"

#include <dwarf.h>
#include <string.h>

enum { HEADER_SIZE = 12, ROW_SIZE = 8 };

size_t unwind_table__size(size_t n)
{
	return HEADER_SIZE + ROW_SIZE * n;
}

static void put32(uint8_t *p, uint64_t v)
{
	uint32_t w = (uint32_t)v;
	memcpy(p, &w, sizeof(w));
}

static int by_start(const void *a, const void *b)
{
	const struct unwind_row *x = a, *y = b;
	return (x->start > y->start) - (x->start < y->start);
}

void unwind_table__write(uint8_t *out, vaddr_t at, vaddr_t eh_frame, unwind_rows *rows)
{
	if (rows->n)
		qsort(rows->items, rows->n, sizeof(rows->items[0]), by_start);
	out[0] = 1;
	out[1] = DW_EH_PE_pcrel | DW_EH_PE_sdata4;
	out[2] = DW_EH_PE_udata4;
	out[3] = DW_EH_PE_datarel | DW_EH_PE_sdata4;
	put32(out + 4, eh_frame - (at + 4));
	put32(out + 8, rows->n);
	for (size_t i = 0; i < rows->n; i++) {
		put32(out + HEADER_SIZE + ROW_SIZE * i, rows->items[i].start - at);
		put32(out + HEADER_SIZE + ROW_SIZE * i + 4, rows->items[i].fde - at);
	}
}

bool unwind_table__read(const uint8_t *p, size_t size, vaddr_t at, unwind_rows *out)
{
	uint32_t n;
	if (size < HEADER_SIZE || p[0] != 1 || p[2] != DW_EH_PE_udata4 || p[3] != (DW_EH_PE_datarel | DW_EH_PE_sdata4))
		return false;
	memcpy(&n, p + 8, 4);
	if (n > (size - HEADER_SIZE) / ROW_SIZE)
		return false;
	for (size_t i = 0; i < n; i++) {
		int32_t start, fde;
		memcpy(&start, p + HEADER_SIZE + ROW_SIZE * i, 4);
		memcpy(&fde, p + HEADER_SIZE + ROW_SIZE * i + 4, 4);
		struct unwind_row r = {at + (vaddr_t)(int64_t)start, at + (vaddr_t)(int64_t)fde};
		vec__push(out, r);
	}
	return true;
}
