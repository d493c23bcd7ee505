/* See channel.h. */
#include "crew/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"

enum { LEN_MAX = 64 << 20 };

struct head {
	uint32_t message, len;
};

bool channel__new(int ends[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0;
}

static bool send_all(int channel, const uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = send(channel, p, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

bool channel__send(int channel, enum message m, const void *bytes, size_t len, int fd)
{
	struct head h = {m, (uint32_t)len};
	struct iovec v = {&h, sizeof(h)};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = {.msg_iov = &v, .msg_iovlen = 1};
	if (len > LEN_MAX)
		return false;
	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	ssize_t n;
	do
		n = sendmsg(channel, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	/* the head is shorter than what a socket takes at once (unix(7): a stream may split, but not so little) */
	return n == (ssize_t)sizeof(h) && send_all(channel, bytes, len);
}

static bool receive_all(int channel, uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = recv(channel, p, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static int file_of(struct msghdr *msg)
{
	int fd = -1;
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}

bool channel__receive(int channel, enum message *m, uint8_t **bytes, size_t *len, int *fd)
{
	struct head h;
	struct iovec v = {&h, sizeof(h)};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = {.msg_iov = &v,
			     .msg_iovlen = 1,
			     .msg_control = fd ? &control : NULL,
			     .msg_controllen = fd ? sizeof(control) : 0};
	ssize_t n;
	do
		n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (fd)
		*fd = n > 0 ? file_of(&msg) : -1;
	*bytes = NULL;
	*len = 0;
	if (n <= 0 || !receive_all(channel, (uint8_t *)&h + n, sizeof(h) - (size_t)n) || h.len > LEN_MAX)
		return false;
	*m = h.message;
	*len = h.len;
	*bytes = xmalloc(h.len ? h.len : 1);
	if (receive_all(channel, *bytes, h.len))
		return true;
	free(*bytes);
	*bytes = NULL;
	return false;
}
