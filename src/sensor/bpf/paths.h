/* From a dentry to a path: walked up through mounts to the top of the mount namespace, which is the container's root
 * whether or not the task lives in a chroot of its own.
 */
#pragma once
#include "record.h"

#define WALKED 512
#define DEEPEST 64

static long step(u32 index, void *context)
{
	struct room *r = *(struct room **)context;
	struct dentry *d = r->dentry, *parent;
	struct mount *m = r->mount, *above;
	u32 length, at = r->at;
	const unsigned char *name;

	if (d == BPF_CORE_READ(m, mnt.mnt_root)) {
		above = BPF_CORE_READ(m, mnt_parent);
		if (above == m) {
			r->end = FOUND;
			return 1;
		}
		r->dentry = BPF_CORE_READ(m, mnt_mountpoint);
		r->mount = above;
		return 0;
	}
	parent = BPF_CORE_READ(d, d_parent);
	length = BPF_CORE_READ(d, d_name.len);
	name = BPF_CORE_READ(d, d_name.name);
	/* Its own parent and no mount's root. */
	if (parent == d) {
		r->end = NOWHERE;
		return 1;
	}
	if (!parent || length > 255 || at > WALKED || at < length + 1)
		return 1;
	at -= length;
	if (bpf_probe_read_kernel(&r->walked[at & (WALKED - 1)], length & 255, name))
		return 1;
	at -= 1;
	r->walked[at & (WALKED - 1)] = '/';
	r->at = at;
	r->dentry = parent;
	return 0;
}

/* Writes the path of a dentry to the beginning of `r->line`, "" for the root; false if it has none or is too long. */
static __noinline bool walk(struct room *r, struct dentry *dentry, struct vfsmount *mnt)
{
	struct room *context = r;
	u32 at, bytes;

	r->dentry = dentry;
	r->mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
	r->at = WALKED;
	r->end = LOST;
	r->line_bytes = 0;
	bpf_loop(DEEPEST, step, &context, 0);
	at = r->at;
	if (r->end != FOUND || at > WALKED)
		return false;
	bytes = WALKED - at;
	if (bytes > TEXT)
		return false;
	bpf_probe_read_kernel(r->line, bytes, &r->walked[at]);
	r->line_bytes = bytes;
	return true;
}

/* What to answer when there is no path: nothing is missing if the file has no place that could be told. */
static __always_inline bool unplaced(struct room *r)
{
	return r->end == NOWHERE;
}

/* The key's text becomes the line. */
static __always_inline bool text(struct room *r)
{
	u32 bytes = r->line_bytes;

	if (bytes > TEXT)
		return false;
	return !bpf_probe_read_kernel(r->key.text, bytes, r->line);
}

static __always_inline struct file *file_of(struct task_struct *task, u64 fd)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd), *file = 0;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file;
}

/* Whether a mount is the file system of the container's root, wherever the task has moved its own. */
static __always_inline bool on_root(struct room *r, struct vfsmount *mnt)
{
	struct super_block *sb = BPF_CORE_READ(mnt, mnt_sb);

	/* The same tree, though by a mount of another namespace: what was open before the task came into its own. */
	if ((u64)BPF_CORE_READ(mnt, mnt_root) == r->root)
		return true;
	/* A bind mount of the overlay into itself is the overlay; one of a disk's other folder is a volume. */
	return (u64)sb == r->root_sb && BPF_CORE_READ(sb, s_magic) == OVERLAYFS_MAGIC;
}

static __always_inline u8 origin_of(struct room *r, struct file *file, struct vfsmount *mnt)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	u64 magic = BPF_CORE_READ(inode, i_sb, s_magic);

	if (!BPF_CORE_READ(inode, i_nlink))
		return ANONYMOUS;
	if (!on_root(r, mnt))
		return magic == TMPFS_MAGIC ? TMPFS : VOLUME;
	if (magic == OVERLAYFS_MAGIC && bpf_core_field_exists(struct ovl_inode, __upperdentry)) {
		struct ovl_inode *overlay = (void *)inode - bpf_core_field_offset(struct ovl_inode, vfs_inode);

		return BPF_CORE_READ(overlay, __upperdentry) ? UPPER : IMAGE;
	}
	return ROOT;
}

/* A program's file: its origin and path into the key; false if it has a path that can't be told. */
static __noinline bool of_file(struct room *r, struct file *file)
{
	struct path path = {};

	BPF_CORE_READ_INTO(&path, file, f_path);
	r->key.what = origin_of(r, file, path.mnt);
	if (r->key.what == ANONYMOUS) {
		/* Nowhere in the tree: the last name is all there is. */
		const unsigned char *name = BPF_CORE_READ(path.dentry, d_name.name);

		r->line_bytes = 256;
		bpf_probe_read_kernel_str(r->key.text, r->line_bytes, name);
		return true;
	}
	return walk(r, path.dentry, path.mnt) && text(r);
}
