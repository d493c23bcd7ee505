/* The watchdog: it ends a tool that waits for a page which never comes, and nothing but that. */
#include "base/watchdog.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/support.h"

/* A page that is provided by nobody; NULL where the kernel does not let us (it wants root). */
static char *page_that_never_comes(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = {.api = UFFD_API};
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register r = {.range = {(uintptr_t)page, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};

	return fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0 && ioctl(fd, UFFDIO_REGISTER, &r) == 0 ? page : NULL;
}

Test(watchdog, ends_a_read_that_waits_for_good, .timeout = 60)
{
	char *page = page_that_never_comes(), text[64] = "";
	pid_t self = getpid();
	int out[2], status;

	if (!page)
		cr_skip_test("userfaultfd is not permitted");
	cr_assert_eq(pipe2(out, O_CLOEXEC), 0);
	pid_t tool = fork();
	if (tool == 0) {
		char byte;
		struct iovec to = {&byte, 1}, from = {page, 1};
		dup2(out[1], STDERR_FILENO);
		watchdog__start(1, "given up", 3);
		process_vm_readv(self, &to, 1, &from, 1, 0);
		_exit(0); /* it came */
	}
	cr_assert_eq(waitpid(tool, &status, 0), tool);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 3, "status %x", status);
	cr_assert_gt(read(out[0], text, sizeof(text) - 1), 0);
	cr_assert_str_eq(text, "given up\n");
}

Test(watchdog, is_called_off)
{
	for (int i = 0; i < 100; i++)
		watchdog__call_off(watchdog__start(1, "not to be seen", 3));
	/* the last of them would have come to its end by now, if it were still there */
	struct watchdog *longer = watchdog__start(60, "not to be seen", 3);
	int64_t end = support__now_ms() + 1100;
	while (support__now_ms() < end)
		;
	watchdog__call_off(longer);
	watchdog__call_off(NULL);
}
