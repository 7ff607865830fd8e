/* Arguments that matter to a policy, beside the call's number. */
#pragma once
#include "calls.h"
#include "note.h"

static __noinline bool on_flags(struct room *r, struct tracked *t, u32 number, u64 as)
{
	struct subject s = { .task = t };
	const struct call *c = &calls[as & (CALLS - 1)];
	struct key *k;
	u64 value = r->args[0];

	if (!aim(t->slot, t->id, &s))
		return true;
	k = blank(r, &s, ARGUMENT);
	k->number = number;
	if (c->what == CLONE3 && bpf_probe_read_user(&value, sizeof(value), (void *)value))
		return false;
	if (c->what == TWO)
		value = r->args[1] & 0xffffffff;
	if (as == NR_CLONE || as == NR_CLONE3 || as == NR_UNSHARE) {
		value &= CLONE_NEW_ALL;
		/* The low byte of clone's flags is the signal at its end. */
		if (as == NR_CLONE)
			value &= ~0xffULL;
		if (!value)
			return true;
	} else if (c->what == THREE) {
		value = value << 32 | (r->args[1] & 0xf);
		k->b = r->args[2] & 0xffffffff;
	}
	k->a = value;
	note(r, t);
	return true;
}
