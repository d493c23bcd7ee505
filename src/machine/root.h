/* A folder that is the root directory of a system: the machine's, or a container's, which decides itself what it holds.
 */
#ifndef LLU_MACHINE_ROOT_H
#define LLU_MACHINE_ROOT_H

/* Opens what is below the root without leaving it by a link. Kernels and sandboxes without openat2(2) are asked plainly
 * for what is the tool's own root. The caller closes it; -1 with errno. */
int root__open(const char *root, const char *path, int flags);

#endif
