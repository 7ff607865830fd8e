/* The life of tasks: who is followed from when on, as whose, and which programs they execute. */
#pragma once
#include "paths.h"

/* Nested pid namespaces, at most (MAX_PID_NS_LEVEL). */
#define MAX_PID_LEVELS 32

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

/* The container that waits for this process to execute its program, and the number it waits for: whoever armed it may
 * live in a pid namespace below the node's.
 */
static __always_inline struct target *awaited(struct task_struct *task, u32 *number)
{
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	u32 level = BPF_CORE_READ(pid, level);

	for (u32 i = 0; i < MAX_PID_LEVELS && i <= level; i++) {
		struct upid *at = (void *)pid + bpf_core_field_offset(struct pid, numbers) + i * bpf_core_type_size(struct upid);
		u32 nr = BPF_CORE_READ(at, nr);
		struct target *to = bpf_map_lookup_elem(&pending, &nr);
		struct slot *slot;
		u32 at_slot;

		if (!to)
			continue;
		at_slot = to->slot;
		slot = bpf_map_lookup_elem(&slots, &at_slot);
		if (slot && slot->id == to->id && slot->pid_ns == BPF_CORE_READ(at, ns, ns.inum)) {
			*number = nr;
			return to;
		}
	}
	return 0;
}

/* The container that a task, which is not followed yet, belongs to once it has executed its program. */
static __always_inline bool joins(struct task_struct *task, struct subject *s, struct tracked *fresh)
{
	u32 tgid = task->tgid, number, mnt_ns = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	struct target *to = awaited(task, &number), target;

	if (to) {
		target = *to;
		bpf_map_delete_elem(&pending, &number);
		if (aim(target.slot, target.id, s) &&
		    BPF_CORE_READ(task, group_leader, start_boottime) / 10000000 == s->slot->start_ticks) {
			fresh->side = WORKLOAD;
			s->state->init = tgid;
			s->state->user_ns = (u64)BPF_CORE_READ(task, real_cred, user_ns);
			/* One that it shares with others can't tell its sessions from them. */
			if (mnt_ns != s->slot->foreign[0] && mnt_ns != s->slot->foreign[1] &&
			    mnt_ns != BPF_CORE_READ(task, real_parent, nsproxy, mnt_ns, ns.inum)) {
				s->state->mnt_ns = mnt_ns;
				bpf_map_update_elem(&sessions, &mnt_ns, &target, BPF_ANY);
			}
			goto found;
		}
	}
	to = bpf_map_lookup_elem(&sessions, &mnt_ns);
	if (!to)
		return false;
	target = *to;
	if (!aim(target.slot, target.id, s) || s->slot->owner == tgid ||
	    s->slot->owner == BPF_CORE_READ(task, real_parent, tgid))
		return false;
	fresh->side = EXEC;
found:
	fresh->id = target.id;
	fresh->slot = target.slot;
	return true;
}

static __always_inline u8 origin_of(struct task_struct *task, struct file *file, struct vfsmount *mnt)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	u64 magic = BPF_CORE_READ(inode, i_sb, s_magic);

	if (!BPF_CORE_READ(inode, i_nlink))
		return ANONYMOUS;
	if (!on_root(task, mnt))
		return magic == TMPFS_MAGIC ? TMPFS : VOLUME;
	if (magic == OVERLAYFS_MAGIC && bpf_core_field_exists(struct ovl_inode, __upperdentry)) {
		struct ovl_inode *overlay = (void *)inode - bpf_core_field_offset(struct ovl_inode, vfs_inode);

		return BPF_CORE_READ(overlay, __upperdentry) ? UPPER : IMAGE;
	}
	return ROOT;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct tracked fresh = {};
	struct path path = {};
	struct subject s;
	struct file *file;
	struct room *r;
	struct key *k;

	if (!subject(task, &s)) {
		if (!joins(task, &s, &fresh))
			return 0;
		/* A storage of an earlier container may still be there, if this task outlived it. */
		bpf_task_storage_delete(&tasks, task);
		s.task = bpf_task_storage_get(&tasks, task, &fresh, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (!s.task) {
			__sync_fetch_and_add(&s.state->untracked, 1);
			return 0;
		}
		freshen(&s);
		enters(&s);
	}
	s.task->entered = 1;
	r = room(IN_EXEC);
	if (!r)
		return 0;
	file = BPF_CORE_READ(bprm, file);
	k = blank(r, &s, PROGRAM);
	BPF_CORE_READ_INTO(&path, file, f_path);
	k->what = origin_of(task, file, path.mnt);
	k->flags = BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec);
	if (k->what == ANONYMOUS) {
		/* Nowhere in the tree: the last name is all there is. */
		const unsigned char *name = BPF_CORE_READ(path.dentry, d_name.name);

		bpf_probe_read_kernel_str(k->text, 256, name);
	} else if (!walk(r, path.dentry, path.mnt) || !text(r)) {
		unreadable(&s);
		return 0;
	}
	note(r, s.task);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exited, struct task_struct *task)
{
	u32 number, mnt_ns;
	struct subject s;
	struct target *to;

	if (!subject(task, &s)) {
		if (BPF_CORE_READ(task, signal, live.counter) == 0 && awaited(task, &number))
			bpf_map_delete_elem(&pending, &number);
		return 0;
	}
	__sync_fetch_and_add(&s.state->tasks, -1);
	if (task->tgid != s.state->init || BPF_CORE_READ(task, signal, live.counter))
		return 0;
	/* Its namespace's number is free for another container from here on. */
	mnt_ns = s.state->mnt_ns;
	s.state->mnt_ns = 0;
	to = bpf_map_lookup_elem(&sessions, &mnt_ns);
	if (to && to->id == s.slot->id)
		bpf_map_delete_elem(&sessions, &mnt_ns);
	return 0;
}
