/* What is left of the words of others when people are to read them. */
#include "base/printable.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(printable, all)
{
	static const struct {
		const char *from, *to;
	} cases[] = {
	    {"", ""},
	    {"/usr/lib/libz.so.1", "/usr/lib/libz.so.1"},
	    {"a\tb", "a\tb"},
	    {"\033[2J\r\n\a\x7f", "?[2J????"},
	    {"gr\303\266\303\237e \342\202\254 \360\237\220\247", "gr\303\266\303\237e \342\202\254 \360\237\220\247"},
	    {"\302\233J", "??J"},                          /* CSI in one character */
	    {"a\342\200\256b", "a???b"},                   /* writes from right to left */
	    {"\342\200\250|\342\201\246", "???|???"},      /* a line end, an isolate */
	    {"\233J \377", "?J ?"},                        /* bytes that are no UTF-8 */
	    {"\300\257 \340\200\257", "?? ???"},           /* overlong */
	    {"\355\240\200 \364\220\200\200", "??? ????"}, /* a surrogate; too large */
	    {"cut \342\202", "cut ??"},
	    {"cut \360", "cut ?"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *s = printable__copy(cases[i].from);
		cr_assert_str_eq(s, cases[i].to, "case %zu: %s", i, s);
		free(s);
	}
}

/* Where a line is read word by word. */
Test(printable, word)
{
	static const struct {
		const char *from, *to;
	} cases[] = {
	    {"", "-"},
	    {"python3", "python3"},
	    {"tmux: server", "tmux:_server"},
	    {" \t", "__"},
	    {"a\nb\r", "a?b?"},
	    {"a\302\240b\342\200\203c\343\200\200d", "a_b_c_d"}, /* no-break, em, ideographic */
	    {"\302\205\342\200\250", "?????"},                   /* ends of lines */
	    {"gr\303\266\303\237e", "gr\303\266\303\237e"},
	    {"\377 \342\200", "?_??"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *s = printable__word(cases[i].from);
		cr_assert_str_eq(s, cases[i].to, "case %zu: %s", i, s);
		free(s);
	}
}
