/* Where a process belongs: which unit of systemd restarts it, and which container it is in.
 *
 * The source of both is /proc/PID/cgroup (cgroups(7)), which everybody may read. systemd puts each unit into a
 * control group of the unit's name, and container engines put each container into one that has its id or name; so
 * names are enough, and neither systemd nor an engine is asked. Which names they use:
 *
 *   systemd         slices, then the unit: docs/CONTROL_GROUP_INTERFACE.md, and cg_path_get_unit() and
 *                   cg_path_get_user_unit() of src/basic/cgroup-util.c, whose answers these are
 *   docker          /docker/ID, or docker-ID.scope with its systemd driver
 *   podman          libpod-ID, libpod-ID.scope, libpod-payload-ID; libpod-conmon-ID is its monitor, outside
 *   CRI             cri-containerd-ID.scope, crio-ID.scope; kubepods/.../podUID/ID where the kubelet has no systemd
 *                   driver; UNIT:cri-containerd:ID where only the engine has none
 *   LXC, Incus      lxc.payload.NAME, lxc.payload/NAME, lxc/NAME; lxc.monitor... is outside
 *   systemd-nspawn  machine-NAME.scope, or systemd-nspawn@NAME.service: in their payload, not in their supervisor
 *
 * Names of control groups are whatever somebody made them, but for newlines (kernel/cgroup/cgroup.c, cgroup_mkdir): to
 * be made printable before people see them. A process that may make control groups can thus name another unit or
 * container than is true. Nothing may be decided by it but what is printed. */
#ifndef LLU_MACHINE_WHEREABOUTS_H
#define LLU_MACHINE_WHEREABOUTS_H

#include <sys/types.h>

#include "base/error.h"

enum container_engine {
	ENGINE_NONE,       /* in no container */
	ENGINE_DOCKER,     /* also below Kubernetes */
	ENGINE_PODMAN,     /* and others of libpod */
	ENGINE_CONTAINERD, /* by its CRI or nerdctl */
	ENGINE_CRIO,
	ENGINE_KUBERNETES, /* a container of a pod; its path does not tell the engine */
	ENGINE_LXC,        /* LXC, LXD, Incus, Proxmox */
	ENGINE_MACHINE,    /* a machine of machinectl(1): systemd-nspawn, libvirt's LXC */
	ENGINE_OTHER,      /* an id of 64 hexadecimal digits, as engines have, in an unknown place */
};

/* Names are those of the control groups: "\x2d" stays in units, as systemctl(1) prints and takes it. */
struct whereabouts {
	char *unit;      /* of the system's manager, as `systemctl status PID` names it: "nginx.service", for a user's
			    unit "user@1000.service"; NULL: none */
	char *user_unit; /* of a user's manager (`systemctl --user`), or NULL */
	enum container_engine engine;
	char *container;  /* id, or name where it has one, of the innermost container; NULL: none. Of a machine the name
			     as machinectl(1) has it */
	char *inner_unit; /* the unit of the systemd that runs in the container, or NULL */
};

/* "docker", "podman", "containerd", "cri-o", "kubernetes", "lxc", "machine", "container"; "" for ENGINE_NONE. */
const char *container_engine__name(enum container_engine e);

/* From the text of /proc/PID/cgroup, cgroup v2, v1 or both. Never fails: what makes no sense is passed over. The
 * caller releases *out with whereabouts__free(). */
void whereabouts__parse(const char *text, struct whereabouts *out);
/* The same of a process. ERR_GONE when there is none, ERR_UNREADABLE. Then *out is empty. */
MUST_CHECK struct err *whereabouts__of(pid_t pid, struct whereabouts *out);
void whereabouts__free(struct whereabouts *w);

#endif
