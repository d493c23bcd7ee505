/* See printable.h. */
#include "base/printable.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

/* The character at `s`, and in how many bytes; 0: no UTF-8 (RFC 3629, section 4: no overlong forms, no surrogates). */
static size_t decode(const uint8_t *s, uint32_t *out)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
	uint32_t c = n == 1 ? s[0] : n ? s[0] & (0x7fu >> n) : 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80) /* the zero byte at the end too */
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	*out = c;
	return n && c >= least[n] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) ? n : 0;
}

/* Unicode 15: general categories Cc, Zl and Zp; Bidi_Control, and its isolates. */
static bool is_obeyed(uint32_t c)
{
	return (c < 0x20 && c != '\t') || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
	       (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

static char *replace(char *s, bool obeyed_too)
{
	for (uint8_t *p = (uint8_t *)s; *p;) {
		uint32_t c = 0;
		size_t n = decode(p, &c);
		bool bad = n == 0 || (obeyed_too && is_obeyed(c));
		for (size_t i = 0; i < (n ? n : 1); i++, p++)
			*p = bad ? '?' : *p;
	}
	return s;
}

char *printable(char *s)
{
	return replace(s, true);
}

char *printable__utf8(const char *s)
{
	return replace(xstrdup(s), false);
}

char *printable__copy(const char *s)
{
	return printable(xstrdup(s));
}

/* Unicode 15: White_Space, as far as printable() leaves it. */
static bool is_white(uint32_t c)
{
	return c == '\t' || c == ' ' || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x202f ||
	       c == 0x205f || c == 0x3000;
}

char *printable__word(const char *s)
{
	char *word = printable__copy(*s ? s : "-"), *to = word;
	for (const char *p = word; *p;) {
		uint32_t c = 0;
		size_t n = decode((const uint8_t *)p, &c);
		if (is_white(c))
			*to++ = '_';
		else
			for (size_t i = 0; i < n; i++)
				*to++ = p[i];
		p += n;
	}
	*to = 0;
	return word;
}
