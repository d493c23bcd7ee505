/* See inbox.h. */
#include "inbox.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { DATAGRAM_MAX = 1 << 16 };

int inbox__open(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cr_assert(fd >= 0 && strlen(path) < sizeof(a.sun_path));
	strcpy(a.sun_path, path);
	cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0, "%s", path);
	return fd;
}

char *inbox__next(int fd, size_t *len)
{
	char *text = calloc(1, DATAGRAM_MAX + 1);
	ssize_t n = recv(fd, text, DATAGRAM_MAX, 0);
	if (n < 0) {
		free(text);
		return NULL;
	}
	*len = (size_t)n;
	return text;
}

char *entry__field(const char *entry, size_t len, const char *key, size_t *value_len)
{
	char *found = NULL;
	for (const char *p = entry, *end = entry + len; p < end;) {
		const char *line = memchr(p, '\n', (size_t)(end - p)), *equals, *value;
		uint64_t n = 0;
		cr_assert_not_null(line, "a line without end");
		equals = memchr(p, '=', (size_t)(line - p));
		size_t name = (size_t)((equals ? equals : line) - p);
		for (size_t i = 0; i < name; i++)
			cr_assert(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", p[i]) && p[0] != '_');
		if (equals) {
			value = equals + 1;
			n = (uint64_t)(line - value);
		} else {
			cr_assert(end - line > 9);
			for (int i = 7; i >= 0; i--)
				n = n << 8 | (uint8_t)line[1 + i];
			value = line + 9;
			cr_assert(n < (uint64_t)(end - value) && value[n] == '\n', "the length is wrong");
		}
		if (strlen(key) == name && memcmp(p, key, name) == 0) {
			cr_assert_null(found, "%s is there twice", key);
			found = strndup(value, n);
			if (value_len)
				*value_len = n;
		}
		p = value + n + 1;
	}
	return found;
}
