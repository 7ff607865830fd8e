/* What the programs and user space share: the shapes of records, and the maps. `src/sensor/layout.rs` reads and writes
 * the same shapes: a change here is a change there.
 */
#pragma once
#include "kernel.h"

#define SLOTS 1024
#define CALLS 512
#define TEXT 400

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
};

/* What is counted about one container; zeroed by user space before it is armed, then written by the kernel only. */
struct state {
	u64 id;
	u64 user_ns; /* init's user namespace, as an address; only compared */
	u64 table_full, unreadable, untracked;
	u32 mnt_ns; /* 0 until init has executed its program, and after it has ended */
	u32 tasks, tasks_peak;
	u32 entries;      /* records of unbounded kinds */
	u32 active;       /* the last window with any activity, plus one */
	u32 active_windows;
	u32 init; /* its tgid, as the kernel counts */
	u32 pad[3];
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
enum kind { CALL = 1, DENIED, CAPABILITY, ARGUMENT, PROGRAM, PATH, PEER };
enum operation { WRITE = 1, CREATE, REMOVE, RENAME, ATTRIBUTES };
enum origin { IMAGE = 1, UPPER, TMPFS, ANONYMOUS, VOLUME, ROOT };
enum direction { LISTEN = 1, CONNECT };
/* A walk's end: too deep or too long; at a root; at a file that is nowhere in the tree, such as a memfd. */
enum end { LOST, FOUND, NOWHERE };
enum { ON_ROOT = 1, BY_TEXT = 2, RELATIVE = 4 };

/* Identity of one record. Its bytes are compared, so what a kind does not use is zero. */
struct key {
	u8 side, kind;
	u8 what;    /* operation, origin, direction */
	u8 flags;   /* PATH: ON_ROOT, BY_TEXT, RELATIVE; PROGRAM: 1 if privileged */
	u32 number; /* CALL, DENIED, ARGUMENT: number and ABI; CAPABILITY: number; PATH: errno; PEER: family << 16 | type */
	u64 a, b;   /* ARGUMENT: values; PEER: protocol | bytes of address << 32, and port */
	char text[TEXT];
};
#define COMPAT_BIT 0x80000000

struct value {
	u32 first, last, windows, pad;
	char comm[16];
};

/* What a task carries with it. The bits say what has been recorded already in this window, so that the usual call costs
 * one look. */
struct tracked {
	u64 id;
	u32 slot;
	u32 side;
	u32 window; /* that the bits are of, plus one */
	u32 entered; /* between sys_enter and sys_exit */
	u64 calls[2 * CALLS / 64];
	u64 capabilities;
};

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

/* Sizes and no types: Linux 6.1 takes a map without types, as ours are, for another kind than one with. */
struct table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct key));
	__uint(value_size, sizeof(struct value));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, u32);
	__array(values, struct table);
} tables SEC(".maps");

struct bell {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, u32);
	__array(values, struct bell);
} bells SEC(".maps");

/* Room to work in, too large for a stack: one for each program, since one may interrupt another. */
enum program { IN_ENTER, IN_EXIT, IN_EXEC, IN_CAPABLE, PROGRAMS };
struct room {
	struct key key;
	struct value value;
	u64 args[6];
	u64 frames[16];
	struct dentry *dentry;
	struct mount *mount;
	u32 at;   /* where the walked path begins in `walked` */
	u32 end;  /* how the walk ended */
	u32 line_bytes;
	char walked[1024];
	char line[1024];
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PROGRAMS);
	__type(key, u32);
	__type(value, struct room);
} rooms SEC(".maps");
