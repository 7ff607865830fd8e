/* Whose a task is: places for containers, and how a task comes to belong to one. Shared by both sets of programs; each has
 * maps of its own. `src/sensor/layout.rs` reads and writes the same shapes: a change here is a change there.
 *
 * Whoever includes this has said before what a task carries: `struct tracked`, with `id`, `slot` and `side`.
 */
#pragma once
#include "kernel.h"

#define SLOTS 1024

/* A place for one armed container; written by user space only. */
struct slot {
	u64 id;          /* never reused; 0: nobody's */
	u64 start_ticks; /* init's start, in clock ticks since boot: a recycled pid is not init */
	u32 window;      /* the container's clock */
	u32 limit;       /* records of unbounded kinds that the table may hold */
	u32 pid_ns;      /* the pid namespace that the next two are numbers of */
	u32 owner;       /* the process that armed it */
	u32 foreign[2];  /* mount namespaces that are not the container's: the owner's, the node's */
	u32 bell;        /* there is a bell */
	u32 init;
	/* The guard's: capabilities of which a refusal is told; KILL_FOREIGN, MAY_DROP; seconds after which what was told is told
	 * again; 0: never.
	 */
	u64 capabilities;
	u32 rules, quiet;
};
/* A foreign program is killed. Root was seen to give capabilities away: what it lacks it may have given away itself. */
enum { KILL_FOREIGN = 1, MAY_DROP = 2 };

/* What is counted about one container; zeroed by user space before it is armed, then written by the kernel only. */
struct state {
	u64 id;
	u64 user_ns; /* init's user namespace, as an address; only compared */
	u64 root, root_sb; /* of init's root, the same: a task may have moved its own elsewhere */
	u64 table_full, unreadable, untracked;
	u32 mnt_ns; /* 0 until init has executed its program, and after it has ended */
	u32 tasks, tasks_peak;
	u32 entries;      /* records of unbounded kinds */
	u32 active;       /* the last window with any activity, plus one */
	u32 active_windows;
	u32 init; /* its tgid, as the kernel counts */
	u32 programs, capabilities, opened, ended; /* the guard's records, by rooms */
	u32 pad;
};

/* A reference to a container that may have gone: valid while the slot's id is the same. */
struct target {
	u64 id;
	u32 slot, pad;
};

/* A process as whoever armed it knows it. */
struct process {
	u32 pid, pid_ns;
};

enum side { WORKLOAD, EXEC };

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct tracked);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, u32);
	__type(value, struct state);
} states SEC(".maps");

/* Containers whose init has not executed its program yet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__type(key, struct process);
	__type(value, struct target);
} pending SEC(".maps");

/* Containers whose init lives, by mount namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__type(key, u32);
	__type(value, struct target);
} sessions SEC(".maps");

/* Who armed which slot; user space only. A claim is an insertion that must not exist yet. */
struct owner {
	u64 id, start_ticks;
	u32 pid, init;
	u32 pid_ns, spare;
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__type(key, u32);
	__type(value, struct owner);
} owners SEC(".maps");

/* What a program knows about the task it runs for. */
struct subject {
	struct tracked *task;
	struct slot *slot;
	struct state *state;
};

/* The subject that a target means, if it is still there. */
static __always_inline bool aim(u32 slot, u64 id, struct subject *s)
{
	s->slot = bpf_map_lookup_elem(&slots, &slot);
	if (!s->slot || s->slot->id != id)
		return false;
	s->state = bpf_map_lookup_elem(&states, &slot);
	return s->state;
}

/* The container that a task is followed for; false if it is not followed. */
static __always_inline bool followed(struct task_struct *task, struct subject *s)
{
	s->task = bpf_task_storage_get(&tasks, task, 0, 0);
	return s->task && aim(s->task->slot, s->task->id, s);
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
			s->state->root = (u64)BPF_CORE_READ(task, fs, root.mnt, mnt_root);
			s->state->root_sb = (u64)BPF_CORE_READ(task, fs, root.mnt, mnt_sb);
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

/* Begins to follow a task that has just executed the program by which it joins a container. */
static __always_inline bool follow(struct task_struct *task, struct subject *s)
{
	struct tracked fresh = {};

	if (!joins(task, s, &fresh))
		return false;
	/* A storage of an earlier container may still be there, if this task outlived it. */
	bpf_task_storage_delete(&tasks, task);
	s->task = bpf_task_storage_get(&tasks, task, &fresh, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!s->task)
		__sync_fetch_and_add(&s->state->untracked, 1);
	return s->task;
}

/* A task that is not followed ends: it may have been an init that never executed its program. */
static __always_inline void never_began(struct task_struct *task)
{
	struct target target;

	if (BPF_CORE_READ(task, signal, live.counter) == 0)
		take_pending(task, &target);
}

/* A followed task ends. */
static __always_inline void ends(struct task_struct *task, struct subject *s)
{
	struct target *to;
	u32 mnt_ns;

	if (task->tgid != s->state->init || BPF_CORE_READ(task, signal, live.counter))
		return;
	/* Its namespace's number is free for another container from here on. */
	mnt_ns = s->state->mnt_ns;
	s->state->mnt_ns = 0;
	to = bpf_map_lookup_elem(&sessions, &mnt_ns);
	if (to && to->id == s->slot->id)
		bpf_map_delete_elem(&sessions, &mnt_ns);
}
