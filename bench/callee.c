/* The library whose calls bench/call-cost times: as little work as a function can do. */
int callee(int x);
int (*callee_address(void))(int);

int callee(int x)
{
	return x + 1;
}

int (*callee_address(void))(int)
{
	return callee;
}
