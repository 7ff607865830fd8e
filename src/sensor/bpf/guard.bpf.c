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
	bool compat = is_compat(me), told;
	struct room *r = room(IN_EXIT);

	if (!r || nr >= CALLS)
		return;
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

/* Whether the call has opened something, and not for reading alone. The i386 ones are left to the filter. */
static __always_inline bool opens_for_writing(struct pt_regs *regs, long ret)
{
	u32 nr = regs->orig_ax;

	if (nr == NR_OPENAT)
		return ret >= 0 && regs->dx & O_ACCMODE;
	if (nr == NR_OPEN)
		return ret >= 0 && regs->si & O_ACCMODE;
	return nr == NR_OPENAT2 && ret >= 0;
}

/* A process's memory, which nothing can make read-only: what is written there goes past every protection of a page. */
static __noinline void opened(struct task_struct *me, struct tracked *t, u32 fd)
{
	struct subject s = { .task = t };
	struct file *file = file_of(me, fd);
	struct room *r = room(IN_EXIT);
	struct path path = {};
	char name[4] = {};

	if (!r || !file || BPF_CORE_READ(file, f_inode, i_sb, s_magic) != PROC_MAGIC ||
	    !(BPF_CORE_READ(file, f_mode) & FMODE_WRITE) || !aim(t->slot, t->id, &s))
		return;
	BPF_CORE_READ_INTO(&path, file, f_path);
	bpf_probe_read_kernel(name, sizeof(name), BPF_CORE_READ(path.dentry, d_name.name));
	if (name[0] != 'm' || name[1] != 'e' || name[2] != 'm' || name[3])
		return;
	blank(r, &s, PATH)->what = WRITE;
	if (!walk(r, path.dentry, path.mnt) || !text(r))
		unknown(r);
	note(r, t);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(leave, struct pt_regs *regs, long ret)
{
	struct task_struct *me;
	struct subject s;
	bool opens = opens_for_writing(regs, ret);

	if (!opens && ret != -EROFS && ret != -EACCES && ret != -EPERM)
		return 0;
	me = bpf_get_current_task_btf();
	if (!followed(me, &s))
		return 0;
	if (opens)
		opened(me, s.task, ret);
	else if (ret == -EROFS)
		refused_write(regs, me, s.task);
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

/* An end by a call of an interface that the filter does not have: the kernel kills for it and asks no listener. */
static __noinline void killed_by_filter(struct task_struct *task, struct subject *s)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
	struct room *r = room(IN_EXIT);

	if (!r || !is_compat(task))
		return;
	blank(r, s, CALL)->number = (u32)BPF_CORE_READ(regs, orig_ax) | COMPAT_BIT;
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

/* Whether a process is its user namespace's root and holds all it may: one that gave capabilities away itself, or changed
 * its user, is refused what nobody has taken from it.
 */
static __always_inline bool holds_all(const struct cred *cred)
{
	struct user_namespace *ns = BPF_CORE_READ(cred, user_ns);
	struct uid_gid_extent first;
	u64 held = 0, bound = 0;

	BPF_CORE_READ_INTO(&first, ns, uid_map.extent[0]);
	if (first.first || BPF_CORE_READ(cred, euid.val) != first.lower_first)
		return false;
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
	if (cred != BPF_CORE_READ(me, real_cred) || (u64)target != s.state->user_ns || !holds_all(cred))
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
