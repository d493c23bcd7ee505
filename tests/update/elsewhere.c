/* A process in another mount namespace, which does not have the folder of relinked images. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "scene.h"

TestSuite(elsewhere, .fini = support__teardown);

/* The image goes into memory of the process's own, where the next update finds it again. */
Test(elsewhere, without_the_store)
{
	if (geteuid() != 0)
		cr_skip_test("only root can make a mount namespace");
	struct scene s = scene__prepare("libstate.so.1", fixture_library("v1", "libstate.so.1"), BY_RENAME);
	const char *argv[] = {"/usr/bin/unshare",
			      "--mount",
			      "--propagation",
			      "private",
			      "sh",
			      "-c",
			      "mount -t tmpfs none /var/cache && exec " FIXTURE_DIR "/state_driver",
			      NULL};
	struct map m[8];

	scene__start(&s, argv);
	target__rounds(s.target, 2, 1);
	for (int version = 2; version <= 3; version++) {
		scene__install(&s, path_of("v%d", version));
		scene__update(&s);
		target__rounds(s.target, 2, version);
	}
	cr_assert_gt(maps__find(target__pid(s.target), "/memfd:llu-image", m, 8), 0, "no image in its own memory");
	cr_assert_eq(maps__find(target__pid(s.target), "/var/cache/llu/", m, 8), 0, "the store is mapped");
	scene__install(&s, "v1");
	scene__update(&s);
	target__rounds(s.target, 2, 1);
	free(target__finish(s.target));
}
