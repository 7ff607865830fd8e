// Changes its own program in memory, which is read-only: a write to /proc/self/mem goes past that, and past every rule
// about memory that is both writable and executable.
//
// docker:  lands
// enforce: write /proc/*/mem
// inside:  lands
// observe: forbidden write /proc/*/mem
#include "attack.h"

__attribute__((noinline, aligned(16))) static int answer(void)
{
	__asm__ volatile("");
	return 1;
}

int attack(void)
{
	/* mov eax, 42; ret */
	static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	int (*volatile called)(void) = answer;
	int memory = open("/proc/self/mem", O_RDWR);

	if (memory < 0)
		return refused("open");
	if (pwrite(memory, code, sizeof(code), (off_t)(unsigned long)answer) != sizeof(code))
		return refused("pwrite");
	if (called() != 42)
		return refused("nothing changed");
	return landed();
}
