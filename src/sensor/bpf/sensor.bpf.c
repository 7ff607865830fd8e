/* The sensor's programs. They record what followed tasks do in their container's table, and nothing of anyone else.
 *
 * Hot: sys_enter and sys_exit run for every system call of the node. A task that is not followed costs one look at its
 * storage; one that is followed and does nothing new, one bit more.
 */
#include "maps.h"
#include "arguments.h"
#include "capable.h"
#include "flags.h"
#include "life.h"
#include "names.h"
#include "sockets.h"

char LICENSE[] SEC("license") = "GPL";

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct subject s;
	struct room *r;
	u32 nr = id, word;
	u64 bit;
	bool compat;

	if (!subject(me, &s))
		return 0;
	s.task->entered = 1;
	compat = is_compat(me);
	if (nr >= CALLS) {
		/* No such call, unless by the x32 interface, which is not recorded. */
		if (!compat && nr >> 30 == 1)
			unreadable(&s);
		return 0;
	}
	word = (nr >> 6) + (compat ? CALLS / 64 : 0);
	bit = 1ULL << (nr & 63);
	if (word >= 2 * CALLS / 64 || s.task->calls[word] & bit)
		return 0;
	r = room(IN_ENTER);
	if (!r)
		return 0;
	blank(r, &s, CALL)->number = nr | (compat ? COMPAT_BIT : 0);
	if (note(r, s.task))
		s.task->calls[word] |= bit;
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(leave, struct pt_regs *regs, long ret)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct subject s;
	struct room *r;
	u32 nr = regs->orig_ax, as = nr, number, look;
	bool compat, read = true, entered;

	if (!subject(me, &s))
		return 0;
	entered = s.task->entered;
	s.task->entered = 0;
	compat = is_compat(me);
	if (nr >= CALLS)
		return 0;
	number = nr | (compat ? COMPAT_BIT : 0);
	if (!entered) {
		/* seccomp answers before sys_enter: a call that only returns was refused. */
		r = room(IN_EXIT);
		if (!r)
			return 0;
		blank(r, &s, DENIED)->number = number;
		note(r, s.task);
		return 0;
	}
	if (compat)
		as = nr == SOCKETCALL ? SOCKETCALL : same_as[nr & (CALLS - 1)];
	look = calls[as & (CALLS - 1)].look;
	if (look == NOTHING && !(compat && as == SOCKETCALL))
		return 0;
	r = room(IN_EXIT);
	if (!r)
		return 0;
	arguments(r, regs, compat);
	if (compat && as == SOCKETCALL) {
		u32 words[6] = {}, i;

		as = socket_calls[r->args[0] & 31];
		look = calls[as & (CALLS - 1)].look;
		if (!as)
			return 0;
		/* The array may end with the last argument of the call and with its page. */
		if (bpf_probe_read_user(words, sizeof(words), (void *)r->args[1]) &&
		    bpf_probe_read_user(words, 3 * sizeof(u32), (void *)r->args[1])) {
			unreadable(&s);
			return 0;
		}
		for (i = 0; i < 6; i++)
			r->args[i] = words[i];
	}
	if (look == FLAGS)
		read = on_flags(r, s.task, number, as);
	else if (look == OPEN)
		read = on_open(r, s.task, as, ret);
	else if (look == SOCKET)
		read = on_socket(r, s.task, as, (u32)ret | (compat ? 1ULL << 63 : 0));
	else
		read = on_names(r, s.task, as, ret);
	if (!read)
		unreadable(&s);
	return 0;
}
