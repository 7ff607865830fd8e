/* Telling a refusal: each distinct thing at once, when it goes on at ever longer intervals, and within bounds. */
#pragma once
#include "record.h"

/* Refused capabilities that one container may tell: `guard.rs` has the same. */
#define MOST_CAPABILITIES 256
/* So many times the quiet before something is told again doubles: from a minute to an hour. */
#define DOUBLINGS 6

/* The room that a kind has of its own: a flood of one can't push another out. */
static __always_inline u32 *counter(struct subject *s, u8 kind, u32 *limit)
{
	*limit = s->slot->limit;
	if (kind == PROGRAM)
		return &s->state->programs;
	if (kind != CAPABILITY)
		return &s->state->entries;
	*limit = MOST_CAPABILITIES;
	return &s->state->capabilities;
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

/* What was told is met again: it is counted, and told with that count once it has been quiet about it for long enough. */
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
	if (!s.slot->quiet || now - last < s.slot->quiet << doublings || __sync_val_compare_and_swap(&v->last, last, now) != last)
		return true;
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

/* Tells the record in `r->key`, whose text has `r->line_bytes`; false if it is lost, which is counted. */
static __noinline bool note(struct room *r, struct tracked *t)
{
	u32 slot = t->slot, limit, *count;
	struct subject s = { .task = t };
	void *table, *ring;
	struct value *v;
	long error;

	if (!aim(slot, t->id, &s))
		return false;
	table = bpf_map_lookup_elem(&tables, &slot);
	ring = bpf_map_lookup_elem(&bells, &slot);
	if (!table || !ring)
		return false;
	v = bpf_map_lookup_elem(table, &r->key);
	if (v)
		return again(r, t, v);
	count = counter(&s, r->key.kind, &limit);
	if (__sync_fetch_and_add(count, 1) >= limit)
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
	if (!tell(r, &s, ring))
		return true;
	/* Nobody has read for long. It may be told the next time. */
	bpf_map_delete_elem(table, &r->key);
lost:
	__sync_fetch_and_add(count, -1);
	__sync_fetch_and_add(&s.state->table_full, 1);
	return false;
}

/* The record in `r->key` has a path that can't be told. */
static __always_inline void unknown(struct room *r)
{
	r->key.flags = NO_PATH;
	r->line_bytes = 0;
	__builtin_memset(r->key.text, 0, sizeof(r->key.text));
}
