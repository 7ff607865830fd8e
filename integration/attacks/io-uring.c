/* Makes a file below /etc by io_uring, whose work makes no system call of its own.
 *
 * docker:  lands
 * enforce: syscall io_uring_setup
 * observe: would-refuse syscall io_uring_setup
 */
#include "attack.h"
#include <linux/io_uring.h>
#include <sys/mman.h>

int attack(void)
{
	struct io_uring_params p = {};
	int ring = syscall(SYS_io_uring_setup, 2, &p);
	struct io_uring_sqe *entry;
	struct io_uring_cqe *done;
	char *submit, *complete;

	if (ring < 0)
		return refused("io_uring_setup");
	submit = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	complete = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(*done), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	entry = mmap(0, p.sq_entries * sizeof(*entry), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (submit == MAP_FAILED || complete == MAP_FAILED || entry == MAP_FAILED)
		return refused("mmap");
	entry->opcode = IORING_OP_OPENAT;
	entry->fd = AT_FDCWD;
	entry->addr = (unsigned long)"/etc/by-ring";
	entry->open_flags = O_WRONLY | O_CREAT;
	entry->len = 0644;
	((unsigned *)(submit + p.sq_off.array))[0] = 0;
	__atomic_store_n((unsigned *)(submit + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0)
		return refused("io_uring_enter");
	done = (void *)(complete + p.cq_off.cqes);
	if (done->res < 0) {
		errno = -done->res;
		return refused("openat by io_uring");
	}
	return landed();
}
