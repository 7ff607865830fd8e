/* Runs a program that was never a file: it is put into memory, and executed from there.
 *
 * docker:  lands
 * enforce: program /memfd:dropped | syscall memfd_create
 * observe: forbidden program /memfd:dropped
 */
#include "attack.h"
#include <sys/mman.h>

int attack(void)
{
	char buffer[65536], *argv[] = { "busybox", "echo", "landed", 0 }, *envp[] = { 0 };
	int from = open("/usr/bin/busybox", O_RDONLY), to = memfd_create("dropped", 0);
	ssize_t got;

	if (from < 0 || to < 0)
		return refused("memfd_create");
	while ((got = read(from, buffer, sizeof(buffer))) > 0)
		if (write(to, buffer, got) != got)
			return refused("write");
	fexecve(to, argv, envp);
	return refused("fexecve");
}
