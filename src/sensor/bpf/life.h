/* The life of tasks: who is followed from when on, as whose, and which programs they execute. */
#pragma once
#include "note.h"
#include "scripts.h"

/* One more task in the container. */
static __always_inline void enters(struct subject *s)
{
	u32 now = __sync_fetch_and_add(&s->state->tasks, 1) + 1, peak = s->state->tasks_peak;

	for (int i = 0; i < 4 && peak < now; i++)
		peak = __sync_val_compare_and_swap(&s->state->tasks_peak, peak, now);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
	struct subject s;
	struct tracked *t;

	if (!subject(parent, &s))
		return 0;
	t = bpf_task_storage_get(&tasks, child, s.task, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!t) {
		__sync_fetch_and_add(&s.state->untracked, 1);
		return 0;
	}
	/* Its first return to user space is from a call that it never entered. */
	t->entered = 1;
	enters(&s);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct subject s;
	struct room *r;
	u32 found;

	if (!subject(task, &s)) {
		if (!follow(task, &s))
			return 0;
		freshen(&s);
		enters(&s);
	}
	s.task->entered = 1;
	r = room(IN_EXEC);
	if (!r)
		return 0;
	blank(r, &s, PROGRAM)->flags = BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec);
	if (of_file(r, BPF_CORE_READ(bprm, file)))
		note(r, s.task);
	else
		unreadable(&s);
	blank(r, &s, PROGRAM);
	found = script(r, task, bprm);
	if (found == BY_NAME || (found == BY_FILE && foreign(r->key.what)))
		note(r, s.task);
	else if (found == UNREADABLE)
		unreadable(&s);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exited, struct task_struct *task)
{
	struct subject s;

	if (!subject(task, &s)) {
		never_began(task);
		return 0;
	}
	__sync_fetch_and_add(&s.state->tasks, -1);
	ends(task, &s);
	return 0;
}
