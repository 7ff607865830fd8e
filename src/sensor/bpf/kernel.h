/* The kernel types that the sensor reads, and no more of each than it reads.
 *
 * Field places are those of the running kernel: libbpf relocates every access by name (CO-RE), so nothing here says
 * where a field is. Kernel versions that a field needs are named beside it.
 */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
enum { false, true };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs {
	unsigned long bp, bx, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
};
struct ns_common {
	unsigned int inum;
};
struct mnt_namespace {
	struct ns_common ns;
};
struct nsproxy {
	struct mnt_namespace *mnt_ns;
};
struct uid_gid_extent {
	u32 first, lower_first, count;
};
struct uid_gid_map {
	struct uid_gid_extent extent[5];
	u32 nr_extents;
};
struct user_namespace {
	struct uid_gid_map uid_map;
	struct ns_common ns;
};
struct pid_namespace {
	struct ns_common ns;
};
/* A process's number in one pid namespace; `pid.numbers` has one for each level, the node's first. */
struct upid {
	int nr;
	struct pid_namespace *ns;
};
struct pid {
	unsigned int level;
	struct upid numbers[1];
};
typedef struct {
	u32 val;
} kuid_t;
/* Eight bytes, whatever they are called: two words before 6.3. */
typedef struct {
	u64 val;
} kernel_cap_t;
struct cred {
	kuid_t euid;
	kernel_cap_t cap_effective, cap_bset;
	struct user_namespace *user_ns;
};
struct qstr {
	u32 len;
	const unsigned char *name;
};
struct super_block {
	unsigned long s_magic;
};
struct inode {
	u16 i_mode;
	u32 i_nlink;
	struct super_block *i_sb;
};
struct dentry {
	struct qstr d_name;
	struct dentry *d_parent;
	struct inode *d_inode;
};
struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct fs_struct {
	struct path root, pwd;
};
struct file {
	unsigned int f_mode;
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};
/* Since 5.19 `__upperdentry` is below `vfs_inode`; only its presence is asked for. */
struct ovl_inode {
	struct inode vfs_inode;
	struct dentry *__upperdentry;
};
typedef struct {
	int counter;
} atomic_t;
struct signal_struct {
	atomic_t live;
	unsigned int flags;
};
struct thread_info {
	u32 status;
};
struct task_struct {
	struct thread_info thread_info;
	u32 pid, tgid;
	struct task_struct *real_parent, *group_leader;
	u64 start_boottime;
	struct pid *thread_pid;
	const struct cred *real_cred;
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	int exit_code;
};
struct linux_binprm {
	unsigned int secureexec : 1;
	struct file *file;
	const char *filename, *interp;
};
struct in6_addr {
	u8 bytes[16];
};
struct sock_common {
	u32 skc_daddr, skc_rcv_saddr;
	u16 skc_dport, skc_num;
	unsigned short skc_family;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
};
struct sock {
	struct sock_common __sk_common;
	u16 sk_type, sk_protocol;
};
struct socket {
	struct sock *sk;
};
struct unix_address {
	int len;
};
struct unix_sock {
	struct unix_address *addr;
};

#pragma clang attribute pop

/* Numbers of the kernel's interface, from its own headers; stable. */
#define TS_COMPAT 0x2
#define AT_FDCWD (-100)
#define EPERM 1
#define EACCES 13
#define EEXIST 17
#define EROFS 30
#define ENOSYS 38
#define ENETUNREACH 101
#define ETIMEDOUT 110
#define ECONNREFUSED 111
#define EHOSTUNREACH 113
#define EINPROGRESS 115
#define O_ACCMODE 03
#define O_CREAT 0100
#define O_TRUNC 01000
#define O_TMPFILE 020000000
#define FMODE_WRITE 0x2
#define FMODE_CREATED 0x100000
#define PROT_EXEC 0x4
#define MAP_ANONYMOUS 0x20
#define SIGSYS 31
#define SIGNAL_GROUP_EXIT 0x4
#define S_IFMT 0170000
#define S_IFDIR 0040000
#define S_IFREG 0100000
#define S_IFSOCK 0140000
#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_SEQPACKET 5
#define TMPFS_MAGIC 0x01021994
#define PROC_MAGIC 0x9fa0
#define SYSFS_MAGIC 0x62656572
#define CGROUP_MAGIC 0x27e0eb
#define BINFMT_MAGIC 0x42494e4d
#define DEBUGFS_MAGIC 0x64626720
#define SECURITYFS_MAGIC 0x73636673
#define OVERLAYFS_MAGIC 0x794c7630
#define CAP_SYS_ADMIN 21
#define SIGKILL 9
/* CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
#define CLONE_NEW_ALL 0x7e020080
