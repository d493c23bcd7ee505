/* Shared by the files that read what Zydis decoded; not for others. */
#ifndef LLU_ARCH_ZYDIS_X86_64_H
#define LLU_ARCH_ZYDIS_X86_64_H

#include <Zydis/Zydis.h>

#include "arch/decode.h"

/* What insn__decode() says, of an instruction at `at` that is decoded already. False: not to be understood. */
bool insn__of_zydis(const ZydisDecodedInstruction *d, vaddr_t at, struct insn *out);

#endif
