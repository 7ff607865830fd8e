/* Telling a refusal: once for each distinct thing, at once, and within bounds. */
#pragma once
#include "record.h"

/* Refused capabilities that one container may tell: `guard.rs` has the same. */
#define MOST_CAPABILITIES 256

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

/* Tells the record in `r->key`, whose text has `r->line_bytes`; false if it is lost, which is counted. */
static __noinline bool note(struct room *r, struct tracked *t)
{
	u32 slot = t->slot, bytes = r->line_bytes, limit, *count;
	struct subject s = { .task = t };
	void *table, *ring;
	long error;

	if (!aim(slot, t->id, &s))
		return false;
	table = bpf_map_lookup_elem(&tables, &slot);
	ring = bpf_map_lookup_elem(&bells, &slot);
	if (!table || !ring)
		return false;
	if (bpf_map_lookup_elem(table, &r->key))
		return true;
	count = counter(&s, r->key.kind, &limit);
	if (__sync_fetch_and_add(count, 1) >= limit)
		goto lost;
	error = bpf_map_update_elem(table, &r->key, &r->value, BPF_NOEXIST);
	if (error == -EEXIST) {
		__sync_fetch_and_add(count, -1);
		return true;
	}
	if (error)
		goto lost;
	if (bytes > TEXT)
		bytes = TEXT;
	r->pid = number_in(bpf_get_current_task_btf(), s.slot->pid_ns);
	bpf_get_current_comm(r->comm, sizeof(r->comm));
	error = bpf_ringbuf_output(ring, &r->pid, (void *)&r->key.text - (void *)&r->pid + bytes, BPF_RB_FORCE_WAKEUP);
	if (!error)
		return true;
	/* Nobody has read for long. It may be told the next time. */
	bpf_map_delete_elem(table, &r->key);
lost:
	__sync_fetch_and_add(count, -1);
	__sync_fetch_and_add(&s.state->table_full, 1);
	return false;
}

/* Tells it without its path. */
static __always_inline void note_unknown(struct room *r, struct tracked *t)
{
	r->key.flags = NO_PATH;
	r->line_bytes = 0;
	__builtin_memset(r->key.text, 0, sizeof(r->key.text));
	note(r, t);
}
