/* Catches by type, and cleans up: what .gcc_except_table is for. */
#ifndef VERSION
#define VERSION 1
#endif

extern "C" int outside(const char *text);

namespace
{
struct error {
	int code;
	virtual ~error() {}
};

struct guard {
	~guard()
	{
		outside("guard");
	}
};
} // namespace

extern "C" int catches(int x)
{
	guard g;
	try {
		if (x > VERSION)
			throw error{};
		return outside("in") * VERSION;
	} catch (const error &e) {
		return e.code + VERSION;
	} catch (int code) {
		return code;
	}
}
