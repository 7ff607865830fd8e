/* Noting a record: the one way from a program into a container's table. */
#pragma once
#include "maps.h"

/* A task's first sign of life in a window. */
static __always_inline void freshen(struct subject *s)
{
	u32 now = s->slot->window + 1, last = s->state->active;
	struct tracked *t = s->task;

	__builtin_memset(t->calls, 0, sizeof(t->calls));
	t->capabilities = 0;
	t->window = now;
	if (last != now && __sync_val_compare_and_swap(&s->state->active, last, now) == last)
		__sync_fetch_and_add(&s->state->active_windows, 1);
}

/* The task's subject, with bits of this window; false if it is not followed. */
static __always_inline bool subject(struct task_struct *task, struct subject *s)
{
	if (!followed(task, s))
		return false;
	if (s->task->window != s->slot->window + 1)
		freshen(s);
	return true;
}

static __always_inline void mark(struct value *v, u32 window)
{
	u32 last = v->last;

	if (last != window && __sync_val_compare_and_swap(&v->last, last, window) == last)
		__sync_fetch_and_add(&v->windows, 1);
}

/* Rings only when nothing is left unheard: one wake-up is enough, and the ring never fills. */
static __always_inline void ring(u32 slot)
{
	void *bell = bpf_map_lookup_elem(&bells, &slot);
	u64 mark = 1;

	if (bell && !bpf_ringbuf_query(bell, BPF_RB_AVAIL_DATA))
		bpf_ringbuf_output(bell, &mark, sizeof(mark), BPF_RB_FORCE_WAKEUP);
}

/* Notes the record in `r->key`; false if it is lost, which is counted. */
static __noinline bool note(struct room *r, struct tracked *t)
{
	u32 slot_number = t->slot;
	struct subject s = { .task = t };
	struct value *v;
	void *table;
	long error;
	bool bounded = r->key.kind <= CAPABILITY;

	if (!aim(slot_number, t->id, &s))
		return false;
	table = bpf_map_lookup_elem(&tables, &slot_number);
	if (!table)
		return false;
	v = bpf_map_lookup_elem(table, &r->key);
	if (v) {
		mark(v, s.slot->window);
		return true;
	}
	/* Bounded kinds have room of their own beyond the limit: a flood of paths can't push a system call out. */
	if (!bounded && __sync_fetch_and_add(&s.state->entries, 1) >= s.slot->limit) {
		__sync_fetch_and_add(&s.state->entries, -1);
		goto lost;
	}
	r->value.first = r->value.last = s.slot->window;
	r->value.windows = 1;
	bpf_get_current_comm(r->value.comm, sizeof(r->value.comm));
	error = bpf_map_update_elem(table, &r->key, &r->value, BPF_NOEXIST);
	if (!error) {
		if (s.slot->bell)
			ring(slot_number);
		return true;
	}
	if (!bounded)
		__sync_fetch_and_add(&s.state->entries, -1);
	if (error == -EEXIST) {
		v = bpf_map_lookup_elem(table, &r->key);
		if (v)
			mark(v, s.slot->window);
		return true;
	}
lost:
	__sync_fetch_and_add(&s.state->table_full, 1);
	return false;
}

static __always_inline void unreadable(struct subject *s)
{
	__sync_fetch_and_add(&s->state->unreadable, 1);
}
