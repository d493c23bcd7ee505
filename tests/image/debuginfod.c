/* Debug information from a server: a build without any is asked for by its build-id where DEBUGINFOD_URLS says
 * whom. The server is python3's own for files, with the layout that debuginfod(8) has. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/types.h"
#include "support/support.h"

static pid_t server;

static void teardown(void)
{
	if (server > 0) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	server = 0;
	support__teardown();
}

TestSuite(debuginfod, .fini = teardown, .timeout = 60);

static void run(const char *const argv[])
{
	struct result r = command__run(argv, 60);
	cr_assert_eq(r.exit_code, 0, "%s: %s", argv[0], r.err);
	result__free(&r);
}

/* Serves the files below `dir`; returns the port, once the server says that it listens there. */
static int serve(const char *dir)
{
	char line[256] = "";
	int pipes[2], port = 0;
	cr_assert_eq(pipe(pipes), 0);
	server = fork();
	cr_assert(server >= 0);
	if (server == 0) {
		dup2(pipes[1], STDOUT_FILENO);
		close(pipes[0]);
		execlp("python3", "python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", dir, "0",
		       NULL);
		_exit(127);
	}
	close(pipes[1]);
	FILE *f = fdopen(pipes[0], "r");
	cr_assert(f && fgets(line, sizeof(line), f), "the server says nothing");
	cr_assert_eq(sscanf(line, "Serving HTTP on 127.0.0.1 port %d", &port), 1, "%s", line);
	fclose(f);
	return port;
}

static struct types *types_in(const char *file)
{
	struct types *t = NULL;
	ELF_CLEANUP struct elf_file *e = NULL;
	ERR_CLEANUP struct err *failed = elf_file__read(file, &e);
	cr_assert_null(failed);
	failed = types__find(e, NULL, &t);
	cr_assert_null(failed, "%s", failed ? err__text(failed) : "");
	return t;
}

Test(debuginfod, types_come_from_the_server_that_is_configured)
{
	static const char source[] = "struct point { int x; long y; };\n"
				     "long sum(struct point *p) { return p->x + p->y; }\n";
	const char *dir = temp_dir(), *c = path_of("%s/point.c", dir), *lib = path_of("%s/libpoint.so", dir);
	file__write(c, source, strlen(source));
	run((const char *const[]){"gcc", "-g", "-shared", "-fPIC", "-Wl,--build-id=0x0123456789abcdef0123456789abcdef",
				  "-o", lib, c, NULL});
	const char *served = path_of("%s/srv/buildid/0123456789abcdef0123456789abcdef", dir);
	run((const char *const[]){"mkdir", "-p", served, NULL});
	run((const char *const[]){"objcopy", "--only-keep-debug", lib, path_of("%s/debuginfo", served), NULL});
	run((const char *const[]){"strip", lib, NULL});

	setenv("DEBUGINFOD_CACHE_PATH", path_of("%s/cache", dir), 1);
	unsetenv("DEBUGINFOD_URLS");
	struct types *without = types_in(lib);
	cr_assert_not(types__found(without));
	types__free(without);

	setenv("DEBUGINFOD_URLS", path_of("http://127.0.0.1:%d", serve(path_of("%s/srv", dir))), 1);
	struct types *t = types_in(lib);
	cr_assert(types__found(t), "%s", types__source(t));
	cr_assert_str_eq(types__source(t), "debuginfod");
	types__free(t);
}
