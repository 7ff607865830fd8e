/* Loads a module into the kernel, which all containers share. What it gives is none, so nothing can come of it: that the
 * kernel looks at it is enough.
 *
 * docker:  refused by the default filter, which has init_module only with CAP_SYS_MODULE
 * enforce: syscall init_module
 * observe: forbidden syscall init_module | forbidden denied syscall init_module
 */
#include "attack.h"

int attack(void)
{
	static const char none[64];

	/* EPERM: who asks is not let in. Everything else comes after that. */
	if (syscall(SYS_init_module, none, sizeof(none), "") && errno == EPERM)
		return refused("init_module");
	return landed();
}
