/* The classic way out of a root directory: a new one below, and up from outside of it.
 *
 * docker:  lands
 * enforce: syscall chroot
 * observe: would-refuse syscall chroot
 */
#include "attack.h"

int attack(void)
{
	if (chroot("/srv"))
		return refused("chroot");
	return landed();
}
