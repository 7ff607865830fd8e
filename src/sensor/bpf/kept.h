/* Code that is not executed as a program, or could not be: files that are mapped to be run, and programs and files that the
 * mount they are on keeps from it (`noexec`).
 */
#pragma once
#include "names.h"

/* A program that was refused. Whether by its mount or for want of its own permission, who has the time finds out; until then
 * it is of no known origin.
 */
static __noinline bool on_execute(struct room *r, struct tracked *t, u64 as, s32 result)
{
	struct subject s = { .task = t };
	const struct call *c = &calls[as & (CALLS - 1)];

	if (result != -EACCES || !aim(t->slot, t->id, &s))
		return true;
	blank(r, &s, PROGRAM)->what = NAMED;
	if (!named(r, c->dir, r->args[c->name & 3]))
		return unplaced(r);
	r->key.flags = KEPT;
	note(r, t);
	return true;
}

/* A file of the container's own making that is mapped to be run, as a library is. What has no name is not told: just-in-time
 * compilers map such files.
 */
static __noinline bool on_map(struct room *r, struct tracked *t, s64 result)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct subject s = { .task = t };
	struct path path = {};
	struct file *file;
	u8 origin;

	if (!(r->args[2] & PROT_EXEC) || r->args[3] & MAP_ANONYMOUS || (result < 0 && result > -4096 && result != -EPERM) ||
	    !aim(t->slot, t->id, &s))
		return true;
	file = file_of(me, (u32)r->args[4]);
	if (!file)
		return true;
	BPF_CORE_READ_INTO(&path, file, f_path);
	blank(r, &s, PROGRAM);
	origin = origin_of(r, file, path.mnt);
	/* A volume's libraries are its maker's, who vouches for them; that it keeps them from running is news. */
	if (origin != UPPER && origin != TMPFS && (origin != VOLUME || result != -EPERM))
		return true;
	r->key.what = origin;
	if (!walk(r, path.dentry, path.mnt) || !text(r))
		return unplaced(r);
	r->key.flags = result == -EPERM ? KEPT : 0;
	note(r, t);
	return true;
}
