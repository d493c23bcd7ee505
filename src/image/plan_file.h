/* A plan as bytes, so that it is made once for all processes that need it.
 *
 *     +----------------------+ 0
 *     | struct head          | magic, version of the format, key, length of what follows
 *     +----------------------+
 *     | the plan, field by   | numbers as LEB128, strings with their length in front
 *     | field                |
 *     +----------------------+
 *     | SHA-256              | of all before
 *     +----------------------+ end
 *
 * The key says for what the plan was made. Of hostile bytes it is checked that they are what was
 * written, that nothing is read or written outside of anything, and that addresses are where the plan's
 * users take them to be. No process and no path is in sight.
 */
#ifndef LLU_IMAGE_PLAN_FILE_H
#define LLU_IMAGE_PLAN_FILE_H

#include "image/plan.h"

enum { PLAN_KEY_SIZE = 32 };

struct plan_key {
	uint8_t bytes[PLAN_KEY_SIZE];
};

/* All that a plan depends on. */
struct plan_inputs {
	const struct elf_file *vapi, *live, *next;
	const struct live_map *map;          /* of live; may be NULL */
	const char *live_debug, *next_debug; /* which debug information there is for them (types__stamp()) */
	const void *maker;                   /* what tells this program, and the libraries it runs on, from another */
	size_t maker_len;
};

/* SHA-256 over the inputs: files by their contents, not by their build-ids, which anybody may write into a
 * file. */
struct plan_key plan_key__make(const struct plan_inputs *in);
/* 64 hex digits; the caller frees them. */
char *plan_key__hex(const struct plan_key *key);

/* The plan's bytes, *size of them; the caller frees them. To be taken before anybody changes the plan: before the
 * overrule file and --require-proof are applied. */
uint8_t *plan_file__encode(const struct plan *p, const struct plan_key *key, size_t *size);

/* The plan that the bytes hold, for the files of `in` whose key is `key`; the files must outlive it, and the
 * caller frees it with plan__free(). NULL when the bytes are damaged or of another key. */
struct plan *plan_file__decode(const uint8_t *data, size_t size, const struct plan_inputs *in,
			       const struct plan_key *key);

#endif
