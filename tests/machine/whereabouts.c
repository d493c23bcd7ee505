/* Where processes belong, told from control groups as they are on machines. */
#include "machine/whereabouts.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/support.h"

TestSuite(whereabouts, .fini = support__teardown, .timeout = 60);

#define ID  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ID2 "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define POD "a1b2c3d4_1111_2222_3333_444455556666"

static const struct {
	const char *text;
	struct whereabouts want;
} cases[] = {
    /* systemd, cgroup v2 */
    {"0::/init.scope\n", {.unit = "init.scope"}},
    {"0::/system.slice/nginx.service\n", {.unit = "nginx.service"}},
    {"0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n", {.unit = "postgresql@15-main.service"}},
    {"0::/system.slice/systemd-udevd.service/udev\n", {.unit = "systemd-udevd.service"}},
    {"0::/user.slice/user-1000.slice/session-3.scope\n", {.unit = "session-3.scope"}},
    {"0::/user.slice/user-1000.slice/user@1000.service/init.scope\n",
     {.unit = "user@1000.service", .user_unit = "init.scope"}},
    {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-12ed.scope\n",
     {.unit = "user@1000.service", .user_unit = "vte-spawn-12ed.scope"}},
    {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox\\x2desr@autostart.service\n",
     {.unit = "user@1000.service", .user_unit = "app-firefox\\x2desr@autostart.service"}},
    {"0::/system.slice/dev-disk-by\\x2duuid-17b4.swap\n", {.unit = "dev-disk-by\\x2duuid-17b4.swap"}},
    {"0::/system.slice/_cpuset.service\n", {.unit = "cpuset.service"}}, /* escaped, as there is a controller cpuset */
    {"0::/system.slice/gone.service (deleted)\n", {.unit = "gone.service"}},
    {"0::/system.slice\n", {0}},
    {"0::/\n", {0}},
    {"", {0}},
    /* systemd, v1 and both */
    {"12:pids:/system.slice/cron.service\n1:name=systemd:/system.slice/cron.service\n0::/system.slice/cron.service\n",
     {.unit = "cron.service"}},
    {"9:name=systemd:/\n8:pids:/\n4:memory:/jobs/7\n0::/system.slice/job.service\n", {.unit = "job.service"}},
    {"4:memory:/system.slice\n1:name=systemd:/system.slice/cron.service\n", {.unit = "cron.service"}},
    /* engines */
    {"0::/system.slice/docker-" ID ".scope\n",
     {.unit = "docker-" ID ".scope", .engine = ENGINE_DOCKER, .container = ID}},
    {"11:cpu,cpuacct:/docker/" ID "\n1:name=systemd:/docker/" ID "\n0::/system.slice/containerd.service\n",
     {.unit = "containerd.service", .engine = ENGINE_DOCKER, .container = ID}},
    {"0::/system.slice/docker-" ID ".scope/system.slice/ssh.service\n",
     {.unit = "docker-" ID ".scope", .engine = ENGINE_DOCKER, .container = ID, .inner_unit = "ssh.service"}},
    {"0::/machine.slice/libpod-" ID ".scope/container\n",
     {.unit = "libpod-" ID ".scope", .engine = ENGINE_PODMAN, .container = ID}},
    {"0::/machine.slice/libpod-" ID ".scope/container/system.slice/httpd.service\n",
     {.unit = "libpod-" ID ".scope", .engine = ENGINE_PODMAN, .container = ID, .inner_unit = "httpd.service"}},
    {"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID ".scope/container\n",
     {.unit = "user@1000.service", .user_unit = "libpod-" ID ".scope", .engine = ENGINE_PODMAN, .container = ID}},
    {"0::/system.slice/web.service/libpod-payload-" ID "\n",
     {.unit = "web.service", .engine = ENGINE_PODMAN, .container = ID}},
    {"0::/machine.slice/libpod-conmon-" ID ".scope\n", {.unit = "libpod-conmon-" ID ".scope"}},
    {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" POD ".slice/cri-containerd-" ID ".scope\n",
     {.unit = "cri-containerd-" ID ".scope", .engine = ENGINE_CONTAINERD, .container = ID}},
    {"0::/kubepods.slice/kubepods-pod" POD ".slice/crio-" ID ".scope\n",
     {.unit = "crio-" ID ".scope", .engine = ENGINE_CRIO, .container = ID}},
    {"0::/kubepods.slice/kubepods-pod" POD ".slice/crio-conmon-" ID ".scope\n", {.unit = "crio-conmon-" ID ".scope"}},
    {"0::/kubepods/besteffort/pod" POD "/" ID "\n", {.engine = ENGINE_KUBERNETES, .container = ID}},
    {"1:name=systemd:/system.slice/containerd.service/kubepods-burstable-pod" POD ".slice:cri-containerd:" ID "\n",
     {.unit = "containerd.service", .engine = ENGINE_CONTAINERD, .container = ID}},
    {"0::/docker/" ID "/kubelet.slice/kubelet-kubepods.slice/cri-containerd-" ID2 ".scope\n", /* kind */
     {.engine = ENGINE_CONTAINERD, .container = ID2}},
    {"0::/ecs/my-cluster/" ID "\n", {.engine = ENGINE_OTHER, .container = ID}},
    /* containers that are machines */
    {"0::/lxc.payload.web/system.slice/nginx.service\n",
     {.engine = ENGINE_LXC, .container = "web", .inner_unit = "nginx.service"}},
    {"0::/lxc.monitor.web\n", {0}},
    {"0::/lxc/101/ns/system.slice/cron.service\n",
     {.engine = ENGINE_LXC, .container = "101", .inner_unit = "cron.service"}},
    {"0::/machine.slice/machine-deb\\x2d12.scope/payload/system.slice/ssh.service\n",
     {.unit = "machine-deb\\x2d12.scope",
      .engine = ENGINE_MACHINE,
      .container = "deb-12",
      .inner_unit = "ssh.service"}},
    {"0::/machine.slice/systemd-nspawn@web.service/payload\n",
     {.unit = "systemd-nspawn@web.service", .engine = ENGINE_MACHINE, .container = "web"}},
    {"0::/machine.slice/systemd-nspawn@web.service/supervisor\n", {.unit = "systemd-nspawn@web.service"}},
    {"0::/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator\n",
     {.unit = "machine-qemu\\x2d1\\x2dvm.scope"}},
    {"0::/lxc.payload.ci/system.slice/docker-" ID ".scope\n", {.engine = ENGINE_DOCKER, .container = ID}},
    /* seen from within a container */
    {"0::/../../nginx.service\n", {.unit = "nginx.service"}},
    /* made to confuse */
    {"0::/system.slice/docker-0123.scope\n", {.unit = "docker-0123.scope"}},
    {"0::/docker/" ID "0\n", {0}},
    {"0::/system.slice/a b.service\n", {0}},
    {"0::/system.slice/.service\n", {0}},
    {"0::/x:0::/system.slice/y.service\n", {0}},
    {"::::::\n:\n\n0\n0:\n0::\n0::system.slice/nginx.service\n", {0}},
    {"0::/machine.slice/machine-\\x00\\x2.scope",
     {.unit = "machine-\\x00\\x2.scope", .engine = ENGINE_MACHINE, .container = "\\x00\\x2"}},
    {"0::/system.slice/no-newline.service", {.unit = "no-newline.service"}},
};

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

Test(whereabouts, of_real_and_odd_texts)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct whereabouts *want = &cases[i].want;
		struct whereabouts w;
		whereabouts__parse(cases[i].text, &w);
		cr_expect(same(w.unit, want->unit), "%s: unit %s", cases[i].text, w.unit);
		cr_expect(same(w.user_unit, want->user_unit), "%s: user unit %s", cases[i].text, w.user_unit);
		cr_expect(same(w.container, want->container), "%s: container %s", cases[i].text, w.container);
		cr_expect(same(w.inner_unit, want->inner_unit), "%s: inner unit %s", cases[i].text, w.inner_unit);
		cr_expect_str_eq(container_engine__name(w.engine), container_engine__name(want->engine), "%s",
				 cases[i].text);
		whereabouts__free(&w);
	}
}

Test(whereabouts, of_a_process)
{
	struct whereabouts w;
	struct err *e = whereabouts__of(getpid(), &w);
	cr_assert_null(e, "%s", err__text(e));
	whereabouts__free(&w);
}

Test(whereabouts, of_no_process)
{
	struct whereabouts w;
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	ERR_CLEANUP struct err *gone = whereabouts__of(pid, &w), *none = whereabouts__of(0, &w);
	cr_assert(gone && err__kind(gone) == ERR_GONE);
	cr_assert(none && err__kind(none) == ERR_USAGE);
	whereabouts__free(&w);
}
