/* Telling a refusal: each distinct thing at once, when it goes on at ever longer intervals, and within bounds. That something
 * could not be told is told, too.
 */
#pragma once
#include "record.h"

/* How many of a kind one container may tell, where it is not the slot's limit: `guard.rs` has the same. */
#define MOST_PROGRAMS 1024
#define MOST_CAPABILITIES 256
#define MOST_OPENED 256
#define MOST_ENDED 64
/* So many times the quiet before something is told again doubles: from a minute to an hour. */
#define DOUBLINGS 6
/* So often what nothing refused is told again in one second. */
#define AT_ONCE 8

/* The room that a kind has of its own: a flood of one can't push another out. */
static __always_inline u32 *counter(struct subject *s, u8 kind, u32 *limit)
{
	switch (kind) {
	case PROGRAM:
		*limit = MOST_PROGRAMS;
		return &s->state->programs;
	case CAPABILITY:
		*limit = MOST_CAPABILITIES;
		return &s->state->capabilities;
	case OPENED:
		*limit = MOST_OPENED;
		return &s->state->opened;
	case CALL:
		*limit = MOST_ENDED;
		return &s->state->ended;
	}
	*limit = s->slot->limit;
	return &s->state->entries;
}

static __always_inline u32 seconds(void)
{
	return bpf_ktime_get_ns() / 1000000000;
}

/* Puts the record in `r->key` into the container's ring. */
static __always_inline long tell(struct room *r, struct subject *s, void *ring)
{
	u32 bytes = r->line_bytes;

	if (bytes > TEXT)
		bytes = TEXT;
	r->pid = number_in(bpf_get_current_task_btf(), s->slot->pid_ns);
	bpf_get_current_comm(r->comm, sizeof(r->comm));
	return bpf_ringbuf_output(ring, &r->pid, (void *)&r->key.text - (void *)&r->pid + bytes, BPF_RB_FORCE_WAKEUP);
}

/* What was told is met again: it is counted, and told with that count once it has been quiet about it for long enough. What
 * nothing refused, and a loss, is told at once for some times, and then in each second in which it is met.
 */
static __noinline bool again(struct room *r, struct tracked *t, struct value *v)
{
	u32 slot = t->slot, now = seconds(), last, times, doublings;
	struct subject s = { .task = t };
	void *ring;

	if (!v || !aim(slot, t->id, &s))
		return false;
	last = v->last;
	times = v->first;
	doublings = times < DOUBLINGS ? times : DOUBLINGS;
	__sync_fetch_and_add(&v->windows, 1);
	if (r->key.kind == OPENED || r->key.kind == LOSS) {
		if (times >= AT_ONCE && now == last)
			return true;
		v->last = now;
	} else if (!s.slot->quiet || now - last < s.slot->quiet << doublings ||
		   __sync_val_compare_and_swap(&v->last, last, now) != last) {
		return true;
	}
	ring = bpf_map_lookup_elem(&bells, &slot);
	if (!ring)
		return false;
	v->first = times + 1;
	r->count = __sync_fetch_and_and(&v->windows, 0);
	/* Nobody has read for long: the count is kept for the next time. */
	if (tell(r, &s, ring))
		__sync_fetch_and_add(&v->windows, r->count);
	return true;
}

/* Paths leave the ring's last quarter to what is worse. */
static __always_inline bool is_crowded(void *bell)
{
	u64 unread = bpf_ringbuf_query(bell, BPF_RB_AVAIL_DATA), all = bpf_ringbuf_query(bell, BPF_RB_RING_SIZE);

	return unread > all - all / 4;
}

/* Something is lost, which is counted, and told: a record of its own, made in `r->key`. Where even that finds no room, there is
 * much to be read, and whoever reads looks at the count.
 */
static __noinline void lose(struct room *r, struct tracked *t)
{
	struct subject s = { .task = t };
	u32 slot = t->slot;
	void *table, *bell;
	struct value *v;

	if (!aim(slot, t->id, &s))
		return;
	__sync_fetch_and_add(&s.state->table_full, 1);
	table = bpf_map_lookup_elem(&tables, &slot);
	bell = bpf_map_lookup_elem(&bells, &slot);
	if (!table || !bell)
		return;
	blank(r, &s, LOSS);
	r->line_bytes = 0;
	v = bpf_map_lookup_elem(table, &r->key);
	if (v) {
		again(r, t, v);
		return;
	}
	r->value.last = seconds();
	bpf_map_update_elem(table, &r->key, &r->value, BPF_NOEXIST);
	r->count = 1;
	tell(r, &s, bell);
}

/* Tells the record in `r->key`, whose text has `r->line_bytes`; false if it is lost. */
static __noinline bool note(struct room *r, struct tracked *t)
{
	u32 slot = t->slot, limit, *count;
	struct subject s = { .task = t };
	void *table, *bell;
	struct value *v;
	long error;

	if (!aim(slot, t->id, &s))
		return false;
	table = bpf_map_lookup_elem(&tables, &slot);
	bell = bpf_map_lookup_elem(&bells, &slot);
	if (!table || !bell)
		return false;
	v = bpf_map_lookup_elem(table, &r->key);
	if (v)
		return again(r, t, v);
	count = counter(&s, r->key.kind, &limit);
	if (__sync_fetch_and_add(count, 1) >= limit || (r->key.kind == PATH && is_crowded(bell)))
		goto lost;
	r->value.last = seconds();
	error = bpf_map_update_elem(table, &r->key, &r->value, BPF_NOEXIST);
	if (error == -EEXIST) {
		__sync_fetch_and_add(count, -1);
		return true;
	}
	if (error)
		goto lost;
	r->count = 1;
	if (!tell(r, &s, bell))
		return true;
	/* Nobody has read for long. It may be told the next time. */
	bpf_map_delete_elem(table, &r->key);
lost:
	__sync_fetch_and_add(count, -1);
	lose(r, t);
	return false;
}

/* The record in `r->key` has a path that can't be told, or only in part: one that is too long begins as the line does. */
static __always_inline void unknown(struct room *r)
{
	if (r->end == LONG) {
		r->key.flags |= CUT;
		r->line_bytes = TEXT;
		bpf_probe_read_kernel(r->key.text, TEXT, r->line);
		return;
	}
	r->key.flags = NO_PATH;
	r->line_bytes = 0;
	__builtin_memset(r->key.text, 0, sizeof(r->key.text));
}
