/* The writer of the storm: a static program that plants a tree, tells what is in one, and changes it in random ways.
 *
 *   storm plant DIR UID SEED    makes a tree of files of many kinds and names, owned by UID
 *   storm manifest DIR          prints a line for each file below DIR, the mounts of a container left out
 *   storm serve                 in a container: says `ready`, then obeys the lines on its stdin
 *
 * Lines that `serve` obeys: `manifest`; `run SEED UID` (one random sequence of operations by that user);
 * `remount` (everything that might make / writable). It says what it is about to do *before* it does it, since it is
 * killed for it: `op NAME PATH...`, paths in hex, the one that has to be told first. Every line of its own begins with a
 * newline and ends with ` .`, so that one that was cut short by the end is told from a whole one. */
#include "storm.h"

static void run(uint64_t seed, unsigned uid) {
  static const char *const roots[] = {"/srv/tree", "/srv/tree", "/srv/tree", "/etc", "/srv/user", "/usr/sbin"};
  state = seed * 0x9e3779b97f4a7c15 + 1;
  user = uid;
  if (uid) {
    gid_t group = GROUP;
    if (setgroups(1, &group) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid)) _exit(4);
    collect("/srv/user");
  } else {
    collect(roots[below(6)]);
    remember(DIRS, "/");
  }
  /* Half of the sequences are one operation, so that each kind is often the only one. */
  for (unsigned left = below(2) ? 1 : 2 + below(3); left;) {
    int code = any_op();
    /* What it needs is not in this tree: another one. */
    if (code == ENOENT) continue;
    add("\ndone %s %d .\n", doing, code);
    flush();
    left--;
  }
}

static void in_child(uint64_t seed, unsigned uid) {
  pid_t child = fork();
  if (child == 0) run(seed, uid), _exit(0);
  int status = -1;
  waitpid(child, &status, 0);
  add("\nend %d .\n", status);
  flush();
}

/* Everything that might make / writable; none of it may help, whatever the calls return. */
static void remount(void) {
  int results[5];
  results[0] = mount(NULL, "/", NULL, MS_REMOUNT, NULL) ? errno : 0;
  results[1] = mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) ? errno : 0;
  struct mount_attr attr = {.attr_clr = MOUNT_ATTR_RDONLY};
  results[2] = syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof attr) ? errno : 0;
  results[3] = unshare(CLONE_NEWNS) ? errno : 0;
  results[4] = mount(NULL, "/", NULL, MS_REMOUNT, "rw") ? errno : 0;
  add("\nremounted %d %d %d %d %d .\n", results[0], results[1], results[2], results[3], results[4]);
  flush();
}

static int serve(void) {
  char line[128];
  size_t len = 0;
  manifest("", 0);
  add("\nready %llx %u .\n", (unsigned long long)manifest_sum, manifest_count);
  flush();
  /* One byte at a time: what was read is lost when this is killed, and the next one needs the line after it. */
  while (read(0, line + len, 1) == 1) {
    unsigned long long seed;
    unsigned uid;
    if (line[len] != '\n') {
      if (++len == sizeof line) return 5;
      continue;
    }
    line[len] = 0;
    len = 0;
    if (sscanf(line, "run %llu %u", &seed, &uid) == 2) in_child(seed, uid);
    else if (!strcmp(line, "remount")) remount();
    else if (!strcmp(line, "manifest")) manifest("", 1), add("\nlisted %llx %u .\n", (unsigned long long)manifest_sum, manifest_count), flush();
    else return 6;
  }
  return 0;
}

int main(int argc, char **argv) {
  umask(0);
  if (argc == 5 && !strcmp(argv[1], "plant")) return state = atoi(argv[4]), plant(argv[2], atoi(argv[3]), 2), 0;
  if (argc == 3 && !strcmp(argv[1], "manifest")) {
    manifest(argv[2], 1);
    add("\nlisted %llx %u .\n", (unsigned long long)manifest_sum, manifest_count);
    return flush(), 0;
  }
  if (argc == 2 && !strcmp(argv[1], "serve")) return serve();
  fprintf(stderr, "usage: storm plant DIR UID SEED | manifest DIR | serve\n");
  return 2;
}
