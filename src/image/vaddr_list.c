/* See vaddr_list.h. */
#include "image/vaddr_list.h"

#include <stdlib.h>

static int by_address(const void *a, const void *b)
{
	vaddr_t x = *(const vaddr_t *)a, y = *(const vaddr_t *)b;
	return (x > y) - (x < y);
}

void vaddr_list__sort(vaddr_list *l)
{
	if (l->n)
		qsort(l->items, l->n, sizeof(vaddr_t), by_address);
}

size_t vaddr_list__from(const vaddr_list *l, vaddr_t a)
{
	size_t lo = 0, hi = l->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (l->items[mid] < a)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool vaddr_list__has(const vaddr_list *l, vaddr_t a)
{
	size_t i = vaddr_list__from(l, a);
	return i < l->n && l->items[i] == a;
}
