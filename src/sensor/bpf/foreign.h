/* Programs that are not of the image: which these are, which of them are allowed, and their end. */
#pragma once
#include "scripts.h"
#include "tell.h"

/* What is written down of a program's path, as its value; `layout.rs` has the same. */
#define MAY_BE_FOREIGN 1
#define DENIED 2

enum rule { NO_RULE, MAY_RUN, MUST_NOT_RUN };

struct search {
	struct room *r;
	u32 slot;
};

static long strip(u32 index, void *context)
{
	struct search *search = context;
	struct room *r = search->r;
	struct key *k = (void *)r->walked;
	u32 slot = search->slot, at = TEXT - 1 - index;
	void *table;
	char byte;

	if (at >= TEXT)
		return 1;
	byte = k->text[at];
	k->text[at] = 0;
	if (byte != '/')
		return 0;
	table = bpf_map_lookup_elem(&tables, &slot);
	if (!table)
		return 1;
	if (!bpf_map_lookup_elem(table, k))
		return 0;
	r->end = FOUND;
	return 1;
}

/* What the container's rules say of the path of the program in `r->key`. */
static __noinline u32 rule_of(struct room *r, struct tracked *t)
{
	u32 slot = t->slot;
	struct key *k = (void *)r->walked;
	void *table = bpf_map_lookup_elem(&tables, &slot);
	struct value *v;

	if (!table || r->key.flags & NO_PATH || r->key.what == ANONYMOUS)
		return NO_RULE;
	__builtin_memset(k, 0, sizeof(*k));
	k->kind = ALLOWED;
	bpf_probe_read_kernel(k->text, TEXT, r->key.text);
	v = bpf_map_lookup_elem(table, k);
	if (!v)
		return NO_RULE;
	if (v->first == DENIED)
		return MUST_NOT_RUN;
	/* What the image has at this path was meant, unless something else was mounted there from the beginning. */
	return !foreign(r->key.what) || v->first == MAY_BE_FOREIGN ? MAY_RUN : NO_RULE;
}

/* Whether it is below a folder from which a pattern allows programs. */
static __noinline bool allowed_below(struct room *r, struct tracked *t)
{
	struct search search = { .r = r, .slot = t->slot };
	struct key *k = (void *)r->walked;

	/* The writable layer is where intruders write: no pattern means what is there. */
	if (r->key.flags & NO_PATH || r->key.what == ANONYMOUS || r->key.what == UPPER)
		return false;
	__builtin_memset(k, 0, sizeof(*k));
	k->kind = ALLOWED_BELOW;
	bpf_probe_read_kernel(k->text, TEXT, r->key.text);
	r->end = LOST;
	bpf_loop(TEXT, strip, &search, 0);
	return r->end == FOUND;
}

/* Judges the program in `r->key`. `chosen`: whoever made the container chose it. */
static __always_inline void judge(struct room *r, struct subject *s, bool chosen)
{
	u32 rule = rule_of(r, s->task);
	bool ends;

	/* Without the program that it begins with there is no container: to deny that one is to deny what it starts. */
	if (rule == MAY_RUN || (rule == MUST_NOT_RUN && chosen && !foreign(r->key.what)))
		return;
	/* An entry point may be on a volume: what the engine was told to run is no intruder's choice. */
	ends = rule == MUST_NOT_RUN && !chosen;
	if (!ends && (s->slot->rules & KILL_FOREIGN) && foreign(r->key.what) && !(chosen && r->key.what == VOLUME))
		ends = rule == MUST_NOT_RUN || !allowed_below(r, s->task);
	if (ends && !bpf_send_signal(SIGKILL))
		r->key.flags |= KILLED;
	note(r, s->task);
}
