/* The sensor's programs. They record what followed tasks do in their container's table, and nothing of anyone else.
 *
 * Hot: sys_enter and sys_exit run for every system call of the node. A task that is not followed costs one look at its
 * storage; one that is followed and does nothing new, one bit more.
 */
#include "calls.h"
#include "paths.h"
#include "sockets.h"

char LICENSE[] SEC("license") = "GPL";

/* Set by the loader before it loads. */
const volatile struct {
	/* Where the kernel guesses whether memory may be overcommitted: it asks for CAP_SYS_ADMIN there, and nothing
	 * depends on the answer. */
	u64 guess_from[2], guess_to[2];
	/* The loader's own tgid: its capability checks show whether the hook is ever called. */
	u32 canary;
} settings SEC(".rodata.settings");
u64 canary_calls;

static __always_inline bool is_compat(struct task_struct *task)
{
	return task->thread_info.status & TS_COMPAT;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct subject s;
	struct room *r;
	u32 nr = id, word;
	u64 bit;
	bool compat;

	if (!subject(me, &s))
		return 0;
	s.task->entered = 1;
	compat = is_compat(me);
	if (nr >= CALLS) {
		/* No such call, unless by the x32 interface, which is not recorded. */
		if (!compat && nr >> 30 == 1)
			unreadable(&s);
		return 0;
	}
	word = (nr >> 6) + (compat ? CALLS / 64 : 0);
	bit = 1ULL << (nr & 63);
	if (word >= 2 * CALLS / 64 || s.task->calls[word] & bit)
		return 0;
	r = room(IN_ENTER);
	if (!r)
		return 0;
	blank(r, &s, CALL)->number = nr | (compat ? COMPAT_BIT : 0);
	if (note(r, s.task))
		s.task->calls[word] |= bit;
	return 0;
}

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

static __always_inline bool refused(long result)
{
	return result == -EROFS || result == -EACCES || result == -EPERM;
}

/* Writes base and path, as given, into the key; what they come to is worked out where there is time for it. */
static __noinline bool named(struct room *r, u32 dir, u64 pointer)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct path base = {};
	char first = 0;
	u32 bytes;
	long more;
	u8 flags = BY_TEXT;

	if (pointer && bpf_probe_read_user(&first, 1, (void *)pointer))
		return false;
	if (first == '/') {
		BPF_CORE_READ_INTO(&base, me, fs, root);
	} else if (dir == HERE || (s32)r->args[dir & 3] == AT_FDCWD) {
		BPF_CORE_READ_INTO(&base, me, fs, pwd);
	} else {
		struct file *file = file_of(me, (u32)r->args[dir & 3]);

		if (!file)
			return false;
		BPF_CORE_READ_INTO(&base, file, f_path);
	}
	if (!base.dentry || !walk(r, base.dentry, base.mnt))
		return false;
	if (first != '/' && on_root(me, base.mnt))
		flags |= ON_ROOT;
	if (first != '/')
		flags |= RELATIVE;
	if (!first)
		flags &= ~BY_TEXT;
	bytes = r->line_bytes;
	if (first && bytes <= TEXT) {
		if (first != '/')
			r->line[bytes++] = '/';
		more = bpf_probe_read_user_str(&r->line[bytes], 512, (void *)pointer);
		if (more < 1 || more >= 512)
			return false;
		bytes += more - 1;
	}
	r->line_bytes = bytes;
	r->key.flags = flags;
	return text(r);
}

static __noinline bool on_names(struct room *r, struct tracked *t, u64 as, s32 result)
{
	struct subject s = { .task = t };
	const struct call *c = &calls[as & (CALLS - 1)];
	struct key *k;

	if ((result && !refused(result)) || !aim(t->slot, t->id, &s))
		return true;
	k = blank(r, &s, PATH);
	k->number = -result;
	k->what = c->what;
	if (!named(r, c->look == DESCRIPTOR ? 0 : c->dir, c->look == DESCRIPTOR ? 0 : r->args[c->name & 3]))
		return false;
	note(r, t);
	if (!c->what2)
		return true;
	k = blank(r, &s, PATH);
	k->number = -result;
	k->what = c->what2;
	if (!named(r, c->dir2, r->args[c->name2 & 3]))
		return false;
	note(r, t);
	return true;
}

static __noinline bool on_open(struct room *r, struct tracked *t, u64 as, s32 result)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct subject s = { .task = t };
	const struct call *c = &calls[as & (CALLS - 1)];
	u64 flags = O_CREAT | O_TRUNC | 1;
	struct path path = {};
	struct file *file;
	struct key *k;
	u32 mode, type;

	if (c->what != HERE)
		flags = r->args[c->what & 3];
	if (as == NR_OPENAT2 && bpf_probe_read_user(&flags, sizeof(flags), (void *)r->args[2]))
		return false;
	if (!(flags & (O_ACCMODE | O_CREAT | O_TRUNC)) || (result < 0 && !refused(result)) || !aim(t->slot, t->id, &s))
		return true;
	k = blank(r, &s, PATH);
	if (result < 0) {
		k->number = -result;
		k->what = flags & O_CREAT ? CREATE : WRITE;
		if (c->name == HERE || !named(r, c->dir, r->args[c->name & 3]))
			return false;
		note(r, t);
		return true;
	}
	/* What was really opened, whatever links the path went through. */
	file = file_of(me, (u32)result);
	if (!file)
		return false;
	mode = BPF_CORE_READ(file, f_mode);
	type = BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT;
	/* Writing to a device, pipe or socket changes no file system. */
	if (type != S_IFREG && type != S_IFDIR)
		return true;
	if (!(mode & (FMODE_WRITE | FMODE_CREATED)) && !(flags & O_TRUNC))
		return true;
	BPF_CORE_READ_INTO(&path, file, f_path);
	/* A file that never had a name is made in its directory. */
	if ((flags & O_TMPFILE) == O_TMPFILE)
		path.dentry = BPF_CORE_READ(path.dentry, d_parent);
	if (!walk(r, path.dentry, path.mnt) || !text(r))
		return false;
	k->flags = on_root(me, path.mnt) ? ON_ROOT : 0;
	if (mode & FMODE_CREATED || (flags & O_TMPFILE) == O_TMPFILE) {
		k->what = CREATE;
		note(r, t);
	}
	if (mode & FMODE_WRITE || flags & O_TRUNC) {
		k->what = WRITE;
		note(r, t);
	}
	return true;
}

static __always_inline void arguments(struct room *r, struct pt_regs *regs, bool compat)
{
	if (compat) {
		r->args[0] = (u32)regs->bx;
		r->args[1] = (u32)regs->cx;
		r->args[2] = (u32)regs->dx;
		r->args[3] = (u32)regs->si;
		r->args[4] = (u32)regs->di;
		r->args[5] = (u32)regs->bp;
	} else {
		r->args[0] = regs->di;
		r->args[1] = regs->si;
		r->args[2] = regs->dx;
		r->args[3] = regs->r10;
		r->args[4] = regs->r8;
		r->args[5] = regs->r9;
	}
}

SEC("tp_btf/sys_exit")
int BPF_PROG(leave, struct pt_regs *regs, long ret)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct subject s;
	struct room *r;
	u32 nr = regs->orig_ax, as = nr, number, look;
	bool compat, read = true, entered;

	if (!subject(me, &s))
		return 0;
	entered = s.task->entered;
	s.task->entered = 0;
	compat = is_compat(me);
	if (nr >= CALLS)
		return 0;
	number = nr | (compat ? COMPAT_BIT : 0);
	if (!entered) {
		/* seccomp answers before sys_enter: a call that only returns was refused. */
		r = room(IN_EXIT);
		if (!r)
			return 0;
		blank(r, &s, DENIED)->number = number;
		note(r, s.task);
		return 0;
	}
	if (compat)
		as = nr == SOCKETCALL ? SOCKETCALL : same_as[nr & (CALLS - 1)];
	look = calls[as & (CALLS - 1)].look;
	if (look == NOTHING && !(compat && as == SOCKETCALL))
		return 0;
	r = room(IN_EXIT);
	if (!r)
		return 0;
	arguments(r, regs, compat);
	if (compat && as == SOCKETCALL) {
		u32 words[6] = {}, i;

		as = socket_calls[r->args[0] & 31];
		look = calls[as & (CALLS - 1)].look;
		if (!as)
			return 0;
		/* The array may end with the last argument of the call and with its page. */
		if (bpf_probe_read_user(words, sizeof(words), (void *)r->args[1]) &&
		    bpf_probe_read_user(words, 3 * sizeof(u32), (void *)r->args[1])) {
			unreadable(&s);
			return 0;
		}
		for (i = 0; i < 6; i++)
			r->args[i] = words[i];
	}
	if (look == FLAGS)
		read = on_flags(r, s.task, number, as);
	else if (look == OPEN)
		read = on_open(r, s.task, as, ret);
	else if (look == SOCKET)
		read = on_socket(r, s.task, as, (u32)ret | (compat ? 1ULL << 63 : 0));
	else
		read = on_names(r, s.task, as, ret);
	if (!read)
		unreadable(&s);
	return 0;
}

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

/* The container that a task, which is not followed yet, belongs to once it has executed its program. */
static __always_inline bool joins(struct task_struct *task, struct subject *s, struct tracked *fresh)
{
	u32 tgid = task->tgid, mnt_ns = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	struct target *to = bpf_map_lookup_elem(&pending, &tgid), target;

	if (to) {
		target = *to;
		bpf_map_delete_elem(&pending, &tgid);
		if (aim(target.slot, target.id, s) &&
		    BPF_CORE_READ(task, group_leader, start_boottime) / 10000000 == s->slot->start_ticks) {
			fresh->side = WORKLOAD;
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
	u32 tgid = task->tgid, mnt_ns;
	struct subject s;
	struct target *to;

	if (!subject(task, &s)) {
		if (BPF_CORE_READ(task, signal, live.counter) == 0)
			bpf_map_delete_elem(&pending, &tgid);
		return 0;
	}
	__sync_fetch_and_add(&s.state->tasks, -1);
	if (tgid != s.slot->init || BPF_CORE_READ(task, signal, live.counter))
		return 0;
	/* Its namespace's number is free for another container from here on. */
	mnt_ns = s.state->mnt_ns;
	s.state->mnt_ns = 0;
	to = bpf_map_lookup_elem(&sessions, &mnt_ns);
	if (to && to->id == s.slot->id)
		bpf_map_delete_elem(&sessions, &mnt_ns);
	return 0;
}

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

	if (me->tgid == settings.canary)
		__sync_fetch_and_add(&canary_calls, 1);
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
