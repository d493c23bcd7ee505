/* See clean_up.h. */
#include "crew/clean_up.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "crew/channel.h"
#include "crew/child.h"
#include "crew/guest.h"

/* One thing that was found, or, behind all, how it ended: then `failed` says that there is an error, whose text and
 * hint these are. Each text is behind the head, with its final 0; one that is not there is empty. */
struct head {
	int32_t pid;
	uint32_t kind;
	uint8_t failed, there[4];
};

static bool send_one(int channel, enum message m, struct head h, const char *const texts[4])
{
	VEC(char) bytes = {0};
	for (size_t i = 0; i < 4; i++)
		h.there[i] = texts[i] != NULL;
	for (size_t i = 0; i < sizeof(h); i++)
		vec__push(&bytes, ((const char *)&h)[i]);
	for (size_t i = 0; i < 4; i++) {
		const char *s = texts[i] ? texts[i] : "";
		do
			vec__push(&bytes, *s);
		while (*s++);
	}
	bool sent = channel__send(channel, m, bytes.items, bytes.n, -1);
	vec__free(&bytes);
	return sent;
}

static _Noreturn void work(int channel, pid_t parent)
{
	recovery_list list = {0};
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(1);
	guest__enter(&channel, 1);
	guest__ignore_signals();
	signal(SIGCHLD, SIG_DFL);
	struct err *e = recover__all(&list);
	for (size_t i = 0; i < list.n; i++) {
		const struct recovery *r = &list.items[i];
		struct head h = {.pid = r->pid, .kind = r->kind, .failed = r->failed};
		if (!send_one(channel, MESSAGE_RECOVERED, h, (const char *[]){r->name, r->library, r->text, r->hint}))
			_exit(1);
	}
	struct head end = {.kind = e ? err__kind(e) : 0, .failed = e != NULL};
	const char *texts[4] = {e ? err__text(e) : NULL, e ? err__hint(e) : NULL, NULL, NULL};
	_exit(send_one(channel, MESSAGE_OVER, end, texts) ? 0 : 1);
}

/* False: the bytes make no sense. The caller frees the texts. */
static bool decode(const uint8_t *bytes, size_t len, struct head *h, char *texts[4])
{
	if (len < sizeof(*h) || bytes[len - 1] != 0)
		return false;
	memcpy(h, bytes, sizeof(*h));
	size_t at = sizeof(*h);
	for (size_t i = 0; i < 4; i++) {
		const char *s = (const char *)bytes + at;
		if (at >= len)
			s = "";
		else
			at += strlen(s) + 1;
		texts[i] = h->there[i] ? xstrdup(s) : NULL;
	}
	return at == len;
}

/* Takes in a message; *over: it is the last, with *e. False: it makes no sense. */
static bool take(enum message m, const uint8_t *bytes, size_t len, recovery_list *out, bool *over, struct err **e)
{
	struct head h;
	char *texts[4] = {NULL};
	bool good = (m == MESSAGE_RECOVERED || m == MESSAGE_OVER) && decode(bytes, len, &h, texts);
	if (good && m == MESSAGE_RECOVERED) {
		vec__push(out, (struct recovery){.pid = h.pid,
						 .name = texts[0],
						 .library = texts[1],
						 .text = texts[2],
						 .hint = texts[3],
						 .failed = h.failed,
						 .kind = (enum err_kind)h.kind});
		return true;
	}
	*over = good;
	if (good && h.failed)
		*e = err__new((enum err_kind)h.kind, 0, NULL, texts[1], "%s", texts[0] ? texts[0] : "");
	for (size_t i = 0; i < 4; i++)
		free(texts[i]);
	return good;
}

struct err *clean_up__all(recovery_list *out)
{
	static const char again[] = "run it again";
	int ends[2];
	pid_t self = getpid();
	if (!channel__new(ends))
		return err__new(ERR_SYSTEM, errno, NULL, again, "no process can be made that cleans up");
	pid_t pid = child__fork();
	if (pid == 0) {
		close(ends[0]);
		work(ends[1], self);
	}
	int why = errno;
	close(ends[1]);
	struct err *e = NULL;
	bool over = false, good = pid > 0;
	while (good && !over) {
		enum message m;
		uint8_t *bytes = NULL;
		size_t len;
		good = channel__receive(ends[0], &m, &bytes, &len, NULL) && take(m, bytes, len, out, &over, &e);
		free(bytes);
	}
	close(ends[0]);
	if (pid < 0)
		return err__new(ERR_SYSTEM, why, NULL, again, "no process can be made that cleans up");
	FREE_CLEANUP char *how = child__end(pid);
	return over ? e : err__new(ERR_SYSTEM, 0, NULL, again, "the process that cleans up %s", how);
}
