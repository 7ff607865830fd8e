/* Asks for a system call by the 32-bit interface, where a filter for the native one would not look.
 *
 * docker:  lands
 * enforce: syscall i386:mkdir | write /srv/by-i386
 * observe: would-refuse syscall i386:mkdir
 */
#include "attack.h"
#include <sys/mman.h>

int attack(void)
{
	/* Its argument has to be below 4 GiB. */
	char *path = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	int result = 39; /* mkdir */

	if (path == MAP_FAILED)
		return refused("mmap");
	strcpy(path, "/srv/by-i386");
	__asm__ volatile("int $0x80" : "+a"(result) : "b"(path), "c"(0755) : "memory", "r8", "r9", "r10", "r11");
	if (result < 0) {
		errno = -result;
		return refused("mkdir");
	}
	return landed();
}
