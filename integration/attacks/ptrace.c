/* Takes over the server, its parent's parent: stops it, and changes a word of its memory to what it was.
 *
 * docker:  lands
 * enforce: syscall ptrace
 * observe: forbidden argument ptrace
 */
#include "attack.h"
#include <sys/ptrace.h>
#include <sys/wait.h>

extern char etext;

int attack(void)
{
	long word, *at = (long *)((unsigned long)&etext & ~7UL) - 1;

	if (ptrace(PTRACE_ATTACH, 1, 0, 0))
		return refused("PTRACE_ATTACH");
	waitpid(1, 0, __WALL);
	errno = 0;
	word = ptrace(PTRACE_PEEKTEXT, 1, at, 0);
	if (errno || ptrace(PTRACE_POKETEXT, 1, at, word))
		return refused("PTRACE_POKETEXT");
	ptrace(PTRACE_DETACH, 1, 0, 0);
	return landed();
}
