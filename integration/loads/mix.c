/* A mixed load, as a server makes one: files read, written and listed, messages over TCP and a pipe between threads, programs
 * run, and some computing in between. Prints how long it took, in microseconds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, FILES = 32 };
static char block[BLOCK];
static volatile uint64_t sink;

static void need(int ok, const char *what) {
  if (!ok) err(1, "%s", what);
}

/* What a program does with what it has read. */
static void compute(void) {
  uint64_t hash = 1469598103934665603u;
  for (int i = 0; i < BLOCK; i++) hash = (hash ^ (unsigned char)block[i]) * 1099511628211u;
  sink += hash;
}

static void files(int round) {
  char name[64];
  snprintf(name, sizeof name, "/tmp/mix-%d", round % FILES);
  int fd = open(name, O_CREAT | O_RDWR, 0600);
  need(fd >= 0, name);
  for (int i = 0; i < 4; i++) need(write(fd, block, BLOCK) == BLOCK, "write");
  for (int i = 0; i < 4; i++) {
    need(pread(fd, block, BLOCK, i * BLOCK) == BLOCK, "pread");
    compute();
  }
  struct stat status;
  need(fstat(fd, &status) == 0 && stat("/bin/mix", &status) == 0, "stat");
  close(fd);
  if (round % FILES == FILES - 1) {
    DIR *dir = opendir("/tmp");
    need(dir != 0, "opendir");
    while (readdir(dir)) {}
    closedir(dir);
    need(unlink(name) == 0, "unlink");
  }
}

static void *echo(void *arg) {
  int server = *(int *)arg, client = accept(server, 0, 0);
  char message[512];
  ssize_t n;
  need(client >= 0, "accept");
  while ((n = read(client, message, sizeof message)) > 0) need(write(client, message, n) == n, "echo");
  close(client);
  return 0;
}

static void program(void) {
  pid_t child = fork();
  need(child >= 0, "fork");
  if (child == 0) {
    execl("/bin/mix", "mix", "nothing", (char *)0);
    _exit(127);
  }
  int status;
  need(waitpid(child, &status, 0) == child && status == 0, "run");
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "nothing")) return 0;
  int rounds = argc > 1 ? atoi(argv[1]) : 4000;
  int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  need(!bind(server, (void *)&address, sizeof address) && !listen(server, 1) && !getsockname(server, (void *)&address, &length), "listen");
  pthread_t thread;
  need(!pthread_create(&thread, 0, echo, &server), "thread");
  need(!connect(client, (void *)&address, sizeof address), "connect");
  struct timespec from, to;
  clock_gettime(CLOCK_MONOTONIC, &from);
  for (int round = 0; round < rounds; round++) {
    files(round);
    char message[512] = {0};
    need(write(client, message, sizeof message) == sizeof message && read(client, message, sizeof message) > 0, "message");
    if (round % 100 == 0) program();
  }
  clock_gettime(CLOCK_MONOTONIC, &to);
  printf("%ld\n", (to.tv_sec - from.tv_sec) * 1000000 + (to.tv_nsec - from.tv_nsec) / 1000);
  return 0;
}
