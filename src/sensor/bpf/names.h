/* Paths that a call names, or opens: the operation, whether it was refused, on which file system. What becomes of them is
 * for `note` to say, which both sets of programs have.
 */
#pragma once
#include "calls.h"
#include "paths.h"

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

	r->end = LOST;
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
	if (first != '/' && on_root(r, base.mnt))
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
		if (more < 1)
			return false;
		bytes += more - 1;
		/* Its base may be what is long. */
		if (more >= 512 || bytes > TEXT)
			r->end = LONG;
	}
	r->line_bytes = bytes;
	r->key.flags = flags;
	return r->end != LONG && text(r);
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
		return unplaced(r);
	note(r, t);
	if (!c->what2)
		return true;
	k = blank(r, &s, PATH);
	k->number = -result;
	k->what = c->what2;
	if (!named(r, c->dir2, r->args[c->name2 & 3]))
		return unplaced(r);
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
			return unplaced(r);
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
		return unplaced(r);
	k->flags = on_root(r, path.mnt) ? ON_ROOT : 0;
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
