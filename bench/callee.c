/* The library whose calls bench/call-cost times: as little work as a function can do. CHANGED: with other instructions
 * for it. */
int callee(int x);
int (*callee_address(void))(int);

int callee(int x)
{
#ifdef CHANGED
	__asm__("" : "+a"(x));
#endif
	return x + 1;
}

int (*callee_address(void))(int)
{
	return callee;
}
