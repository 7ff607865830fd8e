/* Reads the server's memory, with the secrets in it, without stopping it.
 *
 * docker:  refused by the default filter, which has process_vm_readv only with CAP_SYS_PTRACE
 * enforce: syscall process_vm_readv
 * observe: forbidden syscall process_vm_readv | forbidden denied syscall process_vm_readv
 */
#include "attack.h"
#include <sys/uio.h>

static char secret[] = "secret";

int attack(void)
{
	char taken[sizeof(secret)];
	struct iovec to = { taken, sizeof(taken) }, from = { secret, sizeof(secret) };

	if (process_vm_readv(1, &to, 1, &from, 1, 0) != sizeof(secret))
		return refused("process_vm_readv");
	return landed();
}
