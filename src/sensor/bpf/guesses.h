/* Checks of capabilities on which nothing hangs. */
#pragma once
#include "record.h"

/* Set by the loader before it loads. */
const volatile struct {
	/* Where the kernel guesses whether memory may be overcommitted: it asks for CAP_SYS_ADMIN there, and nothing
	 * depends on the answer. */
	u64 guess_from[2], guess_to[2];
} settings SEC(".rodata.settings");
/* Whether the hook of capability checks is ever called; the loader makes such a check. */
u64 canary_calls;

/* The kernel asks for CAP_SYS_ADMIN when it guesses at overcommitted memory. */
static __always_inline bool guesses(void *context, struct room *r)
{
	long bytes = bpf_get_stack(context, r->frames, sizeof(r->frames), 0);

	for (u32 i = 0; i < 16; i++) {
		u64 at = r->frames[i];

		if ((long)(i * 8) >= bytes)
			break;
		if ((at > settings.guess_from[0] && at < settings.guess_to[0]) || (at > settings.guess_from[1] && at < settings.guess_to[1]))
			return true;
	}
	return false;
}
