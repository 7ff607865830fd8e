/* Three system calls, over and over: prints nanoseconds for each of getpid, read, and openat with close.
 *
 *   calls ROUNDS        in each of 20 slices
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

/* The least of many slices: what a busy neighbour adds is not the call's. */
#define SLICES 20

static int once(int what, int zero)
{
	char byte;
	int fd;

	switch (what) {
	case 0:
		return syscall(SYS_getpid) > 0;
	case 1:
		return syscall(SYS_read, zero, &byte, 1) == 1;
	default:
		fd = syscall(SYS_openat, AT_FDCWD, "/dev/zero", O_RDONLY);
		return fd >= 0 && close(fd) == 0;
	}
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : 0, i;
	int zero = open("/dev/zero", O_RDONLY), what, slice;

	if (rounds <= 0 || zero < 0)
		return 2;
	for (what = 0; what < 3; what++) {
		double best = 1e18;
		for (slice = 0; slice < SLICES; slice++) {
			double from = now(), took;
			for (i = 0; i < rounds; i++)
				if (!once(what, zero))
					return 1;
			took = now() - from;
			if (took < best)
				best = took;
		}
		printf("%.2f ", best / rounds);
	}
	printf("\n");
	return 0;
}
