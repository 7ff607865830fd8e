/* The guard's programs. They tell what followed tasks are refused, and kill programs that are not of the image.
 *
 * Hot: sys_exit runs for every system call of the node, and looks first at what nearly no call returns.
 */
#include "kernel.h"

/* What a task carries with it. */
struct tracked {
	u64 id;
	u32 slot;
	u32 side;
};

#include "arguments.h"
#include "foreign.h"
#include "guesses.h"
#include "kept.h"
#include "names.h"

char LICENSE[] SEC("license") = "GPL";

/* Writes that the tables of recording leave out, since they are other things when they succeed. */
static __noinline bool on_others(struct room *r, struct tracked *t, u64 as)
{
	struct subject s = { .task = t };
	bool bind = as == NR_BIND;

	if ((!bind && as != NR_IOCTL) || !aim(t->slot, t->id, &s))
		return true;
	blank(r, &s, PATH)->what = bind ? CREATE : ATTRIBUTES;
	/* A socket's path comes after its family. */
	if (!named(r, bind ? HERE : 0, bind ? r->args[1] + sizeof(u16) : 0))
		return false;
	return note(r, t);
}

static __noinline void refused_write(struct pt_regs *regs, struct task_struct *me, struct tracked *t)
{
	u32 nr = regs->orig_ax, as = nr, look;
	struct subject s = { .task = t };
	bool compat = is_compat(me), told;
	struct room *r = room(IN_EXIT);

	if (!r || nr >= CALLS || !aim(t->slot, t->id, &s))
		return;
	/* For what can't be read at all. */
	blank(r, &s, PATH)->what = WRITE;
	r->end = LOST;
	if (compat)
		as = same_as[nr & (CALLS - 1)];
	look = calls[as & (CALLS - 1)].look;
	arguments(r, regs, compat);
	if (look == OPEN)
		told = on_open(r, t, as, -EROFS);
	else if (look == NAMES || look == DESCRIPTOR)
		told = on_names(r, t, as, -EROFS);
	else
		told = on_others(r, t, as);
	if (told)
		return;
	unknown(r);
	note(r, t);
}

/* Programs, and files mapped to be run, that their mount keeps from it. */
static __noinline void refused_code(struct pt_regs *regs, struct task_struct *me, struct tracked *t, s32 result)
{
	u32 nr = regs->orig_ax, as = nr, look;
	bool compat = is_compat(me), told = true;
	struct room *r = room(IN_EXIT);

	if (!r || nr >= CALLS)
		return;
	if (compat)
		as = same_as[nr & (CALLS - 1)];
	look = calls[as & (CALLS - 1)].look;
	arguments(r, regs, compat);
	if (look == EXECUTE)
		told = on_execute(r, t, as, result);
	else if (look == MAP)
		told = on_map(r, t, result);
	if (told)
		return;
	unknown(r);
	r->key.what = ROOT;
	r->key.flags |= KEPT;
	note(r, t);
}

/* Which argument of a call that opens says how, by number: of x86-64's own calls below, of i386's above. */
enum { SECOND = 1, THIRD, WRITES, OF_I386 = 4 };
static const u8 opening[CALLS] = {
	[2] = SECOND,                       /* open */
	[85] = WRITES,                      /* creat */
	[257] = THIRD,                      /* openat */
	[304] = THIRD,                      /* open_by_handle_at */
	[437] = WRITES | WRITES << OF_I386, /* openat2: flags by pointer */
	[5] = SECOND << OF_I386,            /* open */
	[8] = WRITES << OF_I386,            /* creat */
	[295] = THIRD << OF_I386,           /* openat */
	[342] = THIRD << OF_I386,           /* open_by_handle_at */
};

/* Whether what a call has opened may be open for more than reading. */
static __always_inline bool for_writing(struct task_struct *me, struct pt_regs *regs, u8 by)
{
	bool compat = is_compat(me);

	by = compat ? by >> OF_I386 : by & ((1 << OF_I386) - 1);
	if (by == SECOND)
		return (compat ? regs->cx : regs->si) & O_ACCMODE;
	return by == WRITES || (by == THIRD && regs->dx & O_ACCMODE);
}

/* Whether a name, of sixteen bytes with its zeros, is this word, of fifteen at most. */
#define IS(name, word) is(name, word, sizeof(word))
static __always_inline bool is(const char *name, const char *word, u32 bytes)
{
	for (u32 i = 0; i < bytes; i++)
		if (name[i] != word[i])
			return false;
	return true;
}

/* Files that no one may write, though nothing but a mount could keep from it: a process's memory, which is written past every
 * protection of a page, and those by which a container commands its node (`kernel-files` in seccomp-profiles/baseline.json).
 */
static __always_inline bool reaches_out(u64 magic, const char *name)
{
	switch (magic) {
	case PROC_MAGIC:
		return IS(name, "mem") || IS(name, "core_pattern") || IS(name, "modprobe") || IS(name, "hotplug") ||
		       IS(name, "sysrq-trigger");
	case SYSFS_MAGIC:
		return IS(name, "uevent_helper");
	case CGROUP_MAGIC:
		return IS(name, "release_agent");
	case BINFMT_MAGIC:
	case DEBUGFS_MAGIC:
	case SECURITYFS_MAGIC:
		return true;
	}
	return false;
}

static __noinline void opened(struct task_struct *me, struct tracked *t, u32 fd)
{
	struct subject s = { .task = t };
	struct file *file = file_of(me, fd);
	struct room *r = room(IN_EXIT);
	struct path path = {};
	char name[16] = {};

	if (!r || !file || !(BPF_CORE_READ(file, f_mode) & FMODE_WRITE) || !aim(t->slot, t->id, &s))
		return;
	BPF_CORE_READ_INTO(&path, file, f_path);
	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(path.dentry, d_name.name));
	if (!reaches_out(BPF_CORE_READ(file, f_inode, i_sb, s_magic), name))
		return;
	blank(r, &s, OPENED)->what = WRITE;
	if (!walk(r, path.dentry, path.mnt) || !text(r))
		unknown(r);
	note(r, t);
}

/* The filter says of clone3 that there is none, whatever it is asked for, since its callers do without: who asked for a
 * namespace is told all the same.
 */
static __noinline void refused_namespaces(struct pt_regs *regs, struct task_struct *me, struct tracked *t)
{
	struct subject s = { .task = t };
	struct room *r = room(IN_EXIT);
	bool compat = is_compat(me);
	u64 flags = 0;
	struct key *k;

	if (!r || !aim(t->slot, t->id, &s))
		return;
	arguments(r, regs, compat);
	if (!r->args[0])
		return;
	/* Who asks honestly has just written it; a page that is not there yet may hold anything, and is told without flags. */
	if (!bpf_probe_read_user(&flags, sizeof(flags), (void *)r->args[0]) && !(flags & CLONE_NEW_ALL))
		return;
	k = blank(r, &s, CALL);
	k->number = NR_CLONE3 | (compat ? COMPAT_BIT : 0);
	k->a = flags & CLONE_NEW_ALL;
	r->line_bytes = 0;
	note(r, t);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(leave, struct pt_regs *regs, long ret)
{
	struct task_struct *me;
	struct subject s;
	u32 nr = regs->orig_ax;
	u8 opens = 0;

	if (ret >= 0) {
		opens = opening[nr & (CALLS - 1)];
		if (!opens)
			return 0;
	} else if (ret != -EROFS && ret != -EACCES && ret != -EPERM && (ret != -ENOSYS || nr != NR_CLONE3)) {
		return 0;
	}
	me = bpf_get_current_task_btf();
	if ((opens && !for_writing(me, regs, opens)) || !followed(me, &s))
		return 0;
	if (opens)
		opened(me, s.task, ret);
	else if (ret == -EROFS)
		refused_write(regs, me, s.task);
	else if (ret == -ENOSYS)
		refused_namespaces(regs, me, s.task);
	else
		refused_code(regs, me, s.task, ret);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
	struct subject s;

	if (followed(parent, &s) &&
	    !bpf_task_storage_get(&tasks, child, s.task, BPF_LOCAL_STORAGE_GET_F_CREATE))
		__sync_fetch_and_add(&s.state->untracked, 1);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct subject s;
	struct room *r;
	bool joins = false, chosen;
	u32 found;

	if (!followed(task, &s)) {
		if (!follow(task, &s))
			return 0;
		joins = true;
	}
	r = room(IN_EXEC);
	if (!r)
		return 0;
	chosen = joins && s.task->side == WORKLOAD;
	blank(r, &s, PROGRAM);
	if (!of_file(r, BPF_CORE_READ(bprm, file)))
		unknown(r);
	judge(r, &s, chosen);
	blank(r, &s, PROGRAM);
	found = script(r, task, bprm);
	/* Which file a name is, and whether it is foreign, is looked up where there is time for it. */
	if (found == BY_NAME || (found == BY_FILE && foreign(r->key.what)))
		judge(r, &s, chosen);
	else if (found == UNREADABLE)
		__sync_fetch_and_add(&s.state->unreadable, 1);
	return 0;
}

/* An end by the filter: the kernel kills for a call and asks no listener. Of threads that end together the one that called is
 * meant: the kernel has undone its call. What ends by itself alone has called.
 */
static __noinline void killed_by_filter(struct task_struct *task, struct subject *s)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
	u32 nr = BPF_CORE_READ(regs, orig_ax);
	struct room *r = room(IN_EXIT);

	if (!r || ((u32)BPF_CORE_READ(regs, ax) != nr && BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT))
		return;
	blank(r, s, CALL)->number = nr | (is_compat(task) ? COMPAT_BIT : 0);
	r->line_bytes = 0;
	note(r, s->task);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exited, struct task_struct *task)
{
	struct subject s;

	if (!followed(task, &s)) {
		never_began(task);
		return 0;
	}
	if ((task->exit_code & 0x7f) == SIGSYS)
		killed_by_filter(task, &s);
	ends(task, &s);
	return 0;
}

/* Whether a process is its user namespace's root, and, where such processes were seen to give capabilities away, holds all it
 * may: who changed its user, or gave them away itself, is refused what nobody has taken from it. Nobody learnt that the
 * others do: an intruder who gives one away is to be told all the same.
 */
static __always_inline bool expects(const struct cred *cred, bool may_drop)
{
	struct user_namespace *ns = BPF_CORE_READ(cred, user_ns);
	struct uid_gid_extent first;
	u64 held = 0, bound = 0;

	BPF_CORE_READ_INTO(&first, ns, uid_map.extent[0]);
	if (first.first || BPF_CORE_READ(cred, euid.val) != first.lower_first)
		return false;
	if (!may_drop)
		return true;
	bpf_core_read(&held, sizeof(held), &cred->cap_effective);
	bpf_core_read(&bound, sizeof(bound), &cred->cap_bset);
	return !(bound & ~held);
}

static __always_inline int incapable(void *context, const struct cred *cred, struct user_namespace *target, int cap)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct subject s;
	struct room *r;

	if (!followed(me, &s) || cap < 0 || cap > 63 || !(s.slot->capabilities >> (cap & 63) & 1))
		return 0;
	/* Other credentials than its own: the kernel acts for itself. */
	if (cred != BPF_CORE_READ(me, real_cred) || (u64)target != s.state->user_ns || !expects(cred, s.slot->rules & MAY_DROP))
		return 0;
	r = room(IN_CAPABLE);
	if (!r || (cap == CAP_SYS_ADMIN && guesses(context, r)))
		return 0;
	blank(r, &s, CAPABILITY)->number = cap;
	bpf_get_current_comm(r->key.text, 16);
	r->line_bytes = 0;
	note(r, s.task);
	return 0;
}

/* Linux 6.13 and newer. */
SEC("tp_btf/cap_capable")
int BPF_PROG(capable_traced, const struct cred *cred, struct user_namespace *target,
	     const struct user_namespace *held, int cap, int ret)
{
	if (!canary_calls)
		canary_calls = 1;
	return ret ? incapable(ctx, cred, target, cap) : 0;
}

/* Before that, where the kernel lets functions be followed. Bit 1 of the options: not to be audited. */
SEC("fexit/cap_capable")
int BPF_PROG(capable_followed, const struct cred *cred, struct user_namespace *target, int cap, unsigned int opts,
	     int ret)
{
	if (!canary_calls)
		canary_calls = 1;
	return ret && !(opts & 2) ? incapable(ctx, cred, target, cap) : 0;
}
