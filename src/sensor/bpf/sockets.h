/* Sockets: what is listened on and what is connected or sent to. */
#pragma once
#include "names.h"

/* The socket of a descriptor; null if it is none. */
static __always_inline struct sock *sock_of(struct file *file)
{
	struct socket *socket;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

static __always_inline void peer(struct key *k, struct sock *sk, u8 direction)
{
	u32 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	k->what = direction;
	k->number = family << 16 | BPF_CORE_READ(sk, sk_type);
	k->a = BPF_CORE_READ(sk, sk_protocol);
}

/* Our own address, from the kernel's socket. */
static __always_inline bool own(struct room *r, struct sock *sk)
{
	u32 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	struct key *k = &r->key;

	if (family == AF_INET) {
		u32 address = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);

		__builtin_memcpy(k->text, &address, 4);
		k->a |= 4ULL << 32;
		k->b = BPF_CORE_READ(sk, __sk_common.skc_num);
	} else if (family == AF_INET6) {
		struct in6_addr address = BPF_CORE_READ(sk, __sk_common.skc_v6_rcv_saddr);

		__builtin_memcpy(k->text, &address, 16);
		k->a |= 16ULL << 32;
		k->b = BPF_CORE_READ(sk, __sk_common.skc_num);
	} else if (family == AF_UNIX) {
		struct unix_address *address = BPF_CORE_READ((struct unix_sock *)sk, addr);
		u32 bytes;

		if (!address)
			return true;
		/* `struct sockaddr_un` follows the two words of the head; its family comes first. */
		bytes = BPF_CORE_READ(address, len) - 2;
		if (bytes > 108)
			return false;
		k->a |= (u64)bytes << 32;
		return !bpf_probe_read_kernel(k->text, bytes, (void *)address + 8 + 2);
	}
	return true;
}

/* The address at the other end, from a connected socket. */
static __always_inline bool other(struct key *k, struct sock *sk, u32 family)
{
	if (family == AF_INET) {
		u32 address = BPF_CORE_READ(sk, __sk_common.skc_daddr);

		__builtin_memcpy(k->text, &address, 4);
		k->a |= 4ULL << 32;
	} else {
		struct in6_addr address = BPF_CORE_READ(sk, __sk_common.skc_v6_daddr);

		__builtin_memcpy(k->text, &address, 16);
		k->a |= 16ULL << 32;
	}
	k->b = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
	return k->b != 0;
}

/* An address that the task gave. False if it can't be read; nothing is noted for AF_UNSPEC, which disconnects. */
static __always_inline bool given(struct room *r, u64 pointer, u64 size)
{
	struct key *k = &r->key;
	u8 *bytes = (u8 *)r->line;
	u16 family, port;
	u32 n = size > 128 ? 128 : size;

	if (n < 2 || bpf_probe_read_user(bytes, n, (void *)pointer))
		return false;
	__builtin_memcpy(&family, bytes, 2);
	__builtin_memcpy(&port, bytes + 2, 2);
	k->number = (u32)family << 16 | (k->number & 0xffff);
	if (family == AF_INET && n >= 8) {
		__builtin_memcpy(k->text, bytes + 4, 4);
		k->a |= 4ULL << 32;
		k->b = __builtin_bswap16(port);
	} else if (family == AF_INET6 && n >= 24) {
		__builtin_memcpy(k->text, bytes + 8, 16);
		k->a |= 16ULL << 32;
		k->b = __builtin_bswap16(port);
	} else if (family == AF_UNIX) {
		n -= 2;
		if (n > 110)
			return false;
		/* A name ends at its zero, unless it begins with one. */
		if (n && bytes[2]) {
			long length = bpf_probe_read_kernel_str(k->text, 110, bytes + 2);

			if (length < 1)
				return false;
			if (length - 1 < n)
				n = length - 1;
			if (n < 110)
				k->text[n] = 0;
		} else if (bpf_probe_read_kernel(k->text, n, bytes + 2)) {
			return false;
		}
		k->a |= (u64)n << 32;
	}
	return true;
}

/* What has been sent or connected, or failed on the way: an address that nobody answers is one that is needed. */
static __always_inline bool tried(long result)
{
	return result >= 0 || result == -EINPROGRESS || result == -ECONNREFUSED || result == -ETIMEDOUT ||
	       result == -ENETUNREACH || result == -EHOSTUNREACH;
}

/* A socket that is bound to a path is a file made. */
static __always_inline bool bound(struct room *r, struct subject *s)
{
	char first = 0;

	if (r->args[2] <= 2 || bpf_probe_read_user(&first, 1, (void *)r->args[1] + 2) || !first)
		return true;
	blank(r, s, PATH)->what = CREATE;
	return named(r, HERE, r->args[1] + 2) && (note(r, s->task), true);
}

static __noinline bool on_socket(struct room *r, struct tracked *t, u32 number, u64 how)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct subject s = { .task = t };
	long result = how & 0xffffffff;
	bool compat = how >> 63;
	struct sock *sk;
	u32 family, type;

	result = (s32)result;
	/* No message was sent: libuv asks so, with none and no address of any, whether there is such a call. */
	if (number == NR_SENDMMSG && !result)
		return true;
	if (!tried(result) || !aim(t->slot, t->id, &s))
		return true;
	sk = sock_of(file_of(me, r->args[0]));
	if (!sk)
		return true;
	blank(r, &s, PEER);
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	type = BPF_CORE_READ(sk, sk_type);
	if (number == NR_LISTEN || number == NR_BIND) {
		bool listens = type == SOCK_STREAM || type == SOCK_SEQPACKET;

		if (!result && number == NR_BIND && family == AF_UNIX) {
			if (!bound(r, &s))
				return false;
			blank(r, &s, PEER);
		}
		if (result || listens != (number == NR_LISTEN))
			return true;
		peer(&r->key, sk, LISTEN);
		if (!own(r, sk))
			return false;
	} else {
		u64 pointer = r->args[1], size = r->args[2];

		peer(&r->key, sk, CONNECT);
		if (number == NR_SENDTO) {
			pointer = r->args[4];
			size = r->args[5];
		} else if (number == NR_SENDMSG || number == NR_SENDMMSG) {
			u32 words[3] = {};
			void *header = (void *)r->args[1];

			if (bpf_probe_read_user(words, sizeof(words), header))
				return false;
			pointer = compat ? words[0] : (u64)words[1] << 32 | words[0];
			size = compat ? words[1] : words[2];
		} else if ((family == AF_INET || family == AF_INET6) && (!result || result == -EINPROGRESS)) {
			/* The kernel's own word, which the task can't have changed since; none after a disconnection. */
			if (other(&r->key, sk, family))
				note(r, t);
			return true;
		}
		if (!pointer || !size)
			return true;
		if (!given(r, pointer, size))
			return false;
		if (!(r->key.number >> 16))
			return true;
	}
	note(r, t);
	return true;
}
