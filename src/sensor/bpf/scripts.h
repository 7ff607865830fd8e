/* Scripts: the kernel executes their interpreter, and by then has only the name that it was asked for. Which file that is,
 * user space looks up; but for one that was given by its descriptor, which is still open.
 */
#pragma once
#include "paths.h"

enum script { NO_SCRIPT, BY_FILE, BY_NAME, UNREADABLE };

static __always_inline bool foreign(u8 origin)
{
	return origin >= UPPER && origin <= VOLUME;
}

/* Whether it begins as execveat(2) calls a descriptor. */
static __always_inline bool by_descriptor(const char *name)
{
	const char *as = "/dev/fd/";

	for (u32 i = 0; i < 8; i++)
		if (name[i] != as[i])
			return false;
	return true;
}

/* Writes the script that a task executes into the key, if it is one. */
static __noinline u32 script(struct room *r, struct task_struct *task, struct linux_binprm *bprm)
{
	const char *name = BPF_CORE_READ(bprm, filename);
	char head[24] = {};
	struct path base = {};
	struct file *file;
	u32 bytes, at = 0, number = 0;
	long more;

	if (name == BPF_CORE_READ(bprm, interp))
		return NO_SCRIPT;
	bpf_probe_read_kernel_str(head, sizeof(head), name);
	if (by_descriptor(head)) {
		/* It, or a name below it. */
		for (at = 8; at < sizeof(head) - 1; at++) {
			u32 digit = (u8)head[at] - '0';

			if (digit > 9)
				break;
			number = number * 10 + digit;
		}
		file = file_of(task, number);
		if (!file)
			return UNREADABLE;
		if (at >= sizeof(head) - 1 || !head[at])
			return of_file(r, file) ? BY_FILE : UNREADABLE;
		BPF_CORE_READ_INTO(&base, file, f_path);
	} else if (head[0] == '/') {
		BPF_CORE_READ_INTO(&base, task, fs, root);
	} else {
		BPF_CORE_READ_INTO(&base, task, fs, pwd);
	}
	r->key.what = NAMED;
	if (!base.dentry || !walk(r, base.dentry, base.mnt))
		return UNREADABLE;
	bytes = r->line_bytes;
	if (bytes > TEXT)
		return UNREADABLE;
	r->line[bytes++] = '/';
	more = bpf_probe_read_kernel_str(&r->line[bytes], 512, name + at);
	if (more < 1 || more >= 512)
		return UNREADABLE;
	r->line_bytes = bytes + more - 1;
	return text(r) ? BY_NAME : UNREADABLE;
}
