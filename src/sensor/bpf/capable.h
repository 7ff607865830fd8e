/* Capabilities that were really used: checks that passed, for the task itself, and on which something hung. */
#pragma once
#include "maps.h"
#include "guesses.h"
#include "note.h"

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
