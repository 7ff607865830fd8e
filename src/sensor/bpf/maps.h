/* What recording has beside the shared shapes: what a task carries with it. */
#pragma once
#include "kernel.h"

/* What a task carries with it. The bits say what has been recorded already in this window, so that the usual call costs
 * one look. */
struct tracked {
	u64 id;
	u32 slot;
	u32 side;
	u32 window; /* that the bits are of, plus one */
	u32 entered; /* between sys_enter and sys_exit */
	u64 calls[2 * 512 / 64];
	u64 capabilities;
};

#include "record.h"
