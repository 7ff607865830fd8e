/* A burst of threads alone, as of a miner that has not called home yet.
 *
 * docker:  lands
 * enforce: syscall clone3 | syscall clone | syscall rseq | syscall set_robust_list | syscall mprotect | syscall madvise
 * observe: would-refuse syscall
 */
#include "attack.h"
#include <pthread.h>

#define THREADS 64

static volatile int go;

static void *mine(void *nothing)
{
	while (!go)
		;
	return nothing;
}

int attack(void)
{
	pthread_t threads[THREADS];
	int started = 0;

	while (started < THREADS && !(errno = pthread_create(&threads[started], 0, mine, 0)))
		started++;
	go = 1;
	if (started < THREADS)
		return refused("pthread_create");
	while (started)
		pthread_join(threads[--started], 0);
	return landed();
}
