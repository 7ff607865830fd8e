/* Starts to mine: a burst of threads that use up every processor, and a connection to a pool. Threads alone are held by the
 * limit of processes, and told by nothing.
 *
 * docker:  lands
 * enforce: syscall connect
 * observe: would-refuse connect tcp
 */
#include "attack.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#define THREADS 64

static void *mine(void *end)
{
	volatile unsigned long hash = 0;

	while (time(0) < *(time_t *)end)
		hash = hash * 31 + 7;
	return 0;
}

int attack(void)
{
	struct sockaddr_in pool = { .sin_family = AF_INET, .sin_port = htons(3333) };
	time_t end = time(0) + 1;
	pthread_t threads[THREADS];
	int started = 0, to;

	while (started < THREADS && !(errno = pthread_create(&threads[started], 0, mine, &end)))
		started++;
	if (started < THREADS)
		refused("pthread_create");
	inet_pton(AF_INET, getenv("ATTACKER"), &pool.sin_addr);
	to = socket(AF_INET, SOCK_STREAM, 0);
	if (to < 0 || connect(to, (void *)&pool, sizeof(pool)))
		return refused("connect");
	while (started)
		pthread_join(threads[--started], 0);
	return landed();
}
