/* Metrics as text: what a reader of Prometheus's format gets, whatever the words are. */
#include "report/metrics.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static char *text;
static size_t len;

static void expect_sample(const struct metric_label *labels, size_t n, double value, const char *want)
{
	FILE *f = open_memstream(&text, &len);
	metrics__sample(f, "m", labels, n, value);
	fclose(f);
	cr_expect_str_eq(text, want, "%s", text);
	free(text);
}

Test(metrics, family)
{
	FILE *f = open_memstream(&text, &len);
	metrics__family(f, "llu_processes", METRIC_GAUGE, "Processes that run \"old\" code \\ so far.\nmore");
	metrics__family(f, "llu_updates_total", METRIC_COUNTER, "Updates.");
	fclose(f);
	cr_expect_str_eq(text, "# HELP llu_processes Processes that run \"old\" code \\\\ so far.?more\n"
			       "# TYPE llu_processes gauge\n"
			       "# HELP llu_updates_total Updates.\n"
			       "# TYPE llu_updates_total counter\n");
	free(text);
}

Test(metrics, labels)
{
	const struct metric_label two[] = {{"unit", "nginx.service"}, {"path", "/usr/lib/libz.so.1"}};
	const struct metric_label gaps[] = {{"a", NULL}, {"unit", ""}, {"b", NULL}};
	expect_sample(NULL, 0, 3, "m 3\n");
	expect_sample(two, 2, 3, "m{unit=\"nginx.service\",path=\"/usr/lib/libz.so.1\"} 3\n");
	expect_sample(gaps, 3, 3, "m{unit=\"\"} 3\n");
	expect_sample(gaps, 1, 3, "m 3\n");
}

/* Nobody can add a sample, or make the text unreadable, by the name of a process or file. */
Test(metrics, words_of_others)
{
	static const char *const cases[][2] = {
	    {"x\"} 1\nother{a=\"", "x\\\"} 1?other{a=\\\""},
	    {"app-a\\x2db.scope", "app-a\\\\x2db.scope"},
	    {"a\\", "a\\\\"},
	    {"a\r\033[0m\377b", "a??[0m?b"},
	    {"gr\303\266\303\237e", "gr\303\266\303\237e"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char want[128];
		snprintf(want, sizeof(want), "m{l=\"%s\"} 0\n", cases[i][1]);
		expect_sample(&(const struct metric_label){"l", cases[i][0]}, 1, 0, want);
	}
}

Test(metrics, values)
{
	static const struct {
		double value;
		const char *text;
	} cases[] = {{0, "0"},
		     {0.1, "0.1"},
		     {-2.5, "-2.5"},
		     {1795406400, "1795406400"},
		     {9007199254740991, "9007199254740991"},
		     {0.30000000000000004, "0.30000000000000004"},
		     {1e300, "1e+300"},
		     {INFINITY, "+Inf"},
		     {-INFINITY, "-Inf"},
		     {NAN, "NaN"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char want[64];
		snprintf(want, sizeof(want), "m %s\n", cases[i].text);
		expect_sample(NULL, 0, cases[i].value, want);
	}
}
