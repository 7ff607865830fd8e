/* The life of tasks: who is followed from when on, as whose, and which programs they execute. */
#pragma once
#include "paths.h"

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

/* Pid namespaces are nested; who arms may live in any of them. Deeper than this nobody runs a container runtime. */
#define PID_LEVELS 6

static __always_inline struct process process_at(struct task_struct *task, u32 level)
{
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	struct upid *number = (void *)pid + bpf_core_field_offset(struct pid, numbers) +
			      level * bpf_core_type_size(struct upid);
	struct process process = {};

	if (level <= BPF_CORE_READ(pid, level)) {
		process.pid = BPF_CORE_READ(number, nr);
		process.pid_ns = BPF_CORE_READ(number, ns, ns.inum);
	}
	return process;
}

/* A task's number in a pid namespace; 0 if it has none there. */
static __noinline u32 number_in(struct task_struct *task, u32 pid_ns)
{
	for (u32 level = 0; level < PID_LEVELS; level++) {
		struct process process = process_at(task, level);

		if (!process.pid)
			break;
		if (process.pid_ns == pid_ns)
			return process.pid;
	}
	return 0;
}

/* Takes a container whose init this is out of those that wait. */
static __noinline bool take_pending(struct task_struct *task, struct target *target)
{
	for (u32 level = 0; level < PID_LEVELS; level++) {
		struct process process = process_at(task, level);
		struct target *to;

		if (!process.pid)
			break;
		to = bpf_map_lookup_elem(&pending, &process);
		if (to) {
			*target = *to;
			bpf_map_delete_elem(&pending, &process);
			return true;
		}
	}
	return false;
}

/* The container that a task, which is not followed yet, belongs to once it has executed its program. */
static __always_inline bool joins(struct task_struct *task, struct subject *s, struct tracked *fresh)
{
	u32 mnt_ns = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	struct target *to, target = {};

	if (take_pending(task, &target)) {
		if (aim(target.slot, target.id, s) &&
		    BPF_CORE_READ(task, group_leader, start_boottime) / 10000000 == s->slot->start_ticks) {
			fresh->side = WORKLOAD;
			s->state->init = task->tgid;
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
	if (!aim(target.slot, target.id, s) || s->slot->owner == number_in(task, s->slot->pid_ns) ||
	    s->slot->owner == number_in(BPF_CORE_READ(task, real_parent), s->slot->pid_ns))
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
	struct target *to, target;
	struct subject s;
	u32 mnt_ns;

	if (!subject(task, &s)) {
		if (BPF_CORE_READ(task, signal, live.counter) == 0)
			take_pending(task, &target);
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
