/* What attacks in C share: how they say what became of them. An attack runs in the victim's own code, in a child of its
 * worker; its result is the child's exit status.
 */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* It had its way. */
static inline int landed(void)
{
	dprintf(1, "landed\n");
	return 0;
}

/* A step failed. */
static inline int refused(const char *step)
{
	dprintf(1, "refused: %s: %s\n", step, strerrorname_np(errno));
	return 1;
}
