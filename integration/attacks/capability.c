/* Becomes another user, to read what is theirs, with a capability that the engine gives and the workload never used.
 *
 * docker:  lands
 * enforce: syscall setuid | syscall setresuid | capability CAP_SETUID
 * observe: would-refuse syscall setresuid | would-refuse capability CAP_SETUID
 */
#include "attack.h"

int attack(void)
{
	if (syscall(SYS_setresuid, 33, 33, 33))
		return refused("setresuid");
	return landed();
}
