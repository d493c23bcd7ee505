/* Expressions of call frame information (DWARF 5, 2.5; see cfi.h).
 *
 * What occurs in practice: linkers describe PLT entries by rip and a comparison, kernels and C libraries describe
 * signal frames by offsets from rsp and a read. All stack operations of the standard are understood; those that
 * name a debugging entry, an object, a thread's storage or another address space are not.
 */
#include <dwarf.h>
#include <string.h>

#include "freeze/cfi.h"
#include "freeze/cfi_read.h"

enum { STACK_MAX = 64, STEPS_MAX = 1000 };

struct machine {
	const struct cfi_frame *f;
	struct bytes at; /* what follows */
	const uint8_t *start;
	uint64_t stack[STACK_MAX];
	size_t n;
	bool bad;
};

static void push(struct machine *m, uint64_t v)
{
	if (m->n == STACK_MAX)
		m->bad = true;
	else
		m->stack[m->n++] = v;
}

static uint64_t pop(struct machine *m)
{
	if (m->n == 0) {
		m->bad = true;
		return 0;
	}
	return m->stack[--m->n];
}

static void pick(struct machine *m, size_t i)
{
	if (i >= m->n)
		m->bad = true;
	else
		push(m, m->stack[m->n - 1 - i]);
}

static void push_register(struct machine *m, uint64_t n, int64_t offset)
{
	if (n >= ARCH_DWARF_REGS || !(m->f->known >> n & 1))
		m->bad = true;
	else
		push(m, m->f->reg[n] + (uint64_t)offset);
}

static void dereference(struct machine *m, size_t size)
{
	uint64_t v = 0;
	taddr_t at = taddr(pop(m));
	if (m->bad || size == 0 || size > 8 || !m->f->read(m->f->arg, at, &v)) {
		m->bad = true;
		return;
	}
	push(m, size == 8 ? v : v & ((1ull << 8 * size) - 1));
}

/* Forward or back by a signed distance, inside the expression. */
static void jump(struct machine *m, int16_t distance)
{
	ptrdiff_t to = m->at.p - m->start + distance;
	if (m->bad || to < 0 || to > m->at.end - m->start)
		m->bad = true;
	else
		m->at.p = m->start + to;
}

static void turn(struct machine *m)
{
	if (m->n < 3) {
		m->bad = true;
		return;
	}
	uint64_t top = m->stack[m->n - 1];
	m->stack[m->n - 1] = m->stack[m->n - 2];
	m->stack[m->n - 2] = m->stack[m->n - 3];
	m->stack[m->n - 3] = top;
}

static uint64_t shift(uint8_t op, uint64_t a, uint64_t by)
{
	if (op == DW_OP_shl)
		return by < 64 ? a << by : 0;
	if (op == DW_OP_shr)
		return by < 64 ? a >> by : 0;
	return (uint64_t)((int64_t)a >> (by < 64 ? by : 63));
}

/* Operations on the two upper words; comparisons are signed. */
static bool two_operands(struct machine *m, uint8_t op)
{
	uint64_t b = pop(m);
	uint64_t a = pop(m);
	int64_t sa = (int64_t)a;
	int64_t sb = (int64_t)b;
	uint64_t r = 0;
	switch (op) {
	case DW_OP_and:
		r = a & b;
		break;
	case DW_OP_or:
		r = a | b;
		break;
	case DW_OP_xor:
		r = a ^ b;
		break;
	case DW_OP_plus:
		r = a + b;
		break;
	case DW_OP_minus:
		r = a - b;
		break;
	case DW_OP_mul:
		r = a * b;
		break;
	case DW_OP_div:
		m->bad = m->bad || sb == 0 || (sb == -1 && sa == INT64_MIN);
		r = m->bad ? 0 : (uint64_t)(sa / sb);
		break;
	case DW_OP_mod:
		m->bad = m->bad || b == 0;
		r = m->bad ? 0 : a % b;
		break;
	case DW_OP_shl:
	case DW_OP_shr:
	case DW_OP_shra:
		r = shift(op, a, b);
		break;
	case DW_OP_eq:
		r = a == b;
		break;
	case DW_OP_ne:
		r = a != b;
		break;
	case DW_OP_ge:
		r = sa >= sb;
		break;
	case DW_OP_gt:
		r = sa > sb;
		break;
	case DW_OP_le:
		r = sa <= sb;
		break;
	case DW_OP_lt:
		r = sa < sb;
		break;
	default:
		return false;
	}
	push(m, r);
	return true;
}

/* A constant that follows: size in bytes, signed or not. */
static bool constant(struct machine *m, uint8_t op)
{
	switch (op) {
	case DW_OP_const1u:
		push(m, bytes__fixed(&m->at, 1));
		return true;
	case DW_OP_const1s:
		push(m, (uint64_t)(int8_t)bytes__fixed(&m->at, 1));
		return true;
	case DW_OP_const2u:
		push(m, bytes__fixed(&m->at, 2));
		return true;
	case DW_OP_const2s:
		push(m, (uint64_t)(int16_t)bytes__fixed(&m->at, 2));
		return true;
	case DW_OP_const4u:
		push(m, bytes__fixed(&m->at, 4));
		return true;
	case DW_OP_const4s:
		push(m, (uint64_t)(int32_t)bytes__fixed(&m->at, 4));
		return true;
	case DW_OP_const8u:
	case DW_OP_const8s:
		push(m, bytes__fixed(&m->at, 8));
		return true;
	case DW_OP_constu:
		push(m, bytes__uleb(&m->at));
		return true;
	case DW_OP_consts:
		push(m, (uint64_t)bytes__sleb(&m->at));
		return true;
	default:
		return false;
	}
}

static bool on_the_stack(struct machine *m, uint8_t op)
{
	switch (op) {
	case DW_OP_dup:
		pick(m, 0);
		return true;
	case DW_OP_over:
		pick(m, 1);
		return true;
	case DW_OP_pick:
		pick(m, bytes__fixed(&m->at, 1));
		return true;
	case DW_OP_drop:
		(void)pop(m);
		return true;
	case DW_OP_swap: {
		uint64_t b = pop(m);
		uint64_t a = pop(m);
		push(m, b);
		push(m, a);
		return true;
	}
	case DW_OP_rot:
		turn(m);
		return true;
	default:
		return false;
	}
}

static bool one_operand(struct machine *m, uint8_t op)
{
	switch (op) {
	case DW_OP_deref:
		dereference(m, 8);
		return true;
	case DW_OP_deref_size:
		dereference(m, bytes__fixed(&m->at, 1));
		return true;
	case DW_OP_plus_uconst:
		push(m, pop(m) + bytes__uleb(&m->at));
		return true;
	case DW_OP_abs: {
		uint64_t a = pop(m);
		push(m, (int64_t)a < 0 ? -a : a);
		return true;
	}
	case DW_OP_neg:
		push(m, -pop(m));
		return true;
	case DW_OP_not:
		push(m, ~pop(m));
		return true;
	default:
		return false;
	}
}

static void step(struct machine *m)
{
	uint8_t op = (uint8_t)bytes__fixed(&m->at, 1);
	if (op >= DW_OP_lit0 && op <= DW_OP_lit31) {
		push(m, op - DW_OP_lit0);
		return;
	}
	if (op >= DW_OP_breg0 && op <= DW_OP_breg31) {
		push_register(m, op - DW_OP_breg0, bytes__sleb(&m->at));
		return;
	}
	switch (op) {
	case DW_OP_bregx: {
		uint64_t n = bytes__uleb(&m->at);
		push_register(m, n, bytes__sleb(&m->at));
		return;
	}
	case DW_OP_skip:
		jump(m, (int16_t)bytes__fixed(&m->at, 2));
		return;
	case DW_OP_bra: {
		int16_t distance = (int16_t)bytes__fixed(&m->at, 2);
		if (pop(m))
			jump(m, distance);
		return;
	}
	case DW_OP_nop:
		return;
	default:
		if (!constant(m, op) && !on_the_stack(m, op) && !one_operand(m, op) && !two_operands(m, op))
			m->bad = true;
	}
}

bool cfi__evaluate(const struct cfi_frame *f, const uint8_t *expr, size_t len, const uint64_t *first, uint64_t *out)
{
	struct machine m = {.f = f, .at = {expr, expr + len, false}, .start = expr};
	if (first)
		push(&m, *first);
	for (int steps = 0; !m.bad && m.at.p < m.at.end; steps++) {
		step(&m);
		m.bad = m.bad || m.at.bad || steps == STEPS_MAX;
	}
	*out = pop(&m);
	return !m.bad;
}
