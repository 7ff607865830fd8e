/* By which interface a call came, and what it was given. */
#pragma once
#include "record.h"

static __always_inline bool is_compat(struct task_struct *task)
{
	return task->thread_info.status & TS_COMPAT;
}

static __always_inline void arguments(struct room *r, struct pt_regs *regs, bool compat)
{
	if (compat) {
		r->args[0] = (u32)regs->bx;
		r->args[1] = (u32)regs->cx;
		r->args[2] = (u32)regs->dx;
		r->args[3] = (u32)regs->si;
		r->args[4] = (u32)regs->di;
		r->args[5] = (u32)regs->bp;
	} else {
		r->args[0] = regs->di;
		r->args[1] = regs->si;
		r->args[2] = regs->dx;
		r->args[3] = regs->r10;
		r->args[4] = regs->r8;
		r->args[5] = regs->r9;
	}
}
