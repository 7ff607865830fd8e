/* Enters another process's namespaces, the way out of a container once that process is the node's.
 *
 * docker:  refused by the default filter, which has setns only with CAP_SYS_ADMIN
 * enforce: syscall setns
 * observe: forbidden syscall setns | forbidden denied syscall setns
 */
#include "attack.h"

int attack(void)
{
	int namespace = open("/proc/1/ns/uts", O_RDONLY);

	if (namespace < 0 || syscall(SYS_setns, namespace, 0))
		return refused("setns");
	return landed();
}
