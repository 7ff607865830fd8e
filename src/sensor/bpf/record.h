/* What is recorded of a container, or told: the shapes of records, a container's table, its bell or ring, and the room that a
 * program works in. `src/sensor/layout.rs` reads and writes the same shapes: a change here is a change there.
 */
#pragma once
#include "identity.h"

#define CALLS 512
#define TEXT 400

enum kind { CALL = 1, DENIED, CAPABILITY, ARGUMENT, PROGRAM, PATH, PEER, ALLOWED, ALLOWED_BELOW, OPENED, LOSS };
enum operation { WRITE = 1, CREATE, REMOVE, RENAME, ATTRIBUTES };
enum origin { IMAGE = 1, UPPER, TMPFS, ANONYMOUS, VOLUME, ROOT, NAMED };
enum direction { LISTEN = 1, CONNECT };
/* A walk's end: too deep or too long; at a root; at a file that is nowhere in the tree, such as a memfd. Or the name that was
 * given is too long: the line has its beginning.
 */
enum end { LOST, FOUND, NOWHERE, LONG };
enum { ON_ROOT = 1, BY_TEXT = 2, RELATIVE = 4, NO_PATH = 8, KILLED = 16, KEPT = 32, CUT = 64 };

/* Identity of one record. Its bytes are compared, so what a kind does not use is zero. */
struct key {
	u8 side, kind;
	u8 what;    /* operation, origin, direction */
	u8 flags;   /* PATH: ON_ROOT, BY_TEXT, RELATIVE; PROGRAM: 1 if privileged, KEPT from running; told by the guard: NO_PATH, KILLED, CUT */
	u32 number; /* CALL, DENIED, ARGUMENT: number and ABI; CAPABILITY: number; PATH: errno; PEER: family << 16 | type */
	u64 a, b;   /* ARGUMENT: values; PEER: protocol | bytes of address << 32, and port */
	char text[TEXT];
};
#define COMPAT_BIT 0x80000000

struct value {
	u32 first, last, windows, pad; /* the guard's: how often it was told again, when last, how often met since */
	char comm[16];
};

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
	/* What the guard tells at once, in this order. */
	struct {
		u32 pid, count; /* how often it was met since it was told last */
		char comm[16];
		struct key key;
	};
	struct value value;
	u64 root, root_sb; /* the container's */
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

static __always_inline struct room *room(u32 program)
{
	return bpf_map_lookup_elem(&rooms, &program);
}

static __always_inline struct key *blank(struct room *r, struct subject *s, u8 kind)
{
	__builtin_memset(&r->key, 0, sizeof(r->key));
	r->root = s->state->root;
	r->root_sb = s->state->root_sb;
	r->key.side = s->task->side;
	r->key.kind = kind;
	return &r->key;
}
