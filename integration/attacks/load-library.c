/* Loads a library of its own making into a program that runs already, as dlopen(3) does it: no program is executed for it.
 * On a root without layers, where nobody can tell the image's libraries from others, the write is what tells of it.
 *
 * docker:  lands
 * enforce: program /tmp/library.so
 * observe: forbidden program /tmp/library.so | would-refuse write /tmp/library.so
 */
#include "attack.h"
#include <sys/mman.h>

int attack(void)
{
	/* mov eax, 42; ret */
	static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	int file = open("/tmp/library.so", O_RDWR | O_CREAT | O_TRUNC, 0644);
	int (*loaded)(void);

	if (file < 0 || write(file, code, sizeof(code)) != sizeof(code))
		return refused("write");
	loaded = mmap(0, sizeof(code), PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0);
	if (loaded == MAP_FAILED)
		return refused("mmap");
	if (loaded() != 42)
		return refused("it is another's code");
	return landed();
}
