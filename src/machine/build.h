/* Do two files hold the same build of a program or library? So a package that was installed once more makes nothing
 * outdated, nor does a library that was prepared by llusplit(1) meanwhile.
 *
 * By their build-ids (elf(5), NT_GNU_BUILD_ID; 64-bit and 32-bit files); where one of them has none, byte by byte.
 * A build-id is whatever somebody wrote there: nothing may be decided by it but what is printed. */
#ifndef LLU_MACHINE_BUILD_H
#define LLU_MACHINE_BUILD_H

#include <stdbool.h>

/* Both are regular files, open for reading. What cannot be read is not the same. */
bool build__same(int a, int b);

#endif
