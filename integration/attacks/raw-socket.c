/* Listens to the whole network.
 *
 * docker:  lands
 * enforce: syscall socket | capability CAP_NET_RAW
 * observe: forbidden argument socket 17
 */
#include "attack.h"
#include <sys/socket.h>

int attack(void)
{
	if (socket(17 /* AF_PACKET */, SOCK_RAW, 0) < 0)
		return refused("socket");
	return landed();
}
