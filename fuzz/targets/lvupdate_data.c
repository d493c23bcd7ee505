/* Reading lvupdate.data. */
#include "config/lvupdate_data.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

/* In a folder of our own: the reader takes no other. */
static char folder[] = "/tmp/llu-fuzz-XXXXXX", path[sizeof(folder) + 16];

static void remove_file(void)
{
	unlink(path);
	rmdir(folder);
}

static void write_file(const uint8_t *data, size_t size)
{
	static int fd = -1;
	if (fd < 0) {
		MUST(mkdtemp(folder));
		atexit(remove_file);
		snprintf(path, sizeof(path), "%s/data", folder);
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	}
	MUST(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lvupdate_data d;
	write_file(data, size);
	ERR_CLEANUP struct err *e = lvupdate_data__read(path, &d);
	if (e) {
		MUST(err__kind(e) == ERR_USAGE || size > 1 << 16);
		MUST(strstr(err__text(e), ": line ") || size > 1 << 16);
		for (const char *c = err__text(e); *c; c++)
			MUST((unsigned char)*c >= ' ' || *c == '\t');
	} else {
		MUST(d.retries >= 1 && d.retries <= 10 && d.timeout_s >= 1 && d.timeout_s <= 300);
		MUST(!d.llu || memmem(data, size, "yes", 3));
		MUST(!memchr(data, 0, size));
	}
	return 0;
}
