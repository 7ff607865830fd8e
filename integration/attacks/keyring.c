/* Hides something in a kernel keyring, which a restart does not clean and other containers of the same user can see.
 *
 * docker:  refused by the default filter, which has no add_key
 * enforce: syscall add_key
 * observe: forbidden syscall add_key | forbidden denied syscall add_key
 */
#include "attack.h"
#include <linux/keyctl.h>

int attack(void)
{
	long key = syscall(SYS_add_key, "user", "lithify-attack", "hidden", 6, KEY_SPEC_PROCESS_KEYRING);

	if (key < 0)
		return refused("add_key");
	syscall(SYS_keyctl, KEYCTL_REVOKE, key);
	return landed();
}
