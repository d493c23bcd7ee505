/* Lists of addresses that are sorted once, and then asked. */
#ifndef LLU_IMAGE_VADDR_LIST_H
#define LLU_IMAGE_VADDR_LIST_H

#include "base/types.h"
#include "base/vec.h"

typedef VEC(vaddr_t) vaddr_list;
typedef VEC(struct vrange) vrange_list;

void vaddr_list__sort(vaddr_list *l);
/* Of a sorted list: the index of the first that is `a` or above it, l->n if there is none; and whether `a` is in it. */
size_t vaddr_list__from(const vaddr_list *l, vaddr_t a);
bool vaddr_list__has(const vaddr_list *l, vaddr_t a);

#endif
