/* See mutate.h. */
#include "mutate.h"

#include <elf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { REGIONS_MAX = 80 };

/* ---- dice ---- */

struct dice dice__of(unsigned seed)
{
	return (struct dice){seed * 0x9e3779b97f4a7c15ull | 1};
}

uint64_t dice__roll(struct dice *d, uint64_t n)
{
	/* xorshift64* */
	d->state ^= d->state >> 12;
	d->state ^= d->state << 25;
	d->state ^= d->state >> 27;
	return n ? (d->state * 2685821657736338717ull >> 11) % n : 0;
}

/* ---- one ELF file ---- */

struct region {
	size_t at, len;
};

struct regions {
	struct region items[REGIONS_MAX];
	size_t n, size; /* size: of the file */
};

static void add(struct regions *r, uint64_t at, uint64_t len)
{
	if (r->n < REGIONS_MAX && at < r->size && len && len <= r->size - at)
		r->items[r->n++] = (struct region){at, len};
}

/* The parts of a file; the whole file when it has no header any more. */
static struct regions regions_of(const uint8_t *data, size_t size)
{
	struct regions r = {.size = size};
	Elf64_Ehdr h = {0};
	size_t end = 0;
	memcpy(&h, data, size < sizeof(h) ? size : sizeof(h));
	add(&r, 0, sizeof(h));
	add(&r, h.e_phoff, (uint64_t)h.e_phnum * sizeof(Elf64_Phdr));
	add(&r, h.e_shoff, (uint64_t)h.e_shnum * sizeof(Elf64_Shdr));
	for (unsigned i = 0; i < h.e_shnum && h.e_shoff < size && (i + 1) * sizeof(Elf64_Shdr) <= size - h.e_shoff;
	     i++) {
		Elf64_Shdr s;
		memcpy(&s, data + h.e_shoff + i * sizeof(s), sizeof(s));
		if (s.sh_type != SHT_NOBITS)
			add(&r, s.sh_offset, s.sh_size);
	}
	for (size_t i = 0; i < r.n; i++)
		end = r.items[i].at + r.items[i].len > end ? r.items[i].at + r.items[i].len : end;
	add(&r, end, size - end); /* the tail of a relinked image */
	if (r.n == 0)
		add(&r, 0, size);
	return r;
}

/* A value at which a reader may stumble. */
static uint64_t nasty(struct dice *d)
{
	static const uint64_t values[] = {0,
					  1,
					  7,
					  8,
					  0x7f,
					  0xff,
					  0xfff,
					  0x1000,
					  0xffff,
					  0x7fffffff,
					  0x80000000,
					  0xffffffff,
					  0x100000000,
					  0x7fffffffffffffff,
					  0x8000000000000000,
					  0xfffffffffffff000,
					  0xfffffffffffffff8,
					  0xffffffffffffffff};
	return values[dice__roll(d, sizeof(values) / sizeof(values[0]))];
}

/* Puts something else into one field. */
static void change_field(uint8_t *p, size_t len, struct dice *d)
{
	size_t width = (size_t)1 << dice__roll(d, 4);
	if (len < width)
		return;
	uint8_t *field = p + dice__roll(d, len / width) * width;
	const uint8_t *other = p + dice__roll(d, len / width) * width;
	uint64_t value = 0;
	memcpy(&value, field, width);
	switch (dice__roll(d, 5)) {
	case 0:
		value = nasty(d);
		break;
	case 1:
		value += (uint64_t)1 << dice__roll(d, 16);
		break;
	case 2:
		value -= (uint64_t)1 << dice__roll(d, 16);
		break;
	case 3:
		value ^= (uint64_t)1 << dice__roll(d, 8 * width);
		break;
	default:
		memcpy(&value, other, width);
		break;
	}
	memcpy(field, &value, width);
}

/* Two entries of a table change places, or one takes the other's. */
static void move_entries(uint8_t *p, size_t len, struct dice *d)
{
	static const size_t widths[] = {8, 16, sizeof(Elf64_Sym), sizeof(Elf64_Phdr), sizeof(Elf64_Shdr)};
	uint8_t saved[sizeof(Elf64_Shdr)];
	size_t width = widths[dice__roll(d, sizeof(widths) / sizeof(widths[0]))], n = len / width;
	if (n < 2)
		return;
	uint8_t *a = p + dice__roll(d, n) * width, *b = p + dice__roll(d, n) * width;
	memcpy(saved, a, width);
	memmove(a, b, width);
	if (dice__roll(d, 2))
		memcpy(b, saved, width);
}

/* libFuzzer's own mutator, within the region. */
static void change_bytes(uint8_t *p, size_t len)
{
	uint8_t *copy = malloc(len + 1);
	if (!copy)
		abort();
	memcpy(copy, p, len);
	memcpy(p, copy, LLVMFuzzerMutate(copy, len, len));
	free(copy);
}

size_t mutate__elf(uint8_t *data, size_t size, size_t max, struct dice *d)
{
	if (size < sizeof(Elf64_Ehdr) || dice__roll(d, 200) == 0)
		return LLVMFuzzerMutate(data, size, max);
	if (dice__roll(d, 200) == 0)
		return 1 + dice__roll(d, size); /* truncated */
	for (uint64_t changes = 1 + dice__roll(d, 4); changes; changes--) {
		struct regions r = regions_of(data, size);
		const struct region *x = &r.items[dice__roll(d, r.n)];
		uint64_t how = dice__roll(d, 10);
		if (how < 5)
			change_field(data + x->at, x->len, d);
		else if (how < 7)
			move_entries(data + x->at, x->len, d);
		else
			change_bytes(data + x->at, x->len);
	}
	return size;
}

/* ---- several files ---- */

struct parts parts__of(const uint8_t *data, size_t size)
{
	struct parts p = {0};
	uint32_t len[PARTS] = {0};
	const size_t head = (PARTS - 1) * sizeof(uint32_t);
	if (size < head)
		return p;
	memcpy(len, data, head);
	size_t at = head;
	for (size_t i = 0; i < PARTS; i++) {
		p.data[i] = data + at;
		p.size[i] = i == PARTS - 1 || len[i] > size - at ? size - at : len[i];
		at += p.size[i];
	}
	return p;
}

/* Changes part `k`, which may get another length if the whole stays below `max`. */
static size_t mutate_part(uint8_t *data, size_t size, size_t max, size_t k, struct dice *d)
{
	struct parts p = parts__of(data, size);
	size_t room = p.size[k] + (max - size), at = (size_t)(p.data[k] - data), rest = size - at - p.size[k];
	uint8_t *part = malloc(room + 1);
	if (!part)
		abort();
	if (p.size[k])
		memcpy(part, p.data[k], p.size[k]);
	size_t len = mutate__elf(part, p.size[k], room, d);
	memmove(data + at + len, data + at + p.size[k], rest);
	memcpy(data + at, part, len);
	free(part);
	uint32_t len32 = (uint32_t)len;
	if (k < PARTS - 1)
		memcpy(data + k * sizeof(len32), &len32, sizeof(len32));
	return at + len + rest;
}

size_t mutate__parts(uint8_t *data, size_t size, size_t max, struct dice *d)
{
	struct parts p = parts__of(data, size);
	if (!p.data[0])
		return LLVMFuzzerMutate(data, size, max);
	if (dice__roll(d, 4) == 0) { /* the first and the last alike: what both have is compared further */
		struct dice again = *d;
		size = mutate_part(data, size, max, 0, d);
		return mutate_part(data, size, max, PARTS - 1, &again);
	}
	size_t k = dice__roll(d, PARTS);
	return mutate_part(data, size, max, p.size[k] ? k : PARTS - 1, d);
}
