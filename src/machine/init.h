/* Inits: the first process of a PID namespace, the machine's or a container's. When one ends, all of its namespace ends
 * (pid_namespaces(7)); and while a system boots or shuts down its init is about to run another program or to end. */
#ifndef LLU_MACHINE_INIT_H
#define LLU_MACHINE_INIT_H

#include <sys/types.h>

/* If the process is an init of a system that boots or shuts down: the file below its root directory that says so,
 *
 *   /run/nologin         systemd makes it when a boot begins (tmpfiles.d/systemd-nologin.conf), removes it when users
 * may log in, and makes it again when a shutdown begins (systemd-user-sessions.service(8)); administrators make it too,
 * to keep users out (pam_nologin(8)) /etc/initrd-release  the system is still in its initial RAM disk (os-release(5))
 *
 * else NULL. An init that is something else, a container's only program say, has no such file. */
const char *init__unsettled(pid_t pid);

#endif
