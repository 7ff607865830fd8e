/* Capabilities that were really used: checks that passed, for the task itself, and on which something hung. */
#pragma once
#include "note.h"

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

static __always_inline int capable(void *context, const struct cred *cred, struct user_namespace *target, int cap)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct subject s;
	struct room *r;

	if (!canary_calls)
		canary_calls = 1;
	if (!subject(me, &s) || cap < 0 || cap > 63 || s.task->capabilities & 1ULL << (cap & 63))
		return 0;
	/* Other credentials than its own: the kernel acts for itself, as overlay does when it copies a file up. */
	if (cred != BPF_CORE_READ(me, real_cred) || (u64)target != s.state->user_ns)
		return 0;
	r = room(IN_CAPABLE);
	if (!r || (cap == CAP_SYS_ADMIN && guesses(context, r)))
		return 0;
	blank(r, &s, CAPABILITY)->number = cap;
	if (note(r, s.task))
		s.task->capabilities |= 1ULL << (cap & 63);
	return 0;
}

/* Linux 6.13 and newer. */
SEC("tp_btf/cap_capable")
int BPF_PROG(capable_traced, const struct cred *cred, struct user_namespace *target,
	     const struct user_namespace *held, int cap, int ret)
{
	return ret ? 0 : capable(ctx, cred, target, cap);
}

/* Before that, where the kernel lets functions be followed. Bit 1 of the options: not to be audited. */
SEC("fexit/cap_capable")
int BPF_PROG(capable_followed, const struct cred *cred, struct user_namespace *target, int cap, unsigned int opts,
	     int ret)
{
	return ret || opts & 2 ? 0 : capable(ctx, cred, target, cap);
}
