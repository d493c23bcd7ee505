/* See plan_file.h. What a plan consists of is said once, in fields(), for both directions. */
#include "image/plan_file.h"

#include <nettle/sha2.h>
#include <string.h>

#define PLAN_MAGIC "LLUPLAN"
enum { PLAN_FILE_VERSION = 8 };

struct head {
	char magic[8];
	uint32_t version, zero;
	struct plan_key key;
	uint64_t len; /* bytes of the plan */
};

/* ---- the key ---- */

static void hash_number(struct sha256_ctx *h, uint64_t n)
{
	sha256_update(h, sizeof(n), (const uint8_t *)&n);
}

/* With its length in front, so that no two inputs give the same bytes. */
static void hash_bytes(struct sha256_ctx *h, const void *p, size_t n)
{
	hash_number(h, n);
	if (n)
		sha256_update(h, n, p);
}

static void hash_file(struct sha256_ctx *h, const struct elf_file *e)
{
	sha256_update(h, ELF_DIGEST_LEN, elf_file__digest(e));
}

static void hash_map(struct sha256_ctx *h, const struct live_map *m)
{
	static const struct live_map none;
	if (!m)
		m = &none;
	hash_number(h, m->base);
	hash_number(h, m->slots != NULL);
	hash_bytes(h, m->slots, m->slots ? m->n_slots * sizeof(vaddr_t) : 0);
	hash_number(h, m->n_held);
	for (size_t i = 0; i < m->n_held; i++) { /* one by one: between fields there may be padding */
		hash_number(h, m->held[i].slot);
		hash_number(h, m->held[i].function);
		hash_bytes(h, m->held[i].build_id, m->held[i].build_id_len);
	}
	hash_bytes(h, m->consts, m->n_consts * sizeof(struct live_const));
	hash_bytes(h, m->pieces, m->n_pieces * sizeof(struct piece));
	hash_bytes(h, m->jumps, m->n_jumps * sizeof(struct entry_jump));
	hash_number(h, m->n_past);
	for (size_t i = 0; i < m->n_past; i++) {
		hash_bytes(h, m->past[i].build_id, m->past[i].build_id_len);
		hash_bytes(h, m->past[i].pieces, m->past[i].n_pieces * sizeof(struct piece));
	}
}

struct plan_key plan_key__make(const struct plan_inputs *in)
{
	struct sha256_ctx h;
	struct plan_key key;
	sha256_init(&h);
	hash_number(&h, PLAN_FILE_VERSION);
	hash_bytes(&h, in->maker, in->maker_len);
	hash_file(&h, in->vapi);
	hash_number(&h, in->vapi->plain != NULL);
	hash_number(&h, in->live == in->vapi);
	if (in->live != in->vapi)
		hash_file(&h, in->live);
	hash_file(&h, in->next);
	hash_map(&h, in->map);
	hash_bytes(&h, in->live_debug, strlen(in->live_debug));
	hash_bytes(&h, in->next_debug, strlen(in->next_debug));
	sha256_digest(&h, sizeof(key.bytes), key.bytes);
	return key;
}

char *plan_key__hex(const struct plan_key *key)
{
	return build_id__hex(key->bytes, sizeof(key->bytes));
}

/* ---- numbers, strings, lists, in both directions ---- */

struct io {
	bool reading;
	bool damaged;            /* reading: what follows means nothing */
	VEC(uint8_t) out;        /* writing */
	const uint8_t *at, *end; /* reading */
	struct plan *p;
};

static uint8_t next_byte(struct io *io)
{
	if (io->at == io->end) {
		io->damaged = true;
		return 0;
	}
	return *io->at++;
}

static void number(struct io *io, uint64_t *v)
{
	if (!io->reading) {
		uint64_t rest = *v;
		for (; rest > 0x7f; rest >>= 7)
			vec__push(&io->out, (uint8_t)(rest | 0x80));
		vec__push(&io->out, (uint8_t)rest);
		return;
	}
	*v = 0;
	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint8_t b = next_byte(io);
		*v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return;
	}
	io->damaged = true;
}

static void flag(struct io *io, bool *v)
{
	uint64_t n = *v;
	number(io, &n);
	io->damaged = io->damaged || n > 1;
	*v = n == 1;
}

/* A number of things of which each takes a byte at least. */
static void count(struct io *io, size_t *n)
{
	number(io, n);
	if (io->reading && *n > (size_t)(io->end - io->at))
		io->damaged = true;
	if (io->damaged)
		*n = 0;
}

static void write_text(struct io *io, const char *s)
{
	size_t n = strlen(s);
	count(io, &n);
	for (size_t i = 0; i < n; i++)
		vec__push(&io->out, (uint8_t)s[i]);
}

static char *read_text(struct io *io)
{
	size_t n = 0;
	count(io, &n);
	char *s = xcalloc(n + 1, 1);
	memcpy(s, io->at, n);
	io->at += n;
	io->damaged = io->damaged || strlen(s) != n;
	return s;
}

/* A string that the plan owns; no field of it is NULL. */
static void text(struct io *io, char **s)
{
	if (io->reading)
		*s = read_text(io);
	else
		write_text(io, *s);
}

/* A string that a field points to, and something else owns; may be NULL. */
static void name(struct io *io, const char **s)
{
	bool there = *s != NULL;
	flag(io, &there);
	if (io->reading && there) {
		*s = read_text(io);
		vec__push(&io->p->kept, (char *)*s);
	} else if (*s) {
		write_text(io, *s);
	}
}

/* A list: its length, then `item` for each. */
#define LIST(io, list, item)                                                                                           \
	do {                                                                                                           \
		size_t n_ = (list)->n;                                                                                 \
		count(io, &n_);                                                                                        \
		if ((io)->reading) {                                                                                   \
			(list)->items = n_ ? xcalloc(n_, sizeof(*(list)->items)) : NULL;                               \
			(list)->n = (list)->cap = n_;                                                                  \
		}                                                                                                      \
		for (size_t i_ = 0; i_ < n_ && !(io)->damaged; i_++)                                                   \
			item(io, &(list)->items[i_]);                                                                  \
	} while (0)

/* ---- the parts of a plan ---- */

static void reason(struct io *io, struct reason *r)
{
	name(io, &r->code);
	text(io, &r->text);
	io->damaged = io->damaged || !r->code;
}

static void patch(struct io *io, struct patch *x)
{
	number(io, &x->site);
	number(io, &x->from);
	number(io, &x->to);
	flag(io, &x->own_got);
}

static void own_got(struct io *io, struct new_got *g)
{
	uint64_t kind = g->kind;
	number(io, &kind);
	io->damaged = io->damaged || kind > NEW_GOT_TPOFF;
	g->kind = kind;
	name(io, &g->name);
	name(io, &g->version);
	flag(io, &g->weak);
	number(io, &g->value);
	flag(io, &g->relative);
	flag(io, &g->in_image);
	io->damaged = io->damaged || (g->kind == NEW_GOT_SYMBOL && (!g->name || !g->version));
}

static void word(struct io *io, struct relro_word *w)
{
	number(io, &w->where);
	number(io, &w->value);
	flag(io, &w->in_image);
	uint64_t plain = w->plain;
	number(io, &plain);
	io->damaged = io->damaged || plain > 8;
	w->plain = (uint8_t)plain;
}

static void piece(struct io *io, struct piece *q)
{
	number(io, &q->at);
	number(io, &q->len);
	number(io, &q->home);
}

static void constant(struct io *io, struct live_const *c)
{
	number(io, &c->at);
	number(io, &c->home);
}

static void unwind(struct io *io, struct unwind_row *r)
{
	number(io, &r->start);
	number(io, &r->fde);
}

static void succession(struct io *io, struct succession *s)
{
	number(io, &s->start);
	number(io, &s->end);
	number(io, &s->next);
	number(io, &s->identical);
}

static void tail_return(struct io *io, struct tail_return *r)
{
	number(io, &r->at);
	number(io, &r->next);
}

static void jump(struct io *io, struct entry_jump *m)
{
	number(io, &m->entry);
	number(io, &m->to);
}

static void leave(struct io *io, struct vrange *r)
{
	number(io, &r->start);
	number(io, &r->end);
}

static void private_use(struct io *io, struct private_use *u)
{
	name(io, &u->name);
	number(io, &u->at);
	io->damaged = io->damaged || !u->name;
}

static void private_give(struct io *io, const char **s)
{
	name(io, s);
	io->damaged = io->damaged || !*s;
}

static void verdict(struct io *io, enum layout_verdict *v)
{
	uint64_t n = *v;
	number(io, &n);
	io->damaged = io->damaged || n > LAYOUT_CHANGED; /* an overruled plan is never kept */
	*v = io->damaged ? LAYOUT_NOT_JUDGED : (enum layout_verdict)n;
}

/* One for each slot of the VAPI; none where builds were not compared. */
static void slots(struct io *io, struct plan *p)
{
	bool there = p->slots != NULL;
	flag(io, &there);
	if (io->reading && there)
		p->slots = xcalloc(p->vapi->vapi.n_slots, sizeof(vaddr_t));
	for (uint32_t i = 0; there && i < p->vapi->vapi.n_slots && !io->damaged; i++)
		number(io, &p->slots[i]);
}

static void counts(struct io *io, struct plan_counts *c)
{
	size_t *const all[] = {&c->identical, &c->changed,        &c->added,      &c->removed,
			       &c->rebound,   &c->kept_constants, &c->new_exports};
	_Static_assert(sizeof(all) / sizeof(all[0]) == sizeof(*c) / sizeof(size_t), "each count has its place here");
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		number(io, all[i]);
}

/* Whoever adds something to a plan: give it a line below, or say that it is not kept (borrowed files, overrule,
 * not_to_keep, kept, tools), raise PLAN_FILE_VERSION, and put the new size here. (A field that fits into a hole of a
 * struct goes unnoticed.) */
_Static_assert(sizeof(struct plan) == 584 && sizeof(struct reason) == 16 && sizeof(struct patch) == 32 &&
		   sizeof(struct new_got) == 48 && sizeof(struct relro_word) == 24 && sizeof(struct live_const) == 16 &&
		   sizeof(struct piece) == 24 && sizeof(struct unwind_row) == 16 && sizeof(struct succession) == 32 &&
		   sizeof(struct entry_jump) == 16 && sizeof(struct private_use) == 16 &&
		   sizeof(struct tail_return) == 16 && sizeof(struct vrange) == 16,
	       "plan_file.c does not know all of a plan");

static void fields(struct io *io, struct plan *p)
{
	verdict(io, &p->layout);
	LIST(io, &p->refusals, reason);
	LIST(io, &p->remarks, text);
	LIST(io, &p->patches, patch);
	LIST(io, &p->new_got, own_got);
	LIST(io, &p->words, word);
	LIST(io, &p->own_words, own_got);
	LIST(io, &p->pieces, piece);
	LIST(io, &p->consts, constant);
	slots(io, p);
	LIST(io, &p->unwind, unwind);
	LIST(io, &p->functions, succession);
	LIST(io, &p->returns, tail_return);
	LIST(io, &p->jumps, jump);
	number(io, &p->n_moved);
	LIST(io, &p->leaves, leave);
	LIST(io, &p->private_uses, private_use);
	LIST(io, &p->private_gives, private_give);
	LIST(io, &p->pages, number);
	flag(io, &p->entangled);
	number(io, &p->image_len);
	number(io, &p->got_at);
	number(io, &p->own_at);
	counts(io, &p->counts);
}

/* ---- what users of a plan rely on ---- */

static bool slots_are_sane(const struct plan *p)
{
	for (uint32_t i = 0; p->slots && i < p->vapi->vapi.n_slots; i++) {
		vaddr_t f = p->slots[i];
		if (f && f != SLOT_HELD && !elf_file__is_code(p->next, f))
			return false;
	}
	return p->slots || p->refusals.n;
}

static bool patches_are_sane(const struct plan *p)
{
	uint64_t offset;
	for (size_t i = 0; i < p->patches.n; i++) {
		const struct patch *x = &p->patches.items[i];
		if (!elf_file__offset(p->next, x->site, 4, &offset) || (x->own_got && x->to / 8 >= p->new_got.n))
			return false;
	}
	return true;
}

/* Jumps lie in the loaded code, one behind the other; what is exchanged are pages of it. */
static bool jumps_are_sane(const struct plan *p)
{
	vaddr_t behind = 0;
	for (size_t i = 0; i < p->jumps.n; i++) {
		const struct entry_jump *j = &p->jumps.items[i];
		if (j->entry < behind || !elf_file__is_code(p->vapi, j->entry) ||
		    !elf_file__is_code(p->vapi, j->entry + ARCH_JUMP_SIZE - 1) || !elf_file__is_code(p->next, j->to))
			return false;
		behind = j->entry + ARCH_JUMP_SIZE;
	}
	for (size_t i = 0; i < p->pages.n; i++)
		if (p->pages.items[i] % LLU_PAGE || p->pages.items[i] >= p->vapi->vapi.end ||
		    (i > 0 && p->pages.items[i] <= p->pages.items[i - 1]))
			return false;
	for (size_t i = 0; i < p->leaves.n; i++)
		if (p->leaves.items[i].start >= p->leaves.items[i].end || p->leaves.items[i].end > p->vapi->vapi.end)
			return false;
	return p->vapi->plain || (!p->jumps.n && !p->pages.n && !p->leaves.n);
}

static bool lengths_are_sane(const struct plan *p)
{
	const uint64_t max = 1ULL << 40;
	return p->image_len < max && p->image_len % LLU_PAGE == 0 && p->got_at <= p->image_len &&
	       p->new_got.n <= (p->image_len - p->got_at) / 8 && p->own_at <= p->image_len &&
	       p->own_words.n <= (p->image_len - p->own_at) / 8;
}

/* ---- the whole ---- */

static struct plan_key checksum(const uint8_t *p, size_t n)
{
	struct sha256_ctx h;
	struct plan_key sum;
	sha256_init(&h);
	sha256_update(&h, n, p);
	sha256_digest(&h, sizeof(sum.bytes), sum.bytes);
	return sum;
}

uint8_t *plan_file__encode(const struct plan *p, const struct plan_key *key, size_t *size)
{
	struct plan copy = *p; /* not written to */
	struct io io = {.p = &copy};
	fields(&io, &copy);
	struct head head = {.magic = PLAN_MAGIC, .version = PLAN_FILE_VERSION, .key = *key, .len = io.out.n};
	*size = sizeof(head) + io.out.n + sizeof(struct plan_key);
	uint8_t *out = xmalloc(*size);
	memcpy(out, &head, sizeof(head));
	memcpy(out + sizeof(head), io.out.items, io.out.n);
	struct plan_key sum = checksum(out, sizeof(head) + io.out.n);
	memcpy(out + sizeof(head) + io.out.n, &sum, sizeof(sum));
	vec__free(&io.out);
	return out;
}

static bool is_whole(const uint8_t *data, size_t size, const struct plan_key *key)
{
	struct head head;
	if (size < sizeof(head) + sizeof(struct plan_key))
		return false;
	memcpy(&head, data, sizeof(head));
	if (memcmp(head.magic, PLAN_MAGIC, sizeof(head.magic)) != 0 || head.version != PLAN_FILE_VERSION ||
	    head.zero != 0 || memcmp(&head.key, key, sizeof(*key)) != 0 ||
	    head.len != size - sizeof(head) - sizeof(struct plan_key))
		return false;
	struct plan_key sum = checksum(data, size - sizeof(sum));
	return memcmp(data + size - sizeof(sum), &sum, sizeof(sum)) == 0;
}

struct plan *plan_file__decode(const uint8_t *data, size_t size, const struct plan_inputs *in,
			       const struct plan_key *key)
{
	if (!is_whole(data, size, key))
		return NULL;
	struct plan *p = xcalloc(1, sizeof(*p));
	p->vapi = in->vapi;
	p->live = in->live;
	p->next = in->next;
	struct io io = {
	    .reading = true, .p = p, .at = data + sizeof(struct head), .end = data + size - sizeof(struct plan_key)};
	fields(&io, p);
	if (io.damaged || io.at != io.end || !slots_are_sane(p) || !patches_are_sane(p) || !lengths_are_sane(p) ||
	    !jumps_are_sane(p)) {
		plan__free(p);
		return NULL;
	}
	return p;
}
