/* Asks the kernel to take in a program, from where it would see every container.
 *
 * docker:  refused by the default filter, which has bpf only with CAP_SYS_ADMIN or CAP_BPF
 * enforce: syscall bpf
 * observe: forbidden syscall bpf | forbidden denied syscall bpf
 */
#include "attack.h"
#include <linux/bpf.h>

int attack(void)
{
	union bpf_attr map = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1 };

	if (syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof(map)) < 0)
		return refused("bpf");
	return landed();
}
