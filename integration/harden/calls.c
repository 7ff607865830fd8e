/* Makes the calls that are named by its arguments, each `number,first,second,third`, and prints what each came to: 0 or the
 * error's number. What is given here must do no harm where it is allowed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char *at = argv[i];
		unsigned long numbers[4] = { 0 };
		for (int n = 0; n < 4; n++) {
			numbers[n] = strtoul(at, &at, 10);
			at += *at == ',';
		}
		errno = 0;
		long got = syscall((long)numbers[0], numbers[1], numbers[2], numbers[3], 0, 0, 0);
		printf("%d\n", got < 0 ? errno : 0);
	}
	return 0;
}
