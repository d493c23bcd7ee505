/* Unwinding with libdwfl (see unwind.h and elfutils/libdwfl.h). */
#include "freeze/unwind.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <gelf.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "inject/proc.h"

enum { FRAMES_MAX = 4096, REG_SP = 7 }; /* DWARF register number of rsp: psABI figure 3.36 */

/* A file that was reported to libdwfl. */
struct module {
	struct trange span;
	uint32_t dev_major, dev_minor;
	uint64_t inode;
};

struct unwinder {
	const struct process *p;
	const struct mappings *maps;
	Dwfl *dwfl;
	VEC(struct module) modules;

	/* of the thread at hand */
	pid_t tid;
	const struct arch_regs *regs;
	struct frames *out;
	bool failed;
	bool expect_sp; /* the frame before says what SP must be now */
	uint64_t expected_sp;
	uint64_t page; /* address of what `cache` holds, 1: nothing */
	uint8_t cache[LLU_PAGE];
};

/* --- what libdwfl asks for --- */

static pid_t next_thread(Dwfl *dwfl, void *arg, void **thread_arg)
{
	struct unwinder *u = arg;
	(void)dwfl;
	if (*thread_arg)
		return 0;
	*thread_arg = u;
	return u->tid;
}

static bool get_thread(Dwfl *dwfl, pid_t tid, void *arg, void **thread_arg)
{
	struct unwinder *u = arg;
	(void)dwfl;
	*thread_arg = u;
	return tid == u->tid;
}

static bool read_word(struct unwinder *u, uint64_t at, Dwarf_Word *result)
{
	uint64_t page = align_down(at, LLU_PAGE);
	if (at - page > LLU_PAGE - sizeof(*result)) { /* across two pages */
		ERR_CLEANUP struct err *e = process__read(u->p, taddr(at), result, sizeof(*result));
		return !e;
	}
	if (u->page != page) {
		u->page = 1;
		ERR_CLEANUP struct err *e = process__read(u->p, taddr(page), u->cache, sizeof(u->cache));
		if (e)
			return false;
		u->page = page;
	}
	memcpy(result, u->cache + (at - page), sizeof(*result));
	return true;
}

static bool memory_read(Dwfl *dwfl, Dwarf_Addr addr, Dwarf_Word *result, void *arg)
{
	struct unwinder *u = arg;
	(void)dwfl;
	if (read_word(u, addr, result))
		return true;
	u->failed = true;
	return false;
}

static bool set_initial_registers(Dwfl_Thread *thread, void *arg)
{
	struct unwinder *u = arg;
	uint64_t regs[ARCH_DWARF_REGS];
	Dwarf_Word words[ARCH_DWARF_REGS];
	size_t n = arch_regs__dwarf(u->regs, regs);
	for (size_t i = 0; i < n; i++)
		words[i] = regs[i];
	return dwfl_thread_state_registers(thread, 0, (unsigned)n, words);
}

static const Dwfl_Thread_Callbacks thread_callbacks = {
    .next_thread = next_thread,
    .get_thread = get_thread,
    .memory_read = memory_read,
    .set_initial_registers = set_initial_registers,
};

/* No search for separate debug files, on disk or in the network: .eh_frame is in the file itself. */
static int no_debuginfo(Dwfl_Module *mod, void **userdata, const char *name, Dwarf_Addr base, const char *file,
			const char *link, GElf_Word crc, char **out)
{
	(void)mod, (void)userdata, (void)name, (void)base, (void)file, (void)link, (void)crc, (void)out;
	return -1;
}

static int no_elf(Dwfl_Module *mod, void **userdata, const char *name, Dwarf_Addr base, char **file, Elf **elf)
{
	(void)mod, (void)userdata, (void)name, (void)base, (void)file, (void)elf;
	return -1;
}

static const Dwfl_Callbacks callbacks = {.find_elf = no_elf, .find_debuginfo = no_debuginfo};

/* --- modules --- */

/* From the first to the last byte of the loaded segments, without bias. */
static bool span_of(int fd, uint64_t *low, uint64_t *high, bool *fixed)
{
	*low = UINT64_MAX;
	*high = 0;
	Elf *elf = elf_begin(fd, ELF_C_READ, NULL);
	GElf_Ehdr eh;
	size_t n = 0;
	bool good = elf && gelf_getehdr(elf, &eh) && elf_getphdrnum(elf, &n) == 0;
	for (size_t i = 0; good && i < n; i++) {
		GElf_Phdr ph;
		if (!gelf_getphdr(elf, (int)i, &ph) || ph.p_type != PT_LOAD)
			continue;
		uint64_t start = align_down(ph.p_vaddr, LLU_PAGE);
		*low = start < *low ? start : *low;
		*high = ph.p_vaddr + ph.p_memsz > *high ? ph.p_vaddr + ph.p_memsz : *high;
	}
	*fixed = good && eh.e_type == ET_EXEC;
	elf_end(elf);
	return good && *high > *low;
}

/* Reports the file in `fd`, whose first page is mapped by `m`; takes over the fd. */
static void report(struct unwinder *u, const struct mapping *m, int fd)
{
	uint64_t low = 0;
	uint64_t high = 0;
	bool fixed = false;
	if (!span_of(fd, &low, &high, &fixed)) {
		close(fd);
		return;
	}
	uint64_t bias = fixed ? 0 : m->range.start.v - low;
	struct module mod = {
	    .span = {taddr(bias + low), taddr(bias + align_up(high, LLU_PAGE))},
	    .dev_major = m->dev_major,
	    .dev_minor = m->dev_minor,
	    .inode = m->inode,
	};
	for (size_t i = 0; i < u->modules.n; i++) {
		struct trange s = u->modules.items[i].span;
		if (mod.span.start.v < s.end.v && s.start.v < mod.span.end.v) {
			close(fd); /* lies in another's span: not an object of the dynamic loader */
			return;
		}
	}
	Dwfl_Module *d = dwfl_report_elf(u->dwfl, m->path, m->path, fd, bias, true);
	if (!d) {
		close(fd);
		return;
	}
	Dwarf_Addr unused;
	(void)dwfl_module_eh_cfi(d, &unused); /* now, and not when the process stands still */
	vec__push(&u->modules, mod);
}

/* The vDSO is no file; its pages are an ELF image, though (vdso(7)). */
static void report_vdso(struct unwinder *u, const struct mapping *m)
{
	size_t len = m->range.end.v - m->range.start.v;
	FREE_CLEANUP uint8_t *image = xmalloc(len);
	ERR_CLEANUP struct err *e = process__read(u->p, m->range.start, image, len);
	if (e)
		return;
	int fd = memfd_create("vdso", MFD_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, image, len) == (ssize_t)len)
		report(u, m, fd);
	else
		close(fd);
}

static void report_all(struct unwinder *u)
{
	for (size_t i = 0; i < u->maps->n; i++) {
		const struct mapping *m = &u->maps->items[i];
		char magic[4] = "";
		int fd = -1;
		if (strcmp(m->path, "[vdso]") == 0)
			report_vdso(u, m);
		if (!m->inode || m->offset || m->shared || !(m->prot & PROT_READ))
			continue;
		ERR_CLEANUP struct err *unread = process__read(u->p, m->range.start, magic, sizeof(magic));
		if (unread || memcmp(magic, ELFMAG, SELFMAG) != 0)
			continue;
		ERR_CLEANUP struct err *e = process__open_mapped(u->p, m, &fd);
		if (!e)
			report(u, m, fd);
	}
}

struct err *unwinder__new(const struct process *p, const struct mappings *maps, struct unwinder **out)
{
	struct unwinder *u = xcalloc(1, sizeof(*u));
	u->p = p;
	u->maps = maps;
	u->page = 1;
	elf_version(EV_CURRENT);
	u->dwfl = dwfl_begin(&callbacks);
	if (!u->dwfl) {
		struct err *e = process__err(p, 0, ERR_SYSTEM, 0, NULL, "dwfl_begin: %s", dwfl_errmsg(-1));
		unwinder__free(u);
		return e;
	}
	dwfl_report_begin(u->dwfl);
	report_all(u);
	if (dwfl_report_end(u->dwfl, NULL, NULL) != 0 ||
	    !dwfl_attach_state(u->dwfl, NULL, process__pid(p), &thread_callbacks, u)) {
		struct err *e = process__err(p, 0, ERR_UNREADABLE, 0, NULL, "cannot be unwound: %s", dwfl_errmsg(-1));
		unwinder__free(u);
		return e;
	}
	*out = u;
	return NULL;
}

void unwinder__free(struct unwinder *u)
{
	if (!u)
		return;
	if (u->dwfl)
		dwfl_end(u->dwfl);
	vec__free(&u->modules);
	free(u);
}

/* --- frames --- */

/* Is the code at `pc` still that of the file that was reported there? */
static bool code_of_module(const struct unwinder *u, uint64_t pc)
{
	const struct mapping *m = mappings__at(u->maps, taddr(pc));
	if (!m || !(m->prot & PROT_EXEC))
		return false;
	for (size_t i = 0; i < u->modules.n; i++) {
		const struct module *mod = &u->modules.items[i];
		if (trange__has(mod->span, taddr(pc)))
			return mod->inode == m->inode && mod->dev_major == m->dev_major &&
			       mod->dev_minor == m->dev_minor;
	}
	return false;
}

/* Where the information for `pc` says the caller's stack begins, if it says so by a register and an
 * offset, as compilers do. *known is false where it says so by an expression. */
static void note_cfa(struct unwinder *u, Dwfl_Frame *state, Dwarf_Frame *frame, bool signal_frame)
{
	Dwarf_Op *ops = NULL;
	size_t n = 0;
	Dwarf_Word reg = 0;
	u->expect_sp = false;
	if (signal_frame || dwarf_frame_cfa(frame, &ops, &n) != 0 || n != 1)
		return;
	unsigned number = 0;
	int64_t offset = 0;
	if (ops[0].atom >= DW_OP_breg0 && ops[0].atom <= DW_OP_breg31) {
		number = ops[0].atom - DW_OP_breg0;
		offset = (int64_t)ops[0].number;
	} else if (ops[0].atom == DW_OP_bregx) {
		number = (unsigned)ops[0].number;
		offset = (int64_t)ops[0].number2;
	} else {
		return;
	}
	if (dwfl_frame_reg(state, number, &reg) != 0)
		return;
	u->expect_sp = true;
	u->expected_sp = reg + (uint64_t)offset;
}

/* Has the code at `pc` call frame information? */
static bool has_cfi(struct unwinder *u, Dwfl_Frame *state, uint64_t pc)
{
	Dwarf_Addr bias = 0;
	Dwarf_Frame *frame = NULL;
	Dwfl_Module *mod = dwfl_addrmodule(u->dwfl, pc);
	Dwarf_CFI *cfi = mod && code_of_module(u, pc) ? dwfl_module_eh_cfi(mod, &bias) : NULL;
	if (!cfi || dwarf_cfi_addrframe(cfi, pc - bias, &frame) != 0)
		return false;
	Dwarf_Addr start = 0;
	Dwarf_Addr end = 0;
	bool signal_frame = false;
	if (dwarf_frame_info(frame, &start, &end, &signal_frame) < 0) {
		free(frame);
		return false;
	}
	note_cfa(u, state, frame, signal_frame);
	free(frame);
	return true;
}

static int on_frame(Dwfl_Frame *state, void *arg)
{
	struct unwinder *u = arg;
	struct frames *out = u->out;
	Dwarf_Addr pc = 0;
	Dwarf_Word sp = 0;
	bool activation = false;
	bool expect_sp = u->expect_sp;
	uint64_t expected_sp = u->expected_sp;
	if (!dwfl_frame_pc(state, &pc, &activation) || dwfl_frame_reg(state, REG_SP, &sp) != 0) {
		u->failed = true;
		return DWARF_CB_ABORT;
	}
	out->stuck_at = taddr(pc);
	vec__push(&out->v, (struct frame){taddr(pc), taddr(sp), activation});
	/* a frame that libdwfl made up from frame pointers shows here */
	if ((expect_sp && sp != expected_sp) || !has_cfi(u, state, activation ? pc : pc - 1) ||
	    out->v.n >= FRAMES_MAX) {
		u->failed = true;
		return DWARF_CB_ABORT;
	}
	return DWARF_CB_OK;
}

void unwinder__frames(struct unwinder *u, pid_t tid, const struct arch_regs *regs, struct frames *out)
{
	*out = (struct frames){0};
	u->tid = tid;
	u->regs = regs;
	u->out = out;
	u->failed = u->expect_sp = false;
	u->page = 1;
	int r = dwfl_getthread_frames(u->dwfl, tid, on_frame, u);
	out->complete = r == 0 && !u->failed && out->v.n > 0;
}
