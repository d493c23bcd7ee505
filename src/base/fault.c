/* See fault.h. Single-threaded, as the tool is. */
#ifdef LLU_FAULTS

#include "base/fault.h"

#include <elf.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/vec.h"

enum { DEPTH = 48, PLACE_MAX = 512, PIECES = 8, WORD = 8 };

/* ---- names of our own functions: the symbol table of this very file ---- */

struct function {
	uint64_t start, end;
	const char *name;
};

static VEC(struct function) functions;
extern const char __executable_start[];

static int by_start(const void *a, const void *b)
{
	const struct function *x = a, *y = b;
	return (x->start > y->start) - (x->start < y->start);
}

static void read_symbols(const char *file)
{
	const Elf64_Ehdr *h = (const Elf64_Ehdr *)file;
	const Elf64_Shdr *s = (const Elf64_Shdr *)(file + h->e_shoff);
	for (unsigned i = 0; i < h->e_shnum; i++) {
		if (s[i].sh_type != SHT_SYMTAB)
			continue;
		const Elf64_Sym *sym = (const Elf64_Sym *)(file + s[i].sh_offset);
		for (size_t k = 0; k < s[i].sh_size / sizeof(*sym); k++) {
			struct function f = {sym[k].st_value, sym[k].st_value + sym[k].st_size,
					     file + s[s[i].sh_link].sh_offset + sym[k].st_name};
			if (ELF64_ST_TYPE(sym[k].st_info) == STT_FUNC && sym[k].st_size)
				vec__push(&functions, f);
		}
	}
	qsort(functions.items, functions.n, sizeof(functions.items[0]), by_start);
}

static void read_functions(void)
{
	struct stat st;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		abort();
	const char *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0); /* kept: names lie there */
	close(fd);
	if (file == MAP_FAILED)
		abort();
	read_symbols(file);
}

static const char *function_at(uint64_t address)
{
	size_t lo = 0, hi = functions.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (functions.items[mid].end <= address)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < functions.n && functions.items[lo].start <= address ? functions.items[lo].name : NULL;
}

static bool is_plumbing(const char *name)
{
	static const char *const plumbing[] = {"pass", "name_place", "call", "go"};
	for (size_t i = 0; i < sizeof(plumbing) / sizeof(plumbing[0]); i++)
		if (!strcmp(name, plumbing[i]))
			return true;
	return !strncmp(name, "fault__", 7);
}

/* What is done, and by whom: callers of the primitive, innermost first, up to main(). */
static void name_place(const char *what, char out[PLACE_MAX])
{
	void *frames[DEPTH];
	int n = backtrace(frames, DEPTH);
	size_t len = (size_t)snprintf(out, PLACE_MAX, "%s:", what);
	char sep = ' ';
	if (functions.n == 0)
		read_functions();
	for (int i = 0; i < n && len < PLACE_MAX; i++) {
		const char *name =
		    function_at((uint64_t)(uintptr_t)frames[i] - 1 - (uint64_t)(uintptr_t)__executable_start);
		if (!name || is_plumbing(name))
			continue;
		if (!strcmp(name, "main"))
			break;
		len += (size_t)snprintf(out + len, PLACE_MAX - len, "%c%.*s", sep, (int)strcspn(name, "."), name);
		sep = '<';
	}
}

/* ---- the environment ---- */

static bool is_now(const char *when, unsigned long number, const char *place)
{
	char *end;
	unsigned long n = when ? strtoul(when, &end, 10) : 0;
	if (!when || !*when)
		return false;
	return *end ? strcmp(when, place) == 0 : n == number;
}

/* The same, and never again. */
static bool is_now_once(const char *variable, unsigned long number, const char *place)
{
	if (!is_now(getenv(variable), number, place))
		return false;
	unsetenv(variable);
	return true;
}

static void list(const char *fmt, unsigned long number, const char *text)
{
	const char *path = getenv("LLU_FAULT_LIST");
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	if (fd < 0)
		return;
	dprintf(fd, fmt, number, text);
	close(fd);
}

static void kill_target(unsigned long number, const char *place)
{
	const char *s = getenv("LLU_FAULT_KILL_TARGET");
	char *when;
	pid_t pid = s ? (pid_t)strtol(s, &when, 10) : 0;
	if (pid > 0 && *when == ':' && is_now(when + 1, number, place)) {
		kill(pid, SIGKILL);
		unsetenv("LLU_FAULT_KILL_TARGET");
	}
}

static void pass(const char *what)
{
	static unsigned long number;
	char place[PLACE_MAX];
	int saved = errno;
	number++;
	name_place(what, place);
	list("%lu\t%s\n", number, place);
	kill_target(number, place);
	if (is_now_once("LLU_FAULT_STOP", number, place))
		raise(SIGSTOP);
	if (is_now_once("LLU_FAULT", number, place)) {
		dprintf(STDERR_FILENO, "killed at %s\n", place);
		raise(SIGKILL);
	}
	errno = saved;
}

/* ---- what the primitives call ---- */

void fault__point(const char *what)
{
	pass(what);
}

void fault__request(long request, bool after)
{
	static const struct {
		long request;
		const char *before, *after;
	} requests[] = {
	    {PTRACE_SEIZE, "SEIZE before", "SEIZE after"},
	    {PTRACE_INTERRUPT, "INTERRUPT before", "INTERRUPT after"},
	    {PTRACE_SETREGSET, "SETREGSET before", "SETREGSET after"},
	    {PTRACE_CONT, "CONT before", "CONT after"},
	    {PTRACE_SYSCALL, "SYSCALL before", "SYSCALL after"},
	    {PTRACE_DETACH, "DETACH before", "DETACH after"},
	    {PTRACE_SETSIGMASK, "SETSIGMASK before", "SETSIGMASK after"},
	    {PTRACE_SETOPTIONS, "SETOPTIONS before", "SETOPTIONS after"},
	    {PTRACE_LISTEN, "LISTEN before", "LISTEN after"},
	};
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		if (requests[i].request == request)
			pass(after ? requests[i].after : requests[i].before);
}

/* Two halves, of bulk more; whole words, as the kernel writes no less in one go. */
size_t fault__piece(size_t len, size_t done)
{
	size_t piece = len / (len > 4096 ? PIECES : 2) / WORD * WORD;
	return piece && piece < len - done ? piece : len - done;
}

bool fault__call(int64_t nr, int64_t *result)
{
	static unsigned long number;
	char place[PLACE_MAX], what[32];
	const char *s = getenv("LLU_FAULT_CALL");
	char *end;
	number++;
	snprintf(what, sizeof(what), "syscall %ld", (long)nr);
	name_place(what, place);
	list("call %lu\t%s\n", number, place);
	if (!s || strtoul(s, &end, 10) != number || *end != ':')
		return false;
	*result = -strtol(end + 1, NULL, 10);
	return true;
}

#else
typedef int fault__none; /* ISO C wants a declaration in every file */
#endif
