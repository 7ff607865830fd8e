/* The victim: a small honest web server with two holes. What comes through a hole runs as a child of a worker, as it does
 * after any remote code execution; how that child ended is the answer's last line.
 *
 *   GET  /                  the page /srv/www/index.html
 *   GET  /cgi-bin/NAME      a script below /srv/www/cgi-bin, run as any CGI
 *   POST /upload/NAME       keeps the body as /data/NAME
 *   POST /hole/shell        hole: the body is what a CGI passes on to a shell (command injection)
 *   POST /hole/code/NAME    hole: an attack of this folder that runs in the server's own code (a corrupted memory)
 *
 * Usage: victim PORT. ATTACKER is the address that attacks call home to. Must not: need anything but libc.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Made by the image's script from the names of the attacks. */
extern const struct injected { const char *name; int (*attack)(void); } injected[];

#define MOST (64 << 10)
static char request[MOST + 1];

static void stop(int signal) { (void)signal; _exit(0); }
static void reap(int signal)
{
	int kept = errno;

	(void)signal;
	while (waitpid(-1, 0, WNOHANG) > 0)
		;
	errno = kept;
}

/* Sends all that comes from a child, and then how it ended. */
static void relay(int to, int from, pid_t child)
{
	char buffer[4096];
	ssize_t got;
	int status;

	dprintf(to, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n");
	while ((got = read(from, buffer, sizeof(buffer))) > 0)
		if (write(to, buffer, got) != got)
			break;
	waitpid(child, &status, 0);
	if (WIFSIGNALED(status))
		dprintf(to, "\nsignal %d\n", WTERMSIG(status));
	else
		dprintf(to, "\nexit %d\n", WEXITSTATUS(status));
}

/* In a child with its output in a pipe: a program if argv is given, else injected code. */
static void in_child(int client, char *const *argv, const struct injected *code)
{
	int out[2];
	pid_t child;

	if (pipe(out) || (child = fork()) < 0) {
		dprintf(client, "HTTP/1.0 500 no child\r\n\r\n");
		return;
	}
	if (!child) {
		signal(SIGCHLD, SIG_DFL);
		dup2(out[1], 1);
		dup2(out[1], 2);
		close(out[0]);
		close(out[1]);
		close(client);
		if (!argv)
			_exit(code->attack());
		execv(argv[0], argv);
		dprintf(1, "refused: execv: %s\n", strerrorname_np(errno));
		_exit(126);
	}
	close(out[1]);
	relay(client, out[0], child);
}

static void page(int client)
{
	char buffer[4096];
	ssize_t got;
	int from = open("/srv/www/index.html", O_RDONLY);

	if (from < 0) {
		dprintf(client, "HTTP/1.0 404 Not Found\r\n\r\n");
		return;
	}
	dprintf(client, "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n");
	while ((got = read(from, buffer, sizeof(buffer))) > 0)
		if (write(client, buffer, got) != got)
			break;
}

static void keep(int client, const char *name, const char *body, size_t bytes)
{
	char path[128], fresh[140];
	int to;

	snprintf(path, sizeof(path), "/data/%s", name);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	to = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (to < 0 || write(to, body, bytes) != (ssize_t)bytes || close(to) || rename(fresh, path))
		dprintf(client, "HTTP/1.0 500 %s\r\n\r\n", strerrorname_np(errno));
	else
		dprintf(client, "HTTP/1.0 201 Created\r\n\r\nkept\n");
}

/* Counts requests where its workers share memory. */
static void count(void)
{
	int shared = open("/dev/shm/requests", O_RDWR | O_CREAT, 0600);
	int *requests;

	if (shared < 0 || ftruncate(shared, sizeof(int)))
		return;
	requests = mmap(0, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
	if (requests != MAP_FAILED)
		++*requests;
	close(shared);
}

static void answer(int client)
{
	size_t have = 0, length = 0;
	char *body = 0, *found, *name;
	ssize_t got;

	while (have < MOST && (got = read(client, request + have, MOST - have)) > 0) {
		have += got;
		request[have] = 0;
		if (!body && (body = strstr(request, "\r\n\r\n"))) {
			body += 4;
			found = strcasestr(request, "content-length:");
			length = found && found < body ? strtoul(found + 15, 0, 10) : 0;
		}
		if (body && (size_t)(request + have - body) >= length)
			break;
	}
	if (!body || (size_t)(request + have - body) < length)
		return;
	body[length] = 0;
	count();
	name = strchr(request, ' ');
	if (!name++ || !(found = strchr(name, ' ')))
		return;
	*found = 0;
	if (!strcmp(request, "GET /") || !strcmp(name, "/"))
		page(client);
	else if (!strncmp(name, "/cgi-bin/", 9) && !strchr(name + 9, '/')) {
		char script[256];
		char *argv[] = { script, 0 };

		snprintf(script, sizeof(script), "/srv/www%s", name);
		in_child(client, argv, 0);
	} else if (!strncmp(name, "/upload/", 8) && !strchr(name + 8, '/'))
		keep(client, name + 8, body, length);
	else if (!strcmp(name, "/hole/shell")) {
		char *argv[] = { "/bin/sh", "-c", body, 0 };

		in_child(client, argv, 0);
	} else if (!strncmp(name, "/hole/code/", 11)) {
		const struct injected *code = injected;

		while (code->name && strcmp(code->name, name + 11))
			code++;
		if (code->name)
			in_child(client, 0, code);
		else
			dprintf(client, "HTTP/1.0 404 no such attack\r\n\r\n");
	} else
		dprintf(client, "HTTP/1.0 404 Not Found\r\n\r\n");
}

int main(int argc, char **argv)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 80) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1, pid_file;
	struct sigaction on_child = { .sa_handler = reap, .sa_flags = SA_RESTART };

	signal(SIGTERM, stop);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGCHLD, &on_child, 0);
	pid_file = open("/run/victim.pid", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (pid_file >= 0) {
		dprintf(pid_file, "%d\n", getpid());
		close(pid_file);
	}
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(listener, (void *)&here, sizeof(here)) || listen(listener, 64)) {
		perror("victim: failed to listen");
		return 1;
	}
	for (;;) {
		int client = accept(listener, 0, 0);

		if (client < 0)
			continue;
		if (!fork()) {
			signal(SIGCHLD, SIG_DFL);
			close(listener);
			answer(client);
			_exit(0);
		}
		close(client);
	}
}
